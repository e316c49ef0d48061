import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from ssp.errors import RecordError
from ssp.tables.stats import accuracy_interval, holm, paired_difference, spread


def merged(hits, groups=None):
    """Merged predictions whose videos are hit (1) or missed (0); each video its own group by default."""
    n = len(hits)
    groups = range(n) if groups is None else groups
    return pd.DataFrame(
        {
            "id": [f"v{i:05}" for i in range(n)],
            "group": [f"g{g}" for g in groups],
            "label": 0,
            "predicted": [0 if h else 1 for h in hits],
            "rank": [0 if h else 1 for h in hits],
            "views": 1,
        }
    )


def of_groups(counts):
    """Merged predictions with so many (hits, videos) in each group."""
    groups = np.repeat(np.arange(len(counts)), counts[:, 1])
    return merged(np.concatenate([np.arange(n) < hits for hits, n in counts]), groups)


def test_spread():
    assert spread([60.0, 64.0, 62.0]).mean == 62
    assert spread([60.0, 64.0, 62.0]).sd == pytest.approx(2)  # n - 1, not n
    assert np.isnan(spread([60.0]).sd) and spread([60.0]).n == 1
    assert np.isnan(spread([]).mean) and spread([]).n == 0


# -- interval of an accuracy -------------------------------------------------------------------------------------------


def test_interval_of_independent_videos_is_the_binomial_one():
    interval = accuracy_interval([merged([1] * 300 + [0] * 200)])
    exact = reference.binomtest(300, 500).proportion_ci(method="wilson")
    assert interval.kind == "bootstrap" and interval.estimate == 60
    assert interval.low == pytest.approx(100 * exact.low, abs=0.5)
    assert interval.high == pytest.approx(100 * exact.high, abs=0.5)


