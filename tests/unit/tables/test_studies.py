"""Several studies of a row: what is drawn anew are they, each the mean of its seeds; and so choosing is counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ssp.tables import write_tables
from ssp.tables.layout import lay_out
from ssp.tables.long import build_tables
from ssp.tables.stats import ALPHA, Tally, differences, intervals, margin
from ssp.tables.verdict import one_more_run
from tests.unit.made_records import hits_of, make_config, write_cell
from tests.unit.tables.simulated import Setting

SIZES = np.array([5, 5, 10])


def tally(hits, studies=1):
    return Tally(hits, SIZES, pd.DataFrame(index=range(20)), studies)


def six(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.binomial(SIZES, 0.6) for k in range(6)}


def test_seeds_of_a_study_count_once():
    hits = six(0)
    means = {k: (hits[k] + hits[k + 3]) / 2 for k in range(3)}
    assert intervals([[tally(hits, 3)]]) == intervals([[tally(means)]])
    other = six(1)
    of_means = {k: (other[k] + other[k + 3]) / 2 for k in range(3)}
    (found,) = differences([([tally(hits, 3)], [tally(other, 3)])])
    assert found == differences([([tally(means)], [tally(of_means)])])[0] and found.seeds == 3


def test_as_many_studies_as_seeds_change_no_number():
    one, other = six(0), six(1)
    assert intervals([[tally(one, 6)]]) == intervals([[tally(one)]])
    assert differences([([tally(one, 6)], [tally(other, 6)])]) == differences([([tally(one)], [tally(other)])])


def test_a_seed_that_one_of_two_rows_lacks_is_left_out_of_its_study():
    one, other = six(0), six(1)
    del other[4]
    sums, _ = margin(tally(one, 3), tally(other, 3))
    assert len(sums) == 3 and (sums[1] == one[1] - other[1]).all()
    assert (sums[0] == (one[0] - other[0] + one[3] - other[3]) / 2).all()


def testone_more_run_is_one_seed_of_one_more_study():
    """Studies of two seeds each: a run varies by what studies do, and half of what seeds do within one."""
    hits = {
        0: [5, 5, 5],
        2: [5, 5, 7],
        1: [4, 4, 4],
        3: [4, 4, 6],
        4: [3, 3, 7],
        6: [3, 3, 7],
        5: [4, 4, 9],
        7: [4, 4, 9],
    }
    found = one_more_run(tally({k: np.array(v) for k, v in hits.items()}, 2), 50.0)
    by_seed = {k: 5 * sum(v) for k, v in hits.items()}
    even, odd = ([by_seed[k] for k in by_seed if k % 2 == which] for which in (0, 1))
    means = np.array([np.mean(even), np.mean(odd)])
    assert found.estimate == pytest.approx(means.mean() - 50)
    assert found.seeds == pytest.approx(means.var(ddof=1) * 1.5) and found.seeds_df == 1
    assert found.groups == pytest.approx(0.75 * (3 * np.var(even, ddof=1) + 3 * np.var(odd, ddof=1)) / 6)
    assert found.groups_df == 6


@pytest.mark.slow
def test_a_choosing_variance_is_counted_with_studies_and_missed_without():
    """Two equal methods, six seeds each; choosing moves a study twice as much as its seed moves a run."""
    setting = Setting("demo HMDB51", (55, 55), 1.0, choosing=2.0)
    rng = np.random.default_rng(0)

    def false_alarms(studies, counted):
        drawn = ([replace(cell, studies=counted) for cell in setting.draw(rng, 6, studies)] for _ in range(600))
        found = differences([([one], [other]) for one, other in drawn])
        return np.mean([difference.p < ALPHA for difference in found])

    assert false_alarms(studies=3, counted=3) <= 0.07
    assert false_alarms(studies=6, counted=6) <= 0.07
    assert false_alarms(studies=1, counted=1) >= 0.3  # one choice for all seeds, read as a claim about the method
    assert false_alarms(studies=3, counted=1) >= 0.09  # three choices, counted as if they were six


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Six seeds of three studies: the two seeds of a study are 10 points apart, their means 2 points."""
    monkeypatch.chdir(tmp_path)
    made = make_config(
        datasets=("hmdb51",), methods=("ssp", "linear"), seeds=range(6), sweep={"trials": 6, "repeats": 3}
    )
    for row, share in (("ssp", 0.6), ("linear", 0.4)):
        for seed in made.seeds:
            shift = 0.02 * (seed % 3) + 0.1 * (seed // 3)
            write_cell(made, "hmdb51", row, seed, hits_of(share + shift, seed=0))
    return made


def test_tables_count_studies_and_say_so(config):
    tables = build_tables(config)
    row = tables.main.set_index("method").loc["ssp"]
    assert (row["mean"], row["sd"], row["n_seeds"]) == (67.0, 2.0, 6)
    assert tables.differences["n_seeds"].tolist() == [3]
    assert tables.uncertainty["interval"].tolist() == ["studies and groups"] * 2
    layouts = lay_out(config, tables)
    assert "mean ± standard deviation over studies. 6 seeds of 3 studies; hyper" in layouts["main"].caption
    for name in ("uncertainty", "differences"):
        assert "Studies (each a choice of hyper-parameters with the mean of the seeds" in layouts[name].caption
        assert "chosen hyper-parameters are fixed" not in layouts[name].caption
    assert "studies" in layouts["differences"].table.columns and "seeds" not in layouts["differences"].table.columns
    write_tables(config)


def test_two_studies_of_many_seeds_are_not_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_config(
        datasets=("hmdb51",), methods=("ssp", "linear"), seeds=range(6), sweep={"trials": 6, "repeats": 2}
    )
    for row in made.methods:
        for seed in made.seeds:
            write_cell(made, "hmdb51", row, seed, hits_of(0.5 + 0.02 * seed, seed=seed))
    tables = build_tables(made)
    assert tables.differences["p"].isna().all()
    assert (
        "Not enough studies for a p-value on HMDB51-like: one data set needs 3."
        in lay_out(made, tables)["differences"].caption
    )
