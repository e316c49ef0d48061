"""Parameter counts, the parameter table, and the published figures beside it."""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ssp import build_model, parameter_counts
from ssp.config import load_config
from ssp.methods.parameters import config_parameter_table, parameter_table
from ssp.methods.registry import method_names
from ssp.records.published import published_accuracy, published_parameters, published_table
from ssp.tables.terminal import print_parameters

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def small():
    return parameter_table({"small": {"embed_dim": 192, "depth": 2}})


@pytest.fixture(scope="module")
def middle():
    methods = ("full", "linear", "ssp", "svp", "vfpt", "vpt")
    return parameter_table(["videomamba_middle"], {name: {} for name in methods}).set_index(["method", "dataset"])


def test_counts_by_hand():
    model = build_model({"embed_dim": 8, "depth": 2}, "vpt", 3, img_size=32, method_options={"num_prompts": 5})
    counts = parameter_counts(model)
    assert counts["extra"] == 2 * 5 * 8
    assert counts["head"] == 8 * 3 + 3
    assert counts["trainable"] == counts["extra"] + counts["head"] + 8
    assert counts["total"] == sum(parameter.numel() for parameter in model.parameters())


def test_table_covers_everything(small):
    assert list(small.columns) == [
        "backbone", "method", "dataset", "total", "trainable", "extra", "head", "tuned", "extra_norm_head",
        "published_m", "met_by", "difference_m",
    ]  # fmt: skip
    assert set(small["method"]) == set(method_names())
    assert set(small["dataset"]) == {"hmdb51", "ucf101", "ssv2", "breakfast"}
    assert small["published_m"].isna().all(), "published figures are of the middle size"
    assert len(small) == 4 * len(method_names())


@pytest.mark.parametrize(
    ("dataset", "head", "total"),
    [
        ("hmdb51", 29_427, 73_674_483),
        ("ucf101", 58_277, 73_703_333),
        ("ssv2", 100_398, 73_745_454),
        ("breakfast", 5_770, 73_664_650),
    ],
)
def test_known_sizes(middle, dataset, head, total):
    assert middle.loc[("full", dataset), "head"] == head
    assert middle.loc[("full", dataset), "total"] == middle.loc[("full", dataset), "trainable"] == total
    assert middle.loc[("linear", dataset), "trainable"] == head + 576
    assert middle.loc[("vpt", dataset), "extra_norm_head"] == 1_474_560 + head + 576
    assert middle.loc[("ssp", dataset), "extra"] == 2_418_274


def test_published_figures_and_what_meets_them(middle):
    assert set(middle.loc["ssp", "met_by"]) == {"extra (truncated)"}
    assert middle.loc["ssp", "difference_m"].tolist() == pytest.approx([0.008274] * 4)
    vpt = middle.loc["vpt"]
    assert vpt.loc["hmdb51", "met_by"] == "extra_norm_head (rounded and truncated)"
    assert vpt.loc["hmdb51", "difference_m"] == pytest.approx(0.004563)
    assert set(vpt.drop("hmdb51")["met_by"]) == {""}
    assert vpt.loc["breakfast", "difference_m"] == pytest.approx(1.480906 - 1.5), "the nearest count"
    assert set(middle.loc["full", "met_by"]) == {"trainable (rounded to whole millions)"}
    assert middle.loc["linear", "published_m"].isna().all()


def test_options_change_the_table():
    table = parameter_table(["videomamba_tiny"], {"vpt": {"num_prompts": 3}}, {"x": (2, 4)})
    assert table["extra"].tolist() == [24 * 3 * 192]


def test_table_of_a_config():
    config = load_config(ROOT / "config" / "demo.yaml")
    table = config_parameter_table(config)
    assert set(table["method"]) == set(config.methods)
    assert set(table["dataset"]) == set(config.datasets)
    assert (table["total"] > table["extra"] + table["head"]).all()


def test_printed_table_fits_80_columns_and_cuts_nothing(small, middle):
    """Of all methods on a small backbone, and of those with published figures on theirs."""
    table = pd.concat([small, middle.reset_index()[small.columns]], ignore_index=True)
    file = io.StringIO()
    print_parameters(table, Console(width=80, file=file))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80 and "…" not in file.getvalue()
    rows = [line.split() for line in lines if line.startswith("  ") and "," in line]
    counts = table[["dataset", "total", "trainable", "extra", "head", "extra_norm_head"]]
    assert [[row[0], *(int(n.replace(",", "")) for n in row[1:6])] for row in rows] == counts.values.tolist()
    headings = [line.strip() for line in lines if line.strip() in {*table["backbone"], *table["method"]}]
    assert headings == [
        name
        for backbone, part in table.groupby("backbone", sort=False)
        for name in (backbone, *part["method"].unique())
    ]
    assert {row[6] for row in rows} >= {"74.00", "2.41", "1.50", "–"}
    assert "- extra (truncated): ssp" in lines
    met = "- extra+norm+head (rounded and truncated): svp on hmdb51; vfpt on hmdb51; vpt on hmdb51"
    assert met in " ".join(lines)  # it takes two lines


def test_published_table():
    table = published_table()
    assert len(table) == 12
    assert published_parameters()["ssp"] == 2.41
    assert published_parameters()["stop"] == 1.49, "the row on the same backbone, not the CLIP one"
    assert published_accuracy()["ssp", "ssv2"] == 53.72
    assert len(published_accuracy()) == 9 * 4
    assert table.loc[table["group"] == "CLIP", "method"].isna().all()
    assert table.loc[table["group"] == "CLIP", "breakfast"].isna().all()


def test_published_table_is_the_given_one():
    given = ROOT.parent / "shared" / "paper" / "table1.csv"
    if not given.is_file():
        pytest.skip("the facts beside the repository are not here")
    pd.testing.assert_frame_equal(pd.read_csv(given), pd.read_csv(ROOT / "ssp" / "records" / "published.csv"))


@pytest.mark.slow
def test_published_table_needs_no_torch():
    code = (
        "import sys; from ssp.records import published; published.published_table(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
