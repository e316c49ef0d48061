"""The table and the curve of an ablation, from made records."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssp.config import Config
from ssp.errors import ConfigError, RecordError
from ssp.figures.ablation import write_curve
from ssp.paths import Paths
from ssp.records.record import Chosen, EarlierChoice
from ssp.tables.ablations import ablation_table, read_ablation, write_ablation
from ssp.tables.cells import read_cells
from ssp.tables.stats import holm
from tests.unit.made_records import make_config, write_cell
from tests.unit.tables.single import paired_difference

SEEDS = [0, 1, 2]


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    plain = make_config(datasets=("hmdb51", "ucf101"), methods=("linear", "ssp"), seeds=SEEDS).model_dump(mode="json")
    plain["methods"]["ssp"]["options"] = {"num_prompts": 3}
    plain["ablations"] = {
        "prompts": {"title": "Prompts", "of": "ssp", "vary": {"num_prompts": [1, 3]}, "seeds": [0, 1]},
        "parts": {
            "title": "Parts",
            "of": "ssp",
            "vary": [{"title": "narrow", "options": {"inner_dim": 8}}],
            "datasets": ["ucf101"],
        },
    }
    config = Config.model_validate(plain)
    for i, (dataset, row, seed) in enumerate(config.runs()):
        write_cell(config, dataset, row, seed, np.arange(40) % (3 + i % 4) > 0)
    return config


def test_points_stand_beside_the_base_row_paired(config):
    write_ablation(config, "prompts")
    table = pd.read_csv(Paths.of(config).ablation_tables("prompts")[0])
    assert [*table["num_prompts"]] == [1, 1, 3, 3] and [*table["dataset"]] == ["hmdb51", "ucf101"] * 2
    assert [*table["row"]] == ["ssp+num_prompts=1"] * 2 + ["ssp"] * 2 and set(table["n_seeds"]) == {2}
    assert table["difference"].notna().tolist() == [True, True, False, False]
    point, base = read_cells(config, ["hmdb51"], ["ssp+num_prompts=1", "ssp"], [0, 1])
    found = paired_difference(point.videos, base.videos)
    assert table.loc[0, ["difference", "difference_low", "difference_high"]].tolist() == pytest.approx(
        [found.estimate, found.low, found.high], abs=1e-7
    )
    assert table.loc[0, "difference"] == pytest.approx(table.loc[0, "mean"] - table.loc[2, "mean"])


def test_a_table_is_read_as_it_was_made_and_none_that_varies_something_else(config):
    write_ablation(config, "prompts")
    pd.testing.assert_frame_equal(
        read_ablation(config, "prompts").drop(columns="num_prompts"),
        ablation_table(config, "prompts").drop(columns="num_prompts"),  # an option may have any type
    )
    plain = config.model_dump(mode="json")
    plain["ablations"]["prompts"]["vary"] = {"inner_dim": [8]}
    with pytest.raises(RecordError, match=r"prompts.csv: columns are not inner_dim, point, row, .*; write it again"):
        read_ablation(Config.model_validate(plain), "prompts")


def test_for_readers_the_base_row_is_marked_and_named_points_start_with_it(config):
    write_ablation(config, "prompts")
    write_ablation(config, "parts")
    prompts, parts = (Paths.of(config).ablation_tables(name)[1].read_text() for name in ("prompts", "parts"))
    assert "num_prompts 3 (base)" in prompts and "2 seeds" in prompts and "base row's search chose" in prompts
    rows = [line.split("|")[1].strip() for line in parts.splitlines() if line.startswith("|")]
    assert rows[-2:] == ["ssp (base)", "narrow"] and "hmdb51" not in parts


@pytest.mark.slow
def test_comparisons_of_an_ablation_are_a_family_of_their_own(config):
    """Two points on two data sets, one clearly worse everywhere."""
    plain = config.model_dump(mode="json")
    plain["ablations"]["prompts"] |= {"vary": {"num_prompts": [1, 3, 9]}, "seeds": SEEDS}
    config = Config.model_validate(plain)
    for i, (dataset, row, seed) in enumerate(config.runs()):
        good = 0.3 if row == "ssp+num_prompts=1" else 0.8
        write_cell(config, dataset, row, seed, np.random.default_rng(i).random(1000) < good)
    write_ablation(config, "prompts")
    table = pd.read_csv(Paths.of(config).ablation_tables("prompts")[0])
    assert table["p"].notna().sum() == 4
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"]).tolist(), abs=1e-7, nan_ok=True)
    text = Paths.of(config).ablation_tables("prompts")[1].read_text()
    assert "adjusted after Holm over the 4 comparisons of the table" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count(r"\*") for line in rows[2:]] == [2, 0, 0]


def test_two_seeds_are_not_enough_for_an_asterisk(config):
    write_ablation(config, "prompts")
    text = Paths.of(config).ablation_tables("prompts")[1].read_text()
    assert "Not enough seeds for a p-value on HMDB51-like, UCF101-like." in text and "adjusted" not in text


def test_a_point_chosen_after_a_look_at_test_is_marked(config):
    chosen = Chosen(lr=0.1, weight_decay=0.05, drop_path=0.0)
    before = [EarlierChoice(config_hash="0" * 16, hyperparameters=chosen, test_readings=2)]
    write_cell(config, "ucf101", "ssp+num_prompts=1", 0, [True, False] * 20, earlier_test_readings=before)
    write_ablation(config, "prompts")
    table, text = (path.read_text() for path in Paths.of(config).ablation_tables("prompts")[:2])
    assert [line.split(",")[-1] for line in table.splitlines()] == ["read_before", "0", "2", "0", "0"]
    assert (
        "[1] num_prompts 1 on UCF101-like: test had been read 2 times before this choice" in text and "[2]" not in text
    )


def test_a_number_has_a_curve_and_names_have_none(config):
    write_ablation(config, "prompts")
    pdf, png = write_curve(config, "prompts")
    assert pdf.read_bytes().startswith(b"%PDF") and Image.open(png).width > 500
    before = png.read_bytes()
    write_curve(config, "prompts")
    assert png.read_bytes() == before
    with pytest.raises(ConfigError, match="varies no number"):
        write_curve(config, "parts")
