"""`ssp verify --rerun`: a run is trained again elsewhere and compared, and the results stay as they are."""

import contextlib
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import config_text
from ssp.errors import ConfigError, DataError
from ssp.files import file_sha256, write_text
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from ssp.records.predictions import SCHEMA, merge_views, metrics, read_predictions
from ssp.records.record import load_record, save_record
from ssp.verify.rerun import rerun

RUN = ("ucf101", "linear", 0)


@pytest.fixture(scope="module")
def trained(tiny_here, one_thread, tmp_path_factory):
    """Folder of results: two seeds of the linear probe, really trained."""
    with contextlib.chdir(tmp_path_factory.mktemp("trained")):
        config = tiny_here(sweep__trials=1, sweep__epochs=1, datasets__ucf101__recipe__epochs=2)
        run_sweep(config, "ucf101", "linear")
        for seed in (0, 1):
            train_cell(config, "ucf101", "linear", seed)
        write_text(Paths.of(config).config, config_text(config))
        return config.home.resolve()


@pytest.fixture
def results(trained, tmp_path, monkeypatch):
    """A copy of them."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, "theirs"))


def contents(folder):
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def forge(folder, **changes):
    """Other predictions, in which all is right, with a record that goes with them."""
    place, record_place = (folder / kind / "ucf101/linear" for kind in ("predictions", "records"))
    rows = read_predictions(place / "seed0.parquet")
    rows["logits"] = [
        np.where(np.arange(len(logits)) == label, 100, logits)
        for logits, label in zip(rows["logits"], rows["label"], strict=True)
    ]
    pq.write_table(pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False), place / "seed0.parquet")
    record = load_record(record_place / "seed0.json")
    changes |= {
        "metrics": record.metrics.model_copy(update=metrics(merge_views(rows))),
        "predictions": record.predictions.model_copy(update={"sha256": file_sha256(place / "seed0.parquet")}),
    }
    save_record(record.model_copy(update=changes), record_place / "seed0.json")


@pytest.mark.slow
def test_a_run_that_is_what_it_says_comes_out_again_and_nothing_is_written(results):
    before = contents(results)
    outcome = rerun(results, *RUN)
    assert outcome.same, outcome.lines
    assert outcome.lines == [
        "ucf101 linear 0: the same",
        "predictions: the same, byte by byte",
        "weights: the same, byte by byte",
    ]
    assert contents(results) == before


@pytest.mark.slow
def test_predictions_that_were_made_up_are_met(results):
    forge(results)
    outcome = rerun(results, *RUN)
    assert not outcome.same
    assert outcome.lines[0] == "ucf101 linear 0: differs, with the record's device, scan and versions"
    assert outcome.lines[1].startswith("top-1: 100.0000 % recorded, ")


@pytest.mark.slow
def test_elsewhere_it_is_judged_by_the_spread_over_seeds(results, monkeypatch):
    forge(results, device="another GPU")
    outcome = rerun(results, *RUN)  # two seeds, one of them made up, can say little
    assert any(line.startswith("made elsewhere: here is device cpu (recorded: another GPU)") for line in outcome.lines)
    assert outcome.same and outcome.lines[0] == "ucf101 linear 0: the same within noise"
    monkeypatch.setattr("ssp.tables.crossed.reach", lambda parts, level: 0.5)
    outcome = rerun(results, *RUN)
    assert not outcome.same and outcome.lines[0] == "ucf101 linear 0: differs beyond noise"


def test_what_is_missing_here_is_said(results):
    plain = yaml.safe_load((results / "config.yaml").read_text())
    (results / "config.yaml").write_text(yaml.safe_dump(plain | {"data_root": "nowhere"}))
    with pytest.raises(DataError) as told:
        rerun(results, *RUN)
    assert str(told.value).startswith(
        "nowhere/ucf101/manifest.parquet: not here (and 1 more files), but needed to train"
    )
    assert "snakemake --cores all nowhere/ucf101/manifest.parquet" in str(told.value)


def test_other_videos_are_refused(results, tiny_data):
    shutil.copytree(tiny_data / "ucf101", "other/ucf101")
    plain = yaml.safe_load((results / "config.yaml").read_text())
    (results / "config.yaml").write_text(yaml.safe_dump(plain | {"data_root": "other"}))
    record = load_record(results / "records/ucf101/linear/seed0.json")
    save_record(record.model_copy(update={"manifest_hash": "0" * 16}), results / "records/ucf101/linear/seed0.json")
    with pytest.raises(DataError, match="other videos or another split"):
        rerun(results, *RUN)


def test_a_run_that_is_not_there_is_one_line(results):
    with pytest.raises(ConfigError, match=r"^--rerun: no run ucf101 linear 7 in theirs/config.yaml; it has: "):
        rerun(results, "ucf101", "linear", 7)


def test_results_that_are_not_in_order_are_not_trained_again(results, monkeypatch):
    monkeypatch.setattr("ssp.verify.rerun.rerun", lambda *_: pytest.fail("trained"))
    done = CliRunner().invoke(app, ["verify", str(results), "--rerun", *map(str, RUN)])
    assert done.exit_code == 1 and "costs.json: missing" in done.output
