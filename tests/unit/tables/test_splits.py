"""Several splits of a data set: the tables show their mean, and do not count what their test sets share twice."""

import numpy as np
import pandas as pd
import pytest

from ssp.config import parse_config
from ssp.tables import stats, write_tables
from ssp.tables.long import read_tables
from tests.unit.made_records import make_config, write_cell


def merged(hits, groups):
    """Merged predictions of videos with these hits, in these groups."""
    ids = [f"v{i}" for i in range(len(hits))]
    return pd.DataFrame({"id": ids, "group": groups, "label": 0, "rank": 1 - np.asarray(hits, int)})


def tally(hits_of_seeds, groups):
    return stats.tally({seed: merged(hits, groups) for seed, hits in enumerate(hits_of_seeds)})


def test_the_mean_over_splits_gives_each_the_same_weight():
    small = tally([[1, 0], [1, 1]], ["a", "b"])  # 50 and 100 %
    large = tally([[1, 0, 0, 0], [1, 1, 0, 0]], ["a", "a", "c", "d"])  # 25 and 50 %
    pooled = stats.pooled([small, large])
    shares = pooled.sums().sum(1) / pooled.sizes.sum()
    np.testing.assert_allclose(shares, [0.375, 0.75])
    assert len(pooled.sizes) == 4 and len(pooled.videos) == 6
    (interval,) = stats.intervals([[pooled]])
    assert interval.estimate == pytest.approx(56.25) and interval.videos == 6


def test_seeds_that_failed_on_a_split_do_not_count():
    groups = ["a", "b"]
    one, other = tally([[1, 0], [1, 1]], groups), stats.tally({1: merged([0, 1], groups)})
    assert [*stats.pooled([one, other]).hits] == [1]


def test_the_same_test_set_twice_is_no_new_evidence():
    """Equal splits must not make the interval narrower, splits of other groups do."""
    rng = np.random.default_rng(0)
    hits, groups = rng.random((3, 200)) < 0.7, [f"g{i // 10}" for i in range(200)]
    others = [f"h{i // 10}" for i in range(200)]
    one = tally(hits, groups)
    more = tally(rng.random((3, 200)) < 0.7, others)
    (alone,), (twice,), (wider,) = (
        stats.intervals([[t]]) for t in (one, stats.pooled([one, one]), stats.pooled([one, more]))
    )
    assert twice.half_width == pytest.approx(alone.half_width)
    assert wider.groups == 40 and wider.half_width < 0.9 * alone.half_width


def test_all_right_on_splits_of_other_sizes_is_still_all_right():
    """Weights must not make 100 % a little less, which would have no interval."""
    sizes = (37, 38, 41)
    pooled = stats.pooled([tally(np.ones((3, n)), [f"g{i % 7}" for i in range(n)]) for n in sizes])
    (interval,) = stats.intervals([[pooled]])
    assert interval.estimate == pytest.approx(100) and 95 < interval.low < 100 and interval.high == pytest.approx(100)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make_config(("hmdb51", "ssv2"), ("ssp", "vpt"), seeds=(0, 1, 2)).model_dump(mode="json")
    plain["datasets"]["hmdb51"]["split"] = [1, 2]
    return parse_config(plain, "made.yaml")


def test_tables_show_the_mean_and_keep_the_splits(config, tmp_path):
    for dataset, right in (("hmdb51-split1", 30), ("hmdb51-split2", 20), ("ssv2", 35)):
        for method in ("ssp", "vpt"):
            for seed in (0, 1, 2):
                hits = np.arange(40) < right + seed - 4 * (method == "vpt")
                failed = (dataset, method, seed) == ("hmdb51-split2", "vpt", 2)
                write_cell(config, dataset, method, seed, hits, reason="out of memory" if failed else None)
    write_tables(config)
    tables = read_tables(config)
    main = tables.main.set_index(["dataset", "method"])
    assert [*main.index] == [("hmdb51", "ssp"), ("hmdb51", "vpt"), ("ssv2", "ssp"), ("ssv2", "vpt")]
    np.testing.assert_allclose(main.loc[("hmdb51", "ssp"), "mean"], 100 * (31 + 21) / 2 / 40)
    assert (main.loc[("hmdb51", "vpt"), "n_seeds"], main.loc[("hmdb51", "vpt"), "status"]) == (2, "partial")
    assert set(tables.seeds["dataset"]) == {"hmdb51-split1", "hmdb51-split2", "ssv2"}
    assert tables.verdict.set_index(["dataset", "method"]).loc[("hmdb51", "ssp"), "verdict"] == "no verdict"
    page = (tmp_path / "results/tried/tables/main.md").read_text()
    assert "[1] vpt on HMDB51-like failed with seed 2: out of memory" in page and "split" not in page.splitlines()[2]


def test_a_row_without_a_whole_seed_has_failed(config, tmp_path):
    for dataset in ("hmdb51-split1", "hmdb51-split2", "ssv2"):
        for method in ("ssp", "vpt"):
            for seed in (0, 1, 2):
                failed = method == "vpt" and dataset == ("hmdb51-split2" if seed else "hmdb51-split1")
                reason = "out of memory" if failed else None
                write_cell(config, dataset, method, seed, np.arange(40) < 30 + seed, reason=reason)
    write_tables(config)
    main = read_tables(config).main.set_index(["dataset", "method"])
    assert (main.loc[("hmdb51", "vpt"), "n_seeds"], main.loc[("hmdb51", "vpt"), "status"]) == (0, "failed")
    page = (tmp_path / "results/tried/tables/main.md").read_text()
    assert "nan" not in page and "vpt on HMDB51-like failed with seed 0, 1, 2: out of memory" in page
    assert "other seeds" not in page
