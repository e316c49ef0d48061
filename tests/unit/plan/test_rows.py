"""FLOPs of rows: counted, or known from costs; and the clip that the assumption is about."""

import pytest

from ssp.config import load_config
from ssp.plan.rows import base_row, count_rows
from ssp.plan.speeds import FLOPS
from ssp.records.costs import load_costs
from tests.unit.made_records import make_config, write_costs
from tests.unit.test_repository import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_rows_are_counted_on_their_own_model():
    config = make_config(methods=("ssp", "linear"))
    rows = count_rows(config)
    assert rows.frozen("linear") and not rows.frozen("ssp")
    assert rows.flops("ssv2", "ssp") > rows.flops("ssv2", "linear") > 1e6


def test_what_costs_know_is_not_counted_again(monkeypatch):
    config = make_config(methods=("ssp", "linear"))
    write_costs(config)
    monkeypatch.setattr("ssp.backbone.flops.forward_flops", lambda model: 1)
    rows = count_rows(config, load_costs(config))
    assert rows.flops("ssv2", "ssp") == 20e9 and rows.frozen("linear")
    other = make_config(methods=("ssp", "linear"), backbone=config.backbone.model_dump() | {"image_size": 48})
    assert count_rows(other, load_costs(config)).flops("ssv2", "ssp") == 1


def test_longer_clips_cost_in_proportion_and_points_as_their_base():
    plain = make_config(methods=("ssp", "linear")).model_dump(mode="json")
    plain["datasets"]["breakfast"]["clips"]["num_frames"] = 32
    vary = {"title": "Rows", "of": "ssp", "vary": {"num_prompts": [0, 1]}}
    config = make_config(methods=("ssp", "linear"), datasets=("hmdb51",), ablations={"rows": vary})
    points = [row for row in config.rows if row not in config.methods]
    assert points and {base_row(config, row) for row in points} == {"ssp"}
    rows = count_rows(make_config(datasets=("hmdb51",)).model_validate(plain))
    assert rows.flops("breakfast", "ssp") == 4 * rows.flops("hmdb51", "ssp")


@pytest.mark.slow
def test_the_assumed_clip_is_that_of_the_paper():
    config = load_config(ROOT / "config" / "paper.yaml")
    only = config.model_copy(update={"methods": {"linear": config.methods["linear"]}, "ablations": {}})
    assert count_rows(only).flops("hmdb51", "linear") == FLOPS
