import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from ssp.errors import RecordError
from ssp.tables.stats import (
    differences,
    holm,
    intervals,
    smallest_adjusted,
    spread,
    tally,
    unpaired,
)
from tests.unit.tables.simulated import Setting
from tests.unit.tables.single import accuracy_interval, paired_difference


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


def logit_interval(share, error, df):
    """On the logit scale and back, for one source of error."""
    logit, half = np.log(share / (1 - share)), reference.t.isf(0.025, df) * error / (share * (1 - share))
    return [100 / (1 + np.exp(-end)) for end in (logit - half, logit + half)]


def test_videos_alone_give_the_binomial_error():
    """Seeds that agree on 500 independent videos: all that is left is the draw of videos."""
    found = accuracy_interval([merged([1] * 300 + [0] * 200)] * 3)
    assert (found.kind, found.estimate) == ("seeds and groups", 60)
    assert [found.low, found.high] == pytest.approx(logit_interval(0.6, np.sqrt(0.24 / 499), 499), abs=1e-6)
    exact = reference.binomtest(300, 500).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=0.1)


def test_groups_alone_give_a_t_interval_over_groups():
    rng = np.random.default_rng(3)
    hits = rng.binomial(20, 0.7, 9)
    found = accuracy_interval([of_groups(np.stack([hits, np.full(9, 20)], axis=1))] * 2)
    error = (hits / 20).std(ddof=1) / 3
    assert [found.low, found.high] == pytest.approx(logit_interval(hits.mean() / 20, error, 8), abs=1e-6)


