"""A folder of own videos ends in tables, by two commands; the config of the run builds on the one that was written."""

import subprocess
import sys

import pandas as pd
import pytest

from tests.unit.made_videos import scene, write_video
from tests.workflow.running import ROOT, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(1800)]

# What `ssp init` chooses, as small as it gets.
SMALLER = """
extends: clips.yaml
name: smaller
seeds: [0]
backbone: {checkpoints: {start: {pretrain: {clips: 32, held_out: 8, steps: 4}}}}
datasets: {clips: {recipe: {epochs: 1}}}
sweep: {trials: 1, epochs: 1}
"""


def test_from_a_folder_to_tables(tmp_path):
    videos = tmp_path / "clips"
    for label, name in enumerate(("run", "walk")):
        for i in range(5):
            suffix = ("avi", "mp4")[label]
            write_video(videos / name / f"{i}.{suffix}", scene(10, seed=5 * label + i))
    before = sorted(videos.rglob("*"))
    command = [sys.executable, "-m", "ssp", "init", videos]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wrote clips.yaml; to run it: snakemake --cores all --configfile clips.yaml" in done.stdout

    (tmp_path / "smaller.yaml").write_text(SMALLER)
    done = snakemake(tmp_path, "--cores", "2", "--configfile", tmp_path / "smaller.yaml")
    assert done.code == 0, done.err[-6000:]
    assert not {"generate", "fetch", "unpack"} & done.jobs.keys()
    table = pd.read_csv(tmp_path / "results/smaller/tables/main.csv")
    assert set(table["method"]) == {"linear", "vpt", "ssp", "full"}
    assert set(table.loc[table["dataset"] == "clips", "status"]) == {"ok"}
    assert (tmp_path / "results/smaller/report.html").is_file()
    assert sorted(videos.rglob("*")) == before
    assert sorted(path.name for path in (tmp_path / "data/clips/clips").iterdir()) == [
        "frames",
        "manifest.parquet",
        "manifest.report.json",
    ]

    again = snakemake(tmp_path, "-n", "--configfile", tmp_path / "smaller.yaml")
    assert not again.jobs
    write_video(videos / "run" / "new.avi", scene(10, seed=99))
    again = snakemake(tmp_path, "-n", "--configfile", tmp_path / "smaller.yaml")
    assert again.jobs["manifest"] == 1 and again.jobs["train"] == 4
    assert "pretrain" not in again.jobs
