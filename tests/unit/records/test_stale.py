"""What a plan asks results: quickly, and without heavy libraries. Whole plans: tests/workflow/test_rerun.py."""

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssp.records.record import load_record
from ssp.records.stale import Asked
from ssp.tables import write_tables
from tests.unit.made_records import make_config, write_all, write_cell


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Records of one data set and their tables."""
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=("ssp", "linear"), explained=None)
    write_all(config)
    write_tables(config)
    for method in config.methods:
        for seed in config.seeds:
            weights = Asked(config).paths.weights("hmdb51", method, seed)
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.touch()
    return config


def test_what_is_in_order_is_not_stale(config):
    asked = Asked(config)
    assert [asked.record("hmdb51", "ssp", seed) for seed in config.seeds] == [None, None]
    assert asked.costs() is asked.tables() is None
    assert asked.record("hmdb51", "ssp", 7).why == "not there, as results/tried/tables/config.json is"


def test_what_cannot_be_read_is(config):
    for content in ("", "{", "[]"):
        Asked(config).paths.record("hmdb51", "ssp", 0).write_text(content)
        assert Asked(config).record("hmdb51", "ssp", 0).why == "cannot be read"


def test_other_videos_and_another_backbone_are(config):
    asked = Asked(config)
    asked.paths.manifest_report("hmdb51").parent.mkdir(parents=True)
    asked.paths.manifest_report("hmdb51").write_text(json.dumps({"hash": "manifest of hmdb51"}))
    assert Asked(config).record("hmdb51", "ssp", 0) is None
    asked.paths.manifest_report("hmdb51").write_text(json.dumps({"hash": "another"}))
    assert Asked(config).record("hmdb51", "ssp", 0).why == "made on another manifest of hmdb51 than there is now"
    asked.paths.manifest_report("hmdb51").unlink()
    Path("tiny.safetensors").write_text("weights")
    write_cell(config, "hmdb51", "ssp", 0, [True] * 10, backbone_hash="0" * 16)
    assert load_record(asked.paths.record("hmdb51", "ssp", 0)).backbone_hash
    assert Asked(config).record("hmdb51", "ssp", 0).why == "made with another file of backbone tiny than there is now"


def test_a_backbone_that_may_not_be_read_does_not_end_a_plan(config, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    Path("tiny.safetensors").write_text("weights")
    write_cell(config, "hmdb51", "ssp", 0, [True] * 10, backbone_hash="0" * 16)
    assert Asked(config).record("hmdb51", "ssp", 0)
    monkeypatch.setattr("ssp.records.stale.file_sha256", refuse)
    assert Asked(config).record("hmdb51", "ssp", 0) is None


def test_asking_is_light():
    heavy = "{'torch', 'pandas', 'numpy', 'pyarrow', 'scipy', 'mlflow'}"
    code = f"import sys, ssp.records.stale, ssp.records.sums; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.slow
def test_asking_a_thousand_records_takes_about_a_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(seeds=range(63))  # 4 data sets, 4 rows
    write_cell(config, "hmdb51", "ssp", 0, [True, False])
    asked = Asked(config)
    record = asked.paths.record("hmdb51", "ssp", 0)
    made = json.loads(record.read_text())
    for run in config.runs():
        path = asked.paths.record(*run)
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = config.cell_slice(*run[:2])
        path.write_text(json.dumps(made | {"config": plain, "curves": made["curves"] * 20}, indent=1))
    start = time.process_time()
    assert sum(asked.record(*run) is not None for run in config.runs()) == 1008 - 63  # the hash of one cell
    assert time.process_time() - start < 2