def test_seeds_alone_give_a_t_interval_over_seeds():
    """Groups alike within each seed: what is left is the spread over seeds, here 50, 60 and 70 of 100."""
    of = [i // 10 for i in range(100)]
    seeds = [merged(([1] * k + [0] * (10 - k)) * 10, of) for k in (5, 6, 7)]
    found = accuracy_interval(seeds)
    videos = 0.24 / 100  # single videos stand in for groups, so an independent t with many degrees of freedom is added
    alone, both = (logit_interval(0.6, np.sqrt(0.01 / 3 + extra), 2) for extra in (0, videos))
    assert found.kind == "seeds and videos"
    assert both[0] < found.low < alone[0] and alone[1] < found.high < both[1]


def test_groups_widen_the_interval():
    hits = [1] * 50 + [0] * 50
    alone = accuracy_interval([merged(hits)] * 2)
    tens = [i // 10 for i in range(100)]  # each group all right or all wrong
    together = accuracy_interval([merged(hits, tens)] * 2)
    assert together.half_width > 2.5 * alone.half_width
    assert (together.groups, together.videos) == (10, 100)


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    shares = (0.55, 0.6, 0.65)
    apart = accuracy_interval([merged(rng.random(2000) < share) for share in shares])
    alike = accuracy_interval([merged(rng.random(2000) < 0.6) for _ in shares])
    assert apart.half_width > 2.5 * alike.half_width
    assert apart.half_width == pytest.approx(5 / np.sqrt(3) * reference.t.isf(0.025, 2), rel=0.2)


def test_seeds_that_agree_are_no_more_videos():
    """Three seeds that agree are no more certain about the test set than two."""
    two, three = (accuracy_interval([merged([1] * 60 + [0] * 40)] * n) for n in (2, 3))
    assert (three.estimate, three.low, three.high) == pytest.approx((two.estimate, two.low, two.high))
    mixed = accuracy_interval([merged([1, 1, 0, 0] * 10), merged([1, 0, 0, 0] * 10)])
    assert mixed.estimate == 37.5


def test_one_seed_has_no_interval():
    found = accuracy_interval([merged([1, 0, 1, 1] * 10)])
    assert found.estimate == 75 and found.kind == ""
    assert np.isnan(found.low) and np.isnan(found.high) and np.isnan(found.half_width)


@pytest.mark.parametrize(
    ("videos", "hits"),
    [
        (merged([1] * 40), 40),  # 100 %
        (merged([0] * 40), 0),
        (merged([1] * 10 + [0] * 30, ["all"] * 40), 10),  # one group
        (merged([1, 0] * 20, [i // 2 for i in range(40)]), 20),  # all groups alike
    ],
)
def test_single_videos_where_groups_say_nothing(videos, hits):
    found = accuracy_interval([videos, videos])
    exact = reference.binomtest(hits, 40).proportion_ci(method="wilson")
    assert found.kind == "seeds and videos"
    # At 0 and 100 % it is Wilson's interval itself, elsewhere close to it.
    near = 1e-9 if hits in (0, 40) else 1.5
    assert (found.low, found.high) == pytest.approx((100 * exact.low, 100 * exact.high), abs=near)


def test_interval_of_an_average_over_data_sets():
    """Independent data sets: variances add up, so four alike make an interval half as long (of the logit, at 60 %)."""
    one = tally(dict(enumerate([merged([1] * 3000 + [0] * 2000)] * 3)))
    single, four = intervals([[one], [one] * 4])
    assert four.estimate == single.estimate == 60
    assert four.half_width == pytest.approx(single.half_width / 2, rel=1e-3)
    assert (four.groups, four.videos) == (20_000, 20_000)
    (mixed,) = intervals([[one, tally(dict(enumerate([merged([1] * 10)] * 3)))]])
    assert mixed.estimate == 80


def test_large_test_sets_are_quick():
    rng = np.random.default_rng(0)
    seeds = [merged(rng.random(25_000) < 0.5) for _ in range(3)]
    start = time.process_time()
    accuracy_interval(seeds)
    paired_difference(dict(enumerate(seeds)), dict(enumerate(seeds[::-1])))
    assert time.process_time() - start < 2


@pytest.mark.slow
def test_a_whole_table_is_quick():
    """All pairs of 20 rows on four data sets, one of 25,000 videos, and in the average."""
    rng = np.random.default_rng(0)
    tables = []
    for n in (25_000, 3_783, 1_530, 355):
        first = merged(rng.random(n) < 0.5)
        counted = [tally(dict.fromkeys(range(3), first))]
        hits = [{s: (rng.random(n) < 0.5).astype(int) for s in range(3)} for _ in range(20)]
        tables.append([replace(counted[0], hits=own) for own in hits])
    start = time.process_time()
    pairs = [(i, j) for i in range(20) for j in range(i)]
    found = differences(
        [([table[i]], [table[j]]) for table in tables for i, j in pairs]
        + [([table[i] for table in tables], [table[j] for table in tables]) for i, j in pairs]
    )
    assert len(found) == 5 * 190
    assert time.process_time() - start < 15


def test_same_input_same_digits():
    videos = [merged([1, 0, 1, 1, 0, 1, 0, k] * 5, [i // 5 for i in range(40)]) for k in (0, 1, 1)]
    assert accuracy_interval(videos) == accuracy_interval(videos)
    better = {s: v.assign(rank=0) for s, v in enumerate(videos)}
    assert paired_difference(dict(enumerate(videos)), better) == paired_difference(dict(enumerate(videos)), better)


def test_seeds_on_other_videos_are_an_error():
    with pytest.raises(RecordError, match="different videos"):
        accuracy_interval([merged([1, 0]), merged([1, 0, 1])])
    with pytest.raises(RecordError, match="no predictions"):
        accuracy_interval([])


# -- paired difference -------------------------------------------------------------------------------------------------


def test_difference_by_hand():
    """Eight groups of 5 videos, three seeds that agree; 1 to 8 videos better in the groups: t over groups, 7 df."""
    sizes = np.full(8, 5)
    worse, better = (
        of_groups(np.stack([np.array(hits), sizes], axis=1)) for hits in ([1] * 8, [2, 2, 2, 2, 3, 3, 3, 4])
    )
    found = paired_difference(dict.fromkeys(range(3), better), dict.fromkeys(range(3), worse))
    gains = 100 * np.array([1, 1, 1, 1, 2, 2, 2, 3]) / 5
    assert found.estimate == gains.mean()
    exact = reference.ttest_1samp(gains, 0)
    assert [found.low, found.high] == pytest.approx([*exact.confidence_interval(0.95)])
    assert exact.pvalue < 2 / 256 and found.p == 2 / 256  # as far as 8 groups can go
    assert (found.groups, found.videos, found.seeds, found.smallest) == (8, 40, 3, 2 / 256)
    assert paired_difference({0: worse}, {0: better}).estimate == -found.estimate


def test_only_common_seeds_count():
    a, b, c = merged([1, 1, 0, 0]), merged([1, 0, 0, 0]), merged([0, 0, 0, 0])
    difference = paired_difference({0: a, 1: c, 2: a}, {0: b, 2: c})
    assert (difference.estimate, difference.seeds) == ((25 + 50) / 2, 2)
    with pytest.raises(RecordError, match="no seed in common"):
        paired_difference({0: a}, {1: a})


def some_seeds(rng, n, share, s=3):
    return {seed: merged(rng.random(n) < share) for seed in range(s)}


@pytest.mark.parametrize(("seeds", "known"), [(1, False), (2, False), (3, True)])
def test_a_p_value_needs_three_seeds(seeds, known):
    """Two models cannot tell how much a third would differ; their interval says so by its length."""
    rng = np.random.default_rng(1)
    found = paired_difference(some_seeds(rng, 400, 0.9, seeds), some_seeds(rng, 400, 0.4, seeds))
    assert np.isnan(found.p) != known and np.isnan(found.smallest) != known
    assert np.isnan(found.low) == (seeds == 1)


def test_two_seeds_can_carry_an_average():
    rng = np.random.default_rng(1)
    first, second = ([tally(some_seeds(rng, 400, share, 2)) for _ in range(4)] for share in (0.7, 0.4))
    alone, average = differences([(first[:1], second[:1]), (first, second)])
    assert np.isnan(alone.p) and average.p < 0.01
    assert average.high - average.low < (alone.high - alone.low) / 2
    assert (average.seeds, average.groups) == (2, 1600)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(5)
    hard = rng.random(400) < 0.5
    base = merged(hard)
    slightly = {s: merged(hard | (rng.random(400) < 0.08)) for s in range(5)}  # never worse, now and then better
    paired = paired_difference(slightly, dict.fromkeys(range(5), base))
    alone = accuracy_interval([base] * 5)
    assert paired.low > 0 and paired.p < 0.05
    assert (paired.high - paired.low) / 2 < alone.half_width / 2


def test_a_spread_over_seeds_counts():
    """Each seed's gain is certain on its test set, yet gains from -6 to 16 points say little about the next seed."""
    rng = np.random.default_rng(2)
    base = rng.random(5000) < 0.5
    gains = (-0.06, 0.05, 0.16)
    first = {s: merged(np.where(rng.random(5000) < 2 * abs(gain), gain > 0, base)) for s, gain in enumerate(gains)}
    found = paired_difference(first, dict.fromkeys(range(3), merged(base)))
    assert found.p > 0.3 and found.low < -15 and found.high > 25
    each = [
        paired_difference(dict.fromkeys(range(3), first[s]), dict.fromkeys(range(3), merged(base))) for s in range(3)
    ]
    assert all(one.p < 1e-3 for one in each)


def test_groups_not_videos_count():
    """Two big groups cannot make a small p, however many videos they hold."""
    of = [0] * 100 + [1] * 100
    all_right, all_wrong = (dict.fromkeys(range(5), merged([hit] * 200, of)) for hit in (1, 0))
    assert paired_difference(all_right, all_wrong).p == 0.5


def test_one_group_makes_no_claim():
    all_right, all_wrong = (dict.fromkeys(range(5), merged([hit] * 200, [0] * 200)) for hit in (1, 0))
    found = paired_difference(all_right, all_wrong)
    assert (found.estimate, found.p) == (100, 1) and np.isnan(found.low)


def test_no_difference_at_all():
    same = dict.fromkeys(range(3), merged([1, 0, 1]))
    found = paired_difference(same, same)
    assert (found.estimate, found.p) == (0, 1) and np.isnan(found.low)


def test_difference_needs_the_same_videos():
    with pytest.raises(RecordError, match="different videos"):
        paired_difference({0: merged([1, 0])}, {0: merged([1, 0, 1])})


def test_holm():
    # Sorted .01 .02 .03 .04, times 4 3 2 1, never falling: .04 .06 .06 .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    adjusted = holm([0.01, float("nan"), 0.5])
    assert adjusted[0] == 0.02 and np.isnan(adjusted[1])


def test_smallest_adjusted():
    """Nine comparisons on 8 subjects: all are at least 2 / 256, so even the best is 9 times that after Holm."""
    low = 2 / 256
    assert smallest_adjusted([low] * 9) == pytest.approx([9 * low] * 9)
    # Beside 18 on many groups: when these are all smaller, as many as before are left.
    assert smallest_adjusted([low] * 9 + [2.0**-400] * 18)[0] == pytest.approx(9 * low)
    assert holm([low] * 9 + [1e-9] * 18)[0] == pytest.approx(9 * low)
    assert smallest_adjusted([0.25, float("nan"), 0.5]) == pytest.approx([0.5, float("nan"), 0.5], nan_ok=True)


# -- two rows that share no seeds --------------------------------------------------------------------------------------


def test_an_unpaired_difference_adds_the_variances_of_two_samples():
    """Videos alone vary: seeds agree, and each of 50 groups is its own video, so that the error is the binomial one."""
    rng = np.random.default_rng(0)
    hits = [rng.random(400) < share for share in (0.7, 0.6)]
    one, two = (tally({seed: merged(row) for seed in (0, 1, 2)}) for row in hits)
    (found,) = unpaired([(one, two)])
    shares = [row.mean() for row in hits]
    error = np.sqrt(sum(share * (1 - share) / 399 for share in shares))
    assert found.estimate == pytest.approx(100 * (shares[0] - shares[1]))
    assert found.high - found.estimate == pytest.approx(196 * error, rel=0.02)
    assert (found.seeds, found.groups, found.videos) == (3, 400, 400)
    (back,) = unpaired([(two, one)])
    assert (back.estimate, back.p) == (-found.estimate, found.p)


def test_an_unpaired_difference_needs_as_many_seeds_as_a_paired_one():
    rng = np.random.default_rng(1)
    cells = [tally({seed: merged(rng.random(50) < 0.5) for seed in range(n)}) for n in (1, 2, 3)]
    p_values = [found.p for found in unpaired([(cells[0], cells[0]), (cells[0], cells[2]), (cells[1], cells[1])])]
    assert np.isnan(p_values[0]) and p_values[2] == 1
    assert np.isnan(unpaired([(cells[0], cells[2])])[0].low)  # nothing is known of one seed's spread
    assert unpaired([]) == []


@pytest.mark.slow
def test_an_unpaired_difference_is_no_false_alarm():
    """The same method, on two test sets, with other seeds: 5 % of p-values below 0.05, up to chance."""
    rng = np.random.default_rng(2)
    setting = Setting("demo HMDB51", (55.0,), 1.5)
    pairs = [(setting.draw(rng, 3)[0], setting.draw(rng, 3)[0]) for _ in range(400)]
    alarms = np.mean([found.p < 0.05 for found in unpaired(pairs)])
    assert alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
