"""`ssp compare`: differences are the protocol's, what moved is told from noise, and what differs is named."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_results_config
from ssp.errors import ConfigError
from ssp.records.predictions import merge_views, read_predictions
from ssp.records.record import load_record, save_record
from ssp.sharing.compare import COLUMNS, compare
from ssp.tables.stats import holm
from tests.unit.made_records import SHARES
from tests.unit.tables.single import paired_difference

SEEDS = (0, 1, 2)


@pytest.fixture
def three(here):
    """Three seeds, so that there are p-values."""
    return here("three", seeds=SEEDS, ablations={})


@pytest.fixture
def better(here):
    """The same, but ssp is right nearly always, and a search with another number of trials."""
    with pytest.MonkeyPatch.context() as patch:  # not for as long as the test: other folders, too, are made but once
        patch.setitem(SHARES, "ssp", 0.93)
        return here("better", seeds=SEEDS, ablations={}, title="Better")


def merged(folder, dataset, row):
    path = folder / "predictions" / dataset / row
    return {seed: merge_views(read_predictions(path / f"seed{seed}.parquet")) for seed in SEEDS}


def test_a_difference_is_the_one_of_the_protocol(three, better):
    cells = compare([three, better]).cells.set_index(["dataset", "method"])
    assert list(cells.index) == [(d, r) for d in ("hmdb51", "ssv2") for r in ("ssp", "linear")]
    for cell in [("hmdb51", "ssp"), ("ssv2", "ssp"), ("hmdb51", "linear")]:
        found = paired_difference(merged(better, *cell), merged(three, *cell))
        row = cells.loc[cell]
        assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(
            (found.estimate, found.low, found.high, found.p), rel=1e-5, nan_ok=True
        )
        assert row["paired"] and row["n_seeds"] == 3
        assert row["mean_other"] - row["mean_first"] == pytest.approx(row["difference"])
    assert cells["p_holm"].to_numpy() == pytest.approx(holm(cells["p"]), rel=1e-5, nan_ok=True)
    assert cells.loc[("hmdb51", "linear"), "same_predictions"] == 3
    assert cells.loc[("hmdb51", "ssp"), "same_predictions"] == 0


def test_what_moved_beyond_noise_is_marked_and_the_text_is_100_columns_wide(three, better):
    done = CliRunner().invoke(app, ["compare", "three", "better"])
    assert done.exit_code == 0, done.exception
    assert max(map(len, done.output.splitlines())) <= 100
    lines = done.output.splitlines()
    assert lines[0] == "better minus three, top-1 in percent"
    rows = {tuple(line.split()[:2]): line for line in lines if line.split()[:1] in (["hmdb51"], ["ssv2"])}
    assert "*" in rows["hmdb51", "ssp"] and "*" in rows["ssv2", "ssp"] and "*" not in rows["hmdb51", "linear"]
    assert "2 moved beyond noise (*: p < 0.05, adjusted after Holm over 3" in " ".join(done.output.split())
    assert '  title: "Tried & tested: generated videos, small backbone" > "Better"' in lines
    assert "Hyper-parameters: the same" in lines and "Made by: the same" in lines


@pytest.mark.slow
def test_what_made_them_is_compared(lab, here):
    other = here("lab2")
    for path in other.rglob("records/*/*/*.json"):
        record = load_record(path)
        chosen = record.hyperparameters.model_copy(update={"lr": 0.5}) if record.hyperparameters else None
        git = record.git.model_copy(update={"commit": "1" * 40, "dirty": True})
        versions = record.versions | {"torch": "9.9"}
        changes = {"hyperparameters": chosen, "git": git, "versions": versions, "device": "GPU", "manifest_hash": "m"}
        save_record(record.model_copy(update=changes), path)
    (change,) = compare([lab, other]).changes
    torch = load_record(lab / "records/ssv2/ssp/seed0.json").versions["torch"]
    assert change.config == {}
    assert change.chosen["ssv2.ssp.lr"] == ("0.01", "0.5")
    assert change.origin["commit"] == ("0" * 10, "1" * 10 + " with changes")
    assert change.origin["version of torch"] == (torch, "9.9") and change.origin["device"] == ("cpu", "GPU")
    assert change.origin["manifest of ssv2"][1] == "m"
    assert set(change.origin) == {"commit", "device", "version of torch", "manifest of hmdb51", "manifest of ssv2"}


@pytest.mark.slow
def test_without_common_seeds_it_is_a_difference_of_two_samples(lab, other_seeds):
    comparison = compare([lab, other_seeds])
    assert not comparison.cells["paired"].any() and comparison.cells["difference"].notna().all()
    assert "4 could not be paired" in " ".join(comparison.text().split())
    assert "seeds" in comparison.changes[0].config


@pytest.mark.slow
def test_rows_and_data_sets_of_one_alone_are_listed(lab, other_row, here):
    one = here("one", seeds=(0, 1), ablations={})
    config = load_results_config(one)
    plain = config.model_dump(mode="json")
    del plain["datasets"]["ssv2"]
    import yaml

    (one / "config.yaml").write_text(yaml.safe_dump(plain))
    first, second = compare([lab, other_row, one]).changes
    assert (first.only_first, first.only_other) == (["row linear"], ["row vpt"])
    assert (second.only_first, second.only_other) == (["data set ssv2"], [])
    text = compare([lab, other_row]).text()
    assert "Only in lab: row linear" in text and "Only in rows: row vpt" in text


@pytest.mark.slow
def test_a_cell_that_failed_in_one_has_no_difference(lab, here):
    other = here("failed")
    path = other / "records/ssv2/ssp"
    for seed in (0, 1):
        failed = load_record(path / f"seed{seed}.json").model_copy(
            update={"status": "failed", "reason": "out of memory", "metrics": None}
        )
        save_record(failed, path / f"seed{seed}.json")
    cells = compare([lab, other]).cells.set_index(["dataset", "method"])
    row = cells.loc[("ssv2", "ssp")]
    assert np.isnan(row["mean_other"]) and np.isnan(row["difference"]) and not np.isnan(row["mean_first"])
    assert "failed" in compare([lab, other]).text()


def test_programs_get_csv_and_json(three, better, lab):
    words = ["compare", "three", "better", "lab"]
    done = CliRunner().invoke(app, [*words, "--csv"])
    rows = list(csv.DictReader(io.StringIO(done.output)))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 8
    assert {row["other"] for row in rows} == {"better", "lab"}
    made = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert [change["other"] for change in made["changes"]] == ["better", "lab"]
    assert len(made["cells"]) == 8 and made["changes"][0]["config"]["title"][1] == '"Better"'
    table = pd.read_csv(io.StringIO(done.output))
    assert [row["difference"] for row in made["cells"]] == pytest.approx(list(table["difference"]))
    done = CliRunner().invoke(app, [*words, "--csv", "--json"])
    assert str(done.exception) == "--json, --csv: give one of the two"


def test_one_is_not_enough(lab):
    with pytest.raises(ConfigError, match="two or more results"):
        compare([Path("lab")])
