"""Plans come true: what is said to be found in 80 % of cases is, by the test of the tables itself."""

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from ssp.cli import app
from ssp.tables.power import Design, describe, design, detectable, plan, seeds_needed, spread_factor
from ssp.tables.stats import ALPHA, differences
from tests.unit.made_records import make_config, write_cell
from tests.unit.tables.simulated import Setting


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_with_seeds_alone_it_is_the_t_test(seeds):
    """sd 1 point over seeds, nothing else: a paired t-test, whose power is that of the noncentral t."""
    found = detectable([Design(seed=1e-4, noise=0, groups=0, n_groups=1000)], seeds)
    df, shift = seeds - 1, found * np.sqrt(seeds)
    assert stats.nct.sf(stats.t.isf(0.025, df), df, shift) == pytest.approx(0.8, abs=0.005)
    assert found == pytest.approx({3: 3.3, 5: 1.7, 10: 1.0}[seeds], abs=0.06)


def test_with_groups_alone_it_is_the_t_test_over_groups():
    found = detectable([Design(seed=0, noise=0, groups=1e-4, n_groups=8)], 3)
    assert stats.nct.sf(stats.t.isf(0.025, 7), 7, found) == pytest.approx(0.8, abs=0.005)


@pytest.mark.slow
def test_seeds_needed_is_where_detectable_falls_below():
    designs = [Design(seed=2e-4, noise=1e-4, groups=0.5e-4, n_groups=400)]
    seeds = seeds_needed(designs, 3.0)
    assert detectable(designs, seeds) <= 3.0 < detectable(designs, seeds - 1)
    assert seeds_needed(designs, 3.0, alpha=ALPHA / 10) > seeds
    assert seeds_needed(designs, 1.0) is None  # groups alone leave 0.7 points of standard error
    assert seeds_needed([designs[0]] * 4, 3.0) < seeds  # an average over four data sets


def test_what_no_design_can_find():
    eight, two = Design(1e-4, 0, 1e-4, 8), Design(1e-4, 0, 1e-4, 400)
    assert np.isnan(detectable([eight], 5, alpha=2 / 256)) and not np.isnan(detectable([eight], 5, alpha=2 / 255))
    assert np.isnan(detectable([two], 2)) and not np.isnan(detectable([two] * 2, 2))
    assert np.isnan(detectable([Design(float("nan"), 0, 0, 400)], 3))


def test_spread_factor():
    """One in five spreads over three seeds is less than half of the true one."""
    rng = np.random.default_rng(0)
    sds = rng.standard_normal((20_000, 3)).std(axis=1, ddof=1)
    assert np.mean(sds * spread_factor(3) >= 1) == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["demo HMDB51", "demo Breakfast"])
def test_a_plan_comes_true(data):
    """Variances from many seeds, a difference as planned for five, and the tables' test on 500 experiments."""
    rng = np.random.default_rng(1)
    known = [Setting(data, (62, 58), 0.8).draw(rng, 40) for _ in range(15)]
    each = [design(([first], [second]))[0] for first, second in known]
    mean = Design(
        *(np.mean([getattr(d, name) for d in each]) for name in ("seed", "noise", "groups")), each[0].n_groups
    )
    planned = detectable([mean], 5)
    setting = Setting(data, (60 + planned / 2, 60 - planned / 2), 0.8)
    found = differences([([first], [second]) for first, second in (setting.draw(rng, 5) for _ in range(500))])
    assert np.mean([one.p < ALPHA and one.estimate > 0 for one in found]) == pytest.approx(0.8, abs=0.06)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that gives a config of three seeds with records."""
    monkeypatch.chdir(tmp_path)

    def make(datasets, methods):
        config = make_config(datasets=datasets, methods=methods, seeds=(0, 1, 2))
        for i, (dataset, row, seed) in enumerate(config.runs()):
            write_cell(config, dataset, row, seed, np.random.default_rng(i).random(500) < 0.6)
        return config

    return make


@pytest.mark.slow
def test_plan_of_a_config(made):
    config = made(("hmdb51", "ssv2"), ("ssp", "vpt", "linear"))
    found = plan(config, 5.0)
    assert found["data set"].tolist() == ["hmdb51"] * 2 + ["ssv2"] * 2 + ["average"] * 2
    assert found["comparison"].tolist() == ["ssp − vpt", "ssp − linear"] * 3
    numbers = found.drop(columns=["data set", "comparison"])
    assert (numbers["found now (Holm)"] > numbers["found now"]).all()
    assert (numbers["found now"] > found["sd over seeds"]).all()
    by_data = found.pivot(index="comparison", columns="data set", values="found now")
    assert (by_data["average"] < by_data[["hmdb51", "ssv2"]].mean(axis=1)).all()
    assert (found["seeds for 5"] > 2).all() and (found["seeds for 5"] <= found["seeds for 5 (Holm)"]).all()
    assert "2.1 times" in describe(config)
    assert list(plan(config).columns) == [c for c in found.columns if "seeds for" not in c]


def test_the_command_prints_it(made, tmp_path):
    import yaml

    config = made(("hmdb51",), ("ssp", "vpt"))
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    done = CliRunner().invoke(app, ["power", "--config", str(path), "--difference", "2"])
    assert done.exit_code == 0, done.output
    for words in ("| data set ", "| hmdb51 ", "seeds for 2", "80% power"):
        assert words in done.output, words
    wrong = CliRunner().invoke(app, ["power", "--config", str(path), "--difference", "0"])
    assert "positive number" in str(wrong.exception)
