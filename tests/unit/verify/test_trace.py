"""`ssp trace`: every step from a number back to its origin, within 80 columns."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_results_config
from ssp.paths import Paths
from ssp.records.record import load_record
from tests.unit.made_results import make_results


@pytest.fixture(scope="module")
def results(made_results, tmp_path_factory):
    return Path(shutil.copytree(made_results, tmp_path_factory.mktemp("made") / "theirs"))


def traced(folder, *arguments):
    return CliRunner().invoke(app, ["trace", str(folder), *arguments])


def test_a_number_leads_back_to_everything_that_made_it(results):
    done = traced(results, "--dataset", "ssv2", "--row", "linear")
    assert done.exit_code == 0, done.output
    config = load_results_config(results)
    record = load_record(Paths.of(config).record("ssv2", "linear", 0))
    text = " ".join(done.output.split())
    for words in (
        "linear (linear) on ssv2 table 42.5000 % top-1, mean over 1 seed (tables/main.csv)",
        "recomputed 42.5000 %, from the predictions below; the same",
        "seed 0: 42.5000 % top-1, 17 of 40 videos, 80 views",
        f"predictions/ssv2/linear/seed0.parquet, SHA-256 {record.predictions.sha256[:16]}",
        f"weights/ssv2/linear/seed0.safetensors, SHA-256 {record.weights_sha256[:16]}",
        "test read once",
        f"commit {record.git.commit}",
        "seed 1: failed: out of memory",
        "hyper-parameters: sweeps/ssv2/linear.json",
        "trial 0 55.50 % on validation; lr 0.1,",
        "> trial 1 61.20 % on validation; lr 0.01,",
        "trial 2 pruned on validation; lr 0.001,",
        f"manifests/ssv2.parquet, the record's {record.manifest_hash}: 40 test videos",
        f"config {record.config_hash}, in config.yaml:",
        'method.name = "linear"',
    ):
        assert words in text, words
    assert max(map(len, done.output.splitlines())) <= max(80, len(str(results)) + 1)


@pytest.mark.slow
def test_of_several_studies_the_mean_is_that_of_the_tables(tmp_path, monkeypatch):
    """Study 0 has seeds 0 and 2, study 1 has seed 1: each study counts as much."""
    monkeypatch.chdir(tmp_path)
    folder = make_results(sweep={"trials": 3, "repeats": 2}, seeds=(0, 1, 2))
    done = traced(folder, "--dataset", "hmdb51", "--row", "linear")
    text = " ".join(done.output.split())
    assert "mean over 3 seeds" in text and "from the predictions below; the same" in text
    assert all(f"hyper-parameters: sweeps/hmdb51/linear/study{number}.json" in text for number in (0, 1))


def test_a_table_that_was_edited_is_told(results, tmp_path):
    copy = Path(shutil.copytree(results, tmp_path / "edited"))
    table = copy / "tables/main.csv"
    table.write_text(table.read_text().replace("ssv2,linear,42.5,", "ssv2,linear,52.5,"))
    done = traced(copy, "--dataset", "ssv2", "--row", "linear")
    assert "recomputed   42.5000 %, from the predictions below; NOT the same" in " ".join(done.output.split("\n  "))


def test_what_is_not_there_is_one_line(results):
    for arguments, line in (
        (("--dataset", "nothing", "--row", "ssp"), "--dataset: 'nothing' is not in"),
        (("--dataset", "ssv2", "--row", "lora"), "--row: 'lora' is not in"),
    ):
        done = traced(results, *arguments)
        assert done.exit_code == 1 and str(done.exception).startswith(line)
