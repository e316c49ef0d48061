"""Tables of a run that goes on: gaps are shown as gaps, numbers are those of the full tables, nothing is written."""

import functools
import io

import pytest
from rich.console import Console

from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.tables import build_tables, print_tables
from ssp.tables.cells import read_partly
from tests.unit.made_records import hits_of, make_config, write_all, write_cell


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "vpt"), seeds=(0, 1))
    write_all(config)
    return config


def partly(config):
    return build_tables(config, functools.partial(read_partly, config))


def shown(config):
    file = io.StringIO()
    print_tables(config, Console(width=100, file=file), partly(config))
    return file.getvalue()


def test_complete_they_are_the_tables(config):
    whole, part = build_tables(config), partly(config)
    assert all(table.equals(getattr(part, name)) for name, table in vars(whole).items())


def test_gaps_are_shown_and_the_rest_stays(config):
    whole, paths = build_tables(config).main.set_index(["dataset", "method"]), Paths.of(config)
    for seed in (0, 1):
        paths.record("ssv2", "vpt", seed).unlink()
    paths.record("hmdb51", "ssp", 1).unlink()
    main = partly(config).main.set_index(["dataset", "method"])
    assert main["status"].to_dict() == {
        ("hmdb51", "ssp"): "partial",
        ("hmdb51", "vpt"): "ok",
        ("ssv2", "ssp"): "ok",
        ("ssv2", "vpt"): "missing",
    }
    for cell in (("hmdb51", "vpt"), ("ssv2", "ssp")):
        assert main.loc[cell].equals(whole.loc[cell])
    text = shown(config)
    assert "has no result yet with seed 0, 1\n" in text
    assert "has no result yet with seed 1 (the mean is over the other seeds)" in text
    assert "failed" not in text and "These tables were not written." in text and not paths.tables.exists()


def test_a_failed_seed_stays_a_failure_beside_a_gap(config):
    write_cell(config, "ssv2", "vpt", 0, reason="loss is not finite", parameters=None, hyperparameters=None)
    Paths.of(config).record("ssv2", "vpt", 1).unlink()
    text = shown(config)
    assert "failed with seed 0: loss is not finite; has no result yet with seed 1" in " ".join(text.split())


def test_a_broken_record_is_no_gap(config):
    write_cell(config, "ssv2", "vpt", 0, hits_of(0.5))
    Paths.of(config).record("ssv2", "vpt", 1).write_text("{")
    with pytest.raises(RecordError, match=r"seed1\.json"):
        partly(config)
