"""Published numbers: what our runs say about them, and when they say nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssp.config import Config
from ssp.paths import Paths
from ssp.records.published import published_accuracy
from ssp.tables import stats as ours
from ssp.tables import verdict, write_tables
from tests.unit.made_records import make_config, write_cell

VIDEOS = {"hmdb51": 1530, "ssv2": 24_777}


def real(datasets=("hmdb51",), methods=("ssp", "full", "linear"), seeds=(0, 1, 2), **changes):
    """A config of the published backbone on real videos."""
    plain = make_config(datasets=datasets, methods=methods, seeds=seeds).model_dump(mode="json", exclude_none=True)
    plain["backbone"]["architecture"] = "videomamba_middle"
    for dataset in plain["datasets"].values():
        del dataset["generate"]
        dataset |= changes
    return Config.model_validate(plain)


def tallies(config, right):
    """Counted hits by cell; `right` are percentages by (data set, method), one for each seed."""
    found = {}
    for (dataset, method), shares in right.items():
        sizes = np.ones(VIDEOS.get(dataset, 3783), dtype=int)
        hits = {
            s: (np.arange(len(sizes)) < round(share / 100 * len(sizes))).astype(int) for s, share in enumerate(shares)
        }
        found[dataset, method] = ours.Tally(hits, sizes, pd.DataFrame(index=range(len(sizes))))
    return found


def rows(config, right):
    from ssp.tables.claims import AVERAGE, Column

    methods = [method for method in config.methods if all((d, method) in right for d in config.datasets)]
    columns = [Column(d, [d], methods) for d in config.datasets]
    columns += [Column(AVERAGE, list(config.datasets), methods)] if len(config.datasets) > 1 else []
    found = verdict.verdict_rows(config, columns, tallies(config, right))
    return {(row["dataset"], row["method"]): row for row in found}


@pytest.mark.parametrize(
    ("by_seed", "said"),
    [
        ((76.5, 76.7, 76.9), "reproduced"),
        ((70.0, 70.4, 70.2), "not reproduced"),
        ((84.0, 84.4, 84.2), "not reproduced"),  # better is not reproduced either
        ((74.0, 76.7, 79.0), "cannot say"),  # the spread of one run is as large as the margin
        ((74.6, 74.8, 74.7), "cannot say"),  # just within the margin, and one run's error leads out of it
    ],
)
def test_three_verdicts(by_seed, said):
    row = rows(real(), {("hmdb51", "ssp"): by_seed})["hmdb51", "ssp"]
    shares = [100 * round(share / 100 * 1530) / 1530 for share in by_seed]
    assert row["difference"] == pytest.approx(np.mean(shares) - 76.66) and row["mean"] == pytest.approx(np.mean(shares))
    half = stats.t.isf(0.05, 2) * np.std(shares, ddof=1) * np.sqrt(1 + 1 / 3)  # of one more run
    assert (row["low"], row["high"]) == pytest.approx((row["difference"] - half, row["difference"] + half), rel=1e-4)
    assert (row["verdict"], row.get("reason")) == (said, None)


def test_two_seeds_cannot_say():
    row = rows(real(seeds=(0, 1)), {("hmdb51", "ssp"): (76.6, 76.7)})["hmdb51", "ssp"]
    assert (row["verdict"], row["reason"]) == ("cannot say", "not enough seeds") and "low" not in row


def test_the_average_counts_one_run_on_each_data_set():
    by_seed = {("hmdb51", "ssp"): (76.0, 76.7, 77.3), ("ucf101", "ssp"): (97.0, 97.1, 97.2)}
    row = rows(real(("hmdb51", "ucf101")), by_seed)["average", "ssp"]
    assert row["published"] == pytest.approx((76.66 + 97.03) / 2) and row["verdict"] == "reproduced"
    alone = rows(real(), {("hmdb51", "ssp"): by_seed["hmdb51", "ssp"]})["hmdb51", "ssp"]
    assert row["high"] - row["low"] < (alone["high"] - alone["low"]) / 1.9


@pytest.mark.parametrize(
    ("config", "dataset", "method", "reason"),
    [
        (make_config(seeds=(0, 1, 2)), "hmdb51", "ssp", "generated videos, another backbone"),
        (real(("ssv2",)), "ssv2", "full", "published from an ImageNet start with 30 epochs"),
        (real(split=2), "hmdb51", "ssp", "split 2, published: split 1"),
        (real(("breakfast",)), "breakfast", "ssp", "3,783 test videos, published: 192"),
    ],
)
def test_no_verdict_where_another_thing_was_measured(config, dataset, method, reason):
    share = published_accuracy()[method, dataset]
    right = {(d, m): (share,) * 3 for d in config.datasets for m in config.methods}
    row = rows(config, right)[dataset, method]
    assert (row["verdict"], row["reason"]) == ("no verdict", reason) and "low" not in row


def test_rows_without_a_published_number_have_no_line():
    assert ("hmdb51", "linear") not in rows(real(), {("hmdb51", m): (70.0,) * 3 for m in ("ssp", "linear")})


def test_a_failed_cell_has_no_verdict():
    row = rows(real(), {("hmdb51", "full"): (76.0, 76.1, 76.2)})["hmdb51", "ssp"]
    assert (row["verdict"], row["reason"]) == ("no verdict", "failed seeds")


@pytest.mark.parametrize("seeds", [3, 5])
def test_verdicts_err_as_rarely_as_they_say(seeds):
    """At the very margin both are wrong; each is said in at most 5 % of cases. At no difference: reproduced, mostly."""
    rng = np.random.default_rng(seeds)

    def said(difference, sd, repeats=2000):
        words = []
        shares = rng.normal(70 + difference, sd, (repeats, seeds))
        published = rng.normal(70, sd, repeats)
        halves = stats.t.isf(0.05, seeds - 1) * shares.std(axis=1, ddof=1) * np.sqrt(1 + 1 / seeds)
        centre = shares.mean(axis=1) - published
        for low, high in zip(centre - halves, centre + halves, strict=True):
            words.append(verdict.judge(low, high))
        return {word: words.count(word) / repeats for word in verdict.SIGNS}

    for sd in (0.2, 0.5, 1.5):
        at_margin = said(verdict.MARGIN, sd)
        assert at_margin["reproduced"] <= 0.065 and at_margin["not reproduced"] <= 0.065
    assert said(0, 0.3)["reproduced"] > 0.9
    assert said(6, 0.3)["not reproduced"] > 0.9


def test_tables_show_signs_and_reasons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdict, "TEST_VIDEOS", {"hmdb51": 300})
    config = real(methods=("ssp", "full", "vpt"))
    for method, shares in {
        "ssp": (0.77, 0.767, 0.763),
        "full": (0.60, 0.603, 0.607),
        "vpt": (0.70, 0.73, 0.77),
    }.items():
        for seed, share in enumerate(shares):
            write_cell(config, "hmdb51", method, seed, np.arange(300) < round(300 * share))
    write_tables(config)
    folder = Paths.of(config).tables
    written = pd.read_csv(folder / "verdict.csv").set_index("method")
    assert written["verdict"].to_dict() == {"ssp": "reproduced", "full": "not reproduced", "vpt": "cannot say"}
    main = (folder / "main.md").read_text()
    for words in (
        " 76.66 = |",
        " 76.30 ≠ |",
        " 73.59 ? |",
        "= reproduced, ≠ not reproduced, ? cannot say, within 2 points",
    ):
        assert words in main, words
    assert r"76.30 $\neq$" in (folder / "main.tex").read_text()
    assert "context, not a comparison" not in main
    lines = [[c.strip() for c in line.split("|")] for line in (folder / "verdict.md").read_text().splitlines()]
    assert [line[-2] for line in lines if len(line) > 3][2:] == ["reproduced", "not reproduced", "cannot say"]
