"""Disk: what is there, what is known by arithmetic, and what nobody knows."""

from pathlib import Path

import pytest

from ssp.data.synthetic.archives import generate_archives
from ssp.paths import Paths
from ssp.plan.rows import RowFacts, Rows
from ssp.plan.space import disk, results_bytes, states_bytes
from tests.unit.made_records import make_config
from tests.unit.tiny_benchmark import tiny_config


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_generated_archives_are_as_large_as_planned(tmp_path):
    config = tiny_config(tmp_path)
    planned = disk(config, "ucf101").archives
    made = sum(path.stat().st_size for path in generate_archives(config, "ucf101"))
    assert planned == pytest.approx(made, rel=0.1)
    assert disk(config, "ucf101").archives == made  # now they are there


def test_what_is_not_there_and_not_generated_is_not_known():
    plain = make_config(datasets=("ssv2",)).model_dump(mode="json")
    del plain["datasets"]["ssv2"]["generate"]
    config = make_config().model_validate(plain)
    assert (disk(config, "ssv2").archives, disk(config, "ssv2").frames) == (None, None)
    plain["datasets"]["ssv2"]["archives"][0]["size"] = 1234
    assert disk(make_config().model_validate(plain), "ssv2").archives == 1234


def test_frames_are_those_of_the_store_once_it_is_there():
    config = make_config(datasets=("ssv2",))
    planned = disk(config, "ssv2").frames
    assert planned == round(60 * 10 * 1.5 * 19_460 * 32 * 32 / (320 * 240))
    shard = Path(Paths.of(config).shard("ssv2", 0))
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"x" * 77)
    assert disk(config, "ssv2").frames == 77


def test_results_and_memory_are_arithmetic():
    config = make_config(datasets=("ssv2",), methods=("ssp", "full"), seeds=(0, 1))
    facts = {"ssp": RowFacts(1, 8, 100, 1000, 10), "full": RowFacts(1, 8, 1000, 1000, 10)}
    rows = Rows(config, facts)
    predictions = 40 * 6 * 4  # videos, classes, bytes
    assert results_bytes(config, rows) == 2 * (4 * 110 + predictions) + 2 * (4 * 1010 + predictions)
    assert states_bytes(config, rows) == 4 * (1000 + 3 * 1010)
