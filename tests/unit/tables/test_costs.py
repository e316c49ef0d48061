"""The table of costs follows from the record, by hand; and says where it must not be read without a note."""

import io

import pandas as pd
import pytest
from rich.console import Console

from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.tables import print_tables, write_tables
from tests.unit.made_records import costs_of, make_config, write_all, write_costs


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(config, rows=None, **changes):
    write_all(config)
    write_costs(config, rows, **changes)
    write_tables(config)
    folder = Paths.of(config).tables
    return pd.read_csv(folder / "costs.csv").set_index("method"), (folder / "costs.md").read_text()


def small(**changes):
    return make_config(datasets=("hmdb51",), seeds=(0,), **changes)


def cells(text):
    """Rows of the Markdown table by method."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {line[0]: line[1:] for line in lines[2:]}


def test_by_hand():
    # The machine is ten times slower in the second round, and ssp alone in the third: medians of ratios see neither.
    slow = costs_of("ssp", step_seconds=[0.4, 6.0, 70.0], inference_seconds=[0.05, 0.1, 0.06])
    linear = costs_of("linear", step_seconds=[0.2, 3.0, 0.7])
    table, text = write(small(), {"ssp": slow, "linear": linear})
    ssp = table.loc["ssp"]
    assert (ssp["step"], ssp["inference"], ssp["memory"]) == (2.0, 5.0, 2.0)
    assert (ssp["step_s"], ssp["inference_ms"], ssp["memory_mb"], ssp["rounds"]) == (6.0, 60.0, 400.0, 3)
    assert (ssp["parameters"], ssp["gflops"], ssp["saved_mb"]) == (29_350, 20.0, 2.0)
    assert ssp["share"] == round(29_350 / 180_000, 8)
    assert ssp["published_share"] == round(2.41 / 74.00, 8)
    assert table.loc["linear", ["step", "memory", "inference"]].tolist() == [1, 1, 1]
    assert pd.isna(table.loc["linear", "published_share"])
    assert cells(text)["ssp"] == ["29,350 [1]", "20.0", "2.00", "2.00", "5.00", "2.00"]
    assert "clips of HMDB51-like (8 x 32 x 32)" in text and "on cpu, 1 thread (float32, scan chunked)" in text


def test_a_budget_far_from_the_papers_is_said_beside_the_table():
    table, text = write(small())
    assert table.loc["vpt", "share"] / table.loc["vpt", "published_share"] == pytest.approx(8350 / 181e3 / (1.5 / 74))
    assert "- [1] ssp tunes 16.3 % of the backbone's parameters, 5.0 times the paper's 3.3 %" in text
    assert "- [2] vpt tunes 4.6 % of the backbone's parameters, 2.3 times the paper's 2.0 %" in text
    assert "full tunes" not in text and "linear tunes" not in text
    few = costs_of("ssp").parameters.model_copy(update={"tuned": 2_700})
    assert (
        "ssp tunes 1.5 % of the backbone's parameters, 0.5 times"
        in write(small(), {"ssp": costs_of("ssp", parameters=few)})[1]
    )


def test_a_row_that_is_not_the_papers_has_no_budget():
    data = small().model_dump(mode="json")
    data["methods"]["ssp"]["published"] = False
    config = type(small()).model_validate(data)
    table, text = write(config)
    assert pd.isna(table.loc["ssp", "published_share"]) and "ssp tunes" not in text and "vpt tunes" in text


def test_what_folds_into_the_weights_says_what_is_left():
    rows = {"vpt": costs_of("vpt", merged_flops=10_000_000_000), "full": costs_of("full", merged_flops=30_000_000_000)}
    table, text = write(small(), rows)
    assert (table.loc["vpt", "merged_gflops"], table.loc["vpt", "gflops"]) == (10.0, 15.0)
    assert cells(text)["vpt"][4] == "1.00 [3]"
    assert "- [3] folded into the backbone's weights, which makes 10.0 GFLOPs" in text
    assert cells(text)["full"][4] == "1.00"  # folding changes nothing


def test_without_a_linear_row_a_probe_is_measured_besides():
    config = small(methods=("ssp", "vpt"))
    table, _ = write(config, probe=costs_of("linear", step_seconds=[0.1, 0.15, 0.35]))
    assert table.loc["ssp", "step"] == 4.0
    assert list(table.index) == ["ssp", "vpt"]


def test_a_row_that_could_not_be_measured_stays_with_its_reason():
    lost = {"memory_bytes": None, "step_seconds": [], "inference_seconds": [], "reason": "out of memory: 3 GB"}
    table, text = write(small(), {"full": costs_of("full", **lost)})
    assert table.loc["full", "reason"] == "out of memory: 3 GB" and pd.isna(table.loc["full", "step"])
    assert cells(text)["full"] == ["180,286", "30.0", "– [3]", "– [3]", "– [3]", "3.00"]
    assert "- [3] full was not measured: out of memory: 3 GB" in text
    table, text = write(small(), {"linear": costs_of("linear", **lost)})
    assert table[["step", "memory", "inference"]].isna().all().all() and table.loc["ssp", "step_s"] == 0.6
    assert cells(text)["ssp"][2] == "–"


def test_flops_that_nobody_can_count_are_left_out():
    table, text = write(small(), {"ssp": costs_of("ssp", flops=None)})
    assert pd.isna(table.loc["ssp", "gflops"]) and cells(text)["ssp"][1] == "–"


def test_the_terminal_shows_them_with_their_notes():
    config = small()
    write(config)
    file = io.StringIO()
    print_tables(config, Console(width=80, file=file))
    assert "× \n" not in file.getvalue() and "inference" in file.getvalue()
    assert "29,350 [1]" in file.getvalue() and "5.0 times the paper's" in file.getvalue()


def test_costs_of_another_config_are_refused():
    config = small()
    write(config)
    data = config.model_dump(mode="json")
    data["methods"]["vpt"]["options"] = {"num_prompts": 3}
    changed = type(config).model_validate(data)
    write_all(changed)
    with pytest.raises(RecordError, match=r"costs.json: stale, .*; measure them: python -m ssp costs --config"):
        write_tables(changed)
    Paths.of(config).costs.unlink()
    with pytest.raises(RecordError, match=r"costs.json: no such record of costs; measure them"):
        write_tables(changed)