def test_interval_equals_scipy_bootstrap_over_groups():
    """Against scipy's own resampling of groups, at the level that the expansion asks for."""
    rng = np.random.default_rng(3)
    counts = np.stack([rng.binomial(12, 0.6, 9), rng.integers(12, 20, 9)], axis=1)
    t = reference.t.ppf(0.975, 8) * np.sqrt(9 / 8)
    expected = reference.bootstrap(
        (counts[:, 0], counts[:, 1]),
        lambda c, n, axis: c.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=100_000,
        confidence_level=1 - 2 * reference.norm.sf(t),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    interval = accuracy_interval([of_groups(counts)], resamples=100_000)
    assert (interval.low, interval.high) == pytest.approx([100 * x for x in expected], abs=0.4)


def test_groups_widen_the_interval():
    hits = [1] * 50 + [0] * 50
    alone = accuracy_interval([merged(hits)])
    tens = [i // 10 for i in range(100)]  # each group all right or all wrong
    together = accuracy_interval([merged(hits, tens)])
    assert together.half_width > 2.5 * alone.half_width
    assert (together.groups, together.videos) == (10, 100)


def test_coverage_with_eight_subjects():
    """95 % intervals contain the true accuracy about 95 % of the time, where the plain percentile interval does not."""
    rng = np.random.default_rng(7)
    inside = plain = 0
    repeats = 500
    for _ in range(repeats):
        rate = rng.beta(6, 4, 8)  # accuracy of each subject, 0.6 on average
        counts = np.stack([rng.binomial(40, rate), np.full(8, 40)], axis=1)
        interval = accuracy_interval([of_groups(counts)], resamples=1000)
        inside += interval.low <= 60 <= interval.high
        means = (counts[:, 0] / 40)[rng.integers(0, 8, (1000, 8))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        plain += low <= 0.6 <= high
    assert 0.925 <= inside / repeats <= 0.965
    assert plain / repeats < 0.91


def test_seeds_are_averaged_not_pooled():
    """Three seeds that agree are no more certain about the test set than one."""
    one = accuracy_interval([merged([1] * 60 + [0] * 40)])
    three = accuracy_interval([merged([1] * 60 + [0] * 40)] * 3)
    assert (three.estimate, three.low, three.high) == pytest.approx((one.estimate, one.low, one.high))
    mixed = accuracy_interval([merged([1, 1, 0, 0] * 10), merged([1, 0, 0, 0] * 10)])
    assert mixed.estimate == 37.5


@pytest.mark.parametrize(
    ("videos", "hits"),
    [
        (merged([1] * 40), 40),  # 100 %
        (merged([0] * 40), 0),
        (merged([1] * 10 + [0] * 30, ["all"] * 40), 10),  # one group
        (merged([1, 0] * 20, [i // 2 for i in range(40)]), 20),  # all groups alike
    ],
)
def test_binomial_where_resampling_says_nothing(videos, hits):
    interval = accuracy_interval([videos, videos])
    exact = reference.binomtest(hits, 40).proportion_ci(method="wilson")
    assert interval.kind == "binomial"
    assert (interval.low, interval.high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=1e-9)


def test_large_test_sets_are_quick():
    rng = np.random.default_rng(0)
    videos = merged(rng.random(25_000) < 0.5)
    start = time.process_time()
    accuracy_interval([videos])
    assert time.process_time() - start < 1
    unequal = merged(rng.random(25_000) < 0.5, np.sort(rng.integers(0, 700, 25_000)))
    start = time.process_time()
    accuracy_interval([unequal, unequal])
    assert time.process_time() - start < 1


def test_same_input_same_digits():
    videos = merged([1, 0, 1, 1, 0, 1, 0, 0] * 5, [i // 5 for i in range(40)])
    assert accuracy_interval([videos]) == accuracy_interval([videos])
    assert paired_difference({0: videos}, {0: videos.assign(rank=0)}) == paired_difference(
        {0: videos}, {0: videos.assign(rank=0)}
    )


def test_seeds_on_other_videos_are_an_error():
    with pytest.raises(RecordError, match="different videos"):
        accuracy_interval([merged([1, 0]), merged([1, 0, 1])])
    with pytest.raises(RecordError, match="no predictions"):
        accuracy_interval([])


# -- paired difference -------------------------------------------------------------------------------------------------


def test_difference_by_hand():
    """Eight groups, one video better in each: of 2^8 signs only all equal ones are as extreme, p = 2/256."""
    groups = [i // 5 for i in range(40)]
    worse = merged([1, 1, 0, 0, 0] * 8, groups)
    better = merged([1, 1, 1, 0, 0] * 8, groups)
    difference = paired_difference({0: better, 1: better}, {0: worse, 1: worse})
    assert difference.estimate == 20
    assert difference.p == 2 / 256
    assert (difference.groups, difference.videos, difference.seeds) == (8, 40, 2)
    assert np.isnan(difference.low)  # no spread between groups
    assert paired_difference({0: worse}, {0: better}).estimate == -20


def test_only_common_seeds_count():
    a, b, c = merged([1, 1, 0, 0]), merged([1, 0, 0, 0]), merged([0, 0, 0, 0])
    difference = paired_difference({0: a, 1: c, 2: a}, {0: b, 2: c})
    assert (difference.estimate, difference.seeds) == ((25 + 50) / 2, 2)
    with pytest.raises(RecordError, match="no seed in common"):
        paired_difference({0: a}, {1: a})


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    hard = rng.random(400) < 0.5
    base = merged(hard)
    slightly = merged(hard | (rng.random(400) < 0.04))  # never worse, now and then better
    paired = paired_difference({0: slightly}, {0: base})
    alone = accuracy_interval([base])
    assert paired.low > 0 and paired.p < 0.01
    assert (paired.high - paired.low) / 2 < alone.half_width / 2


def test_p_is_exact_for_few_groups_and_close_for_many():
    """Against scipy's sign-flip permutation test on the groups' sums."""
    for groups, tolerance in ((10, 1e-12), (60, 0.02)):
        rng = np.random.default_rng(groups)
        of = np.repeat(np.arange(groups), 6)
        a, b = merged(rng.random(len(of)) < 0.62, of), merged(rng.random(len(of)) < 0.5, of)
        margin = (a["rank"] == 0).astype(int) - (b["rank"] == 0).astype(int)
        sums = margin.groupby(of).sum().to_numpy()
        expected = reference.permutation_test(
            (sums, np.zeros(groups)),
            lambda x, y, axis: x.sum(axis) - y.sum(axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=20_000,
            rng=np.random.default_rng(0),
        ).pvalue
        assert paired_difference({0: a}, {0: b}).p == pytest.approx(expected, abs=tolerance)


def test_p_is_uniform_when_methods_are_alike():
    """Under the null, at most 5 % of p-values are below 0.05, and not far fewer: groups share their difficulty."""
    rng = np.random.default_rng(11)
    p = []
    of = np.repeat(np.arange(30), 8)
    for _ in range(300):
        rate = np.repeat(rng.beta(2, 2, 30), 8)
        p.append(
            paired_difference(
                {0: merged(rng.random(240) < rate, of)}, {0: merged(rng.random(240) < rate, of)}, resamples=999
            ).p
        )
    p = np.array(p)
    assert 0.02 <= (p <= 0.05).mean() <= 0.085
    assert 0.42 <= (p <= 0.5).mean() <= 0.58


def test_groups_not_videos_are_flipped():
    """Two big groups cannot make a small p, however many videos they hold."""
    of = [0] * 100 + [1] * 100
    assert paired_difference({0: merged([1] * 200, of)}, {0: merged([0] * 200, of)}).p == 0.5


def test_p_is_never_zero():
    """Random flips of 40 groups never meet the observed signs again; the observed ones themselves are counted."""
    assert paired_difference({0: merged([1] * 40)}, {0: merged([0] * 40)}, resamples=999).p == 1 / 1000


def test_no_difference_at_all():
    difference = paired_difference({0: merged([1, 0, 1])}, {0: merged([1, 0, 1])})
    assert (difference.estimate, difference.p) == (0, 1)


def test_difference_needs_the_same_videos():
    with pytest.raises(RecordError, match="different videos"):
        paired_difference({0: merged([1, 0])}, {0: merged([1, 0, 1])})


def test_holm():
    # Sorted .01 .02 .03 .04, times 4 3 2 1, never falling: .04 .06 .06 .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    adjusted = holm([0.01, float("nan"), 0.5])
    assert adjusted[0] == 0.02 and np.isnan(adjusted[1])
