"""The arithmetic behind every interval and p-value, against closed forms, scipy, and effects of known size."""

import time

import numpy as np
import pytest
from scipy import integrate, special, stats

from ssp.tables.crossed import Parts, average, decompose, reach, stack, tail


def parts(seeds, seeds_df, groups, groups_df, estimate=0.0):
    return Parts(*(np.array(float(x)) for x in (estimate, seeds, seeds_df, groups, groups_df, 0)))


def drawn(rng, repeats, s, g, seed_sd, group_sd, noise_sd, n=1):
    """(repeats, S, G) sums of groups of n videos with mean 0 and three kinds of normal effects."""
    shapes = (repeats, s, 1), (repeats, 1, g), (repeats, s, g)
    effects = (sd * rng.standard_normal(shape) for sd, shape in zip((seed_sd, group_sd, noise_sd), shapes, strict=True))
    return sum(effects) * n


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        ((4, 2, 0, 7), 2 * stats.t.isf(0.025, 2)),  # one part alone is Student's t
        ((0, 2, 9, 7), 3 * stats.t.isf(0.025, 7)),
        ((1, 1, 4, 1), 3 * stats.t.isf(0.025, 1)),  # with 1 degree of freedom scales add up, as Cauchy's do
        ((9, 1e7, 16, 1e7), 5 * stats.norm.isf(0.025)),  # with endless ones variances do
    ],
)
def test_closed_forms(given, exact):
    assert reach(parts(*given), 0.95) == pytest.approx(exact, rel=1e-5)
    assert tail(np.array(exact), parts(*given)) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("df", [(1, 7), (2, 2), (2, 7), (4, 700), (9, 1)])
@pytest.mark.parametrize("ratio", [1, 0.3, 0.02])
def test_tail_is_the_convolution_of_two_t(df, ratio):
    # What is integrated is cut where it bends, or quad would step over it.
    for level in (0.5, 0.95, 0.999):
        x = float(reach(parts(1, df[0], ratio**2, df[1]), level))

        def beyond(u, x=x):
            density = (1 + u * u / df[1]) ** (-(df[1] + 1) / 2) / special.beta(0.5, df[1] / 2) / np.sqrt(df[1])
            return density * special.stdtr(df[0], ratio * u - x)

        bends = sorted(
            {
                -100.0,
                -9.0,
                -3.0,
                3.0,
                9.0,
                100.0,
                x / 2 / ratio,
                (x - 3) / ratio,
                x / ratio,
                (x + 3) / ratio,
                (x + 100) / ratio,
            }
        )
        pieces = zip([-np.inf, *bends], [*bends, np.inf], strict=True)
        p = 2 * sum(integrate.quad(beyond, *piece, epsabs=1e-10)[0] for piece in pieces)
        assert 1 - level == pytest.approx(p, rel=1e-4)


def test_mean_squares_by_hand():
    """Two seeds, three groups of two videos; seeds' means 3/6 and 5/6, groups' 2/4, 3/4, 3/4."""
    found = decompose(np.array([[1, 1, 1], [1, 2, 2]]), np.array([2, 2, 2]))
    assert found.estimate == pytest.approx(8 / 12)
    # Residuals from 2/3: seeds -1/6 and 1/6; groups -1/6, 1/12, 1/12; the rest 1/6 -1/12 -1/12 and its negative.
    noise = 2 * (1 / 36 + 2 / 144) / 2 / 6
    assert found.seeds == pytest.approx(2 / 36 / 2)
    assert found.groups == pytest.approx((1 / 36 + 2 / 144) / 6 - noise)
    assert found.noise == pytest.approx(noise)
    assert (found.seeds_df, found.groups_df) == (1, 2)


def test_seeds_alone_are_a_t_test_over_seeds():
    rng = np.random.default_rng(0)
    sums = drawn(rng, 1, 4, 50, 1.0, 0.0, 0.0)[0] + 0.7
    found = decompose(sums, np.ones(50))
    assert tail(found.estimate, found) == pytest.approx(stats.ttest_1samp(sums.mean(1), 0).pvalue)


def test_groups_alone_are_a_t_test_over_groups():
    rng = np.random.default_rng(0)
    sums = np.repeat(rng.normal(0.5, 1, (1, 8)), 3, axis=0)  # seeds do not differ
    found = decompose(sums, np.ones(8))
    assert tail(found.estimate, found) == pytest.approx(stats.ttest_1samp(sums[0], 0).pvalue)


def test_the_parts_are_the_variances_that_made_the_numbers():
    rng = np.random.default_rng(1)
    found = decompose(drawn(rng, 20_000, 5, 10, 4.0, 5.0, 4.0, n=5), np.full(10, 5))
    assert found.estimate.var() == pytest.approx(16 / 5 + 25 / 10 + 16 / 50, rel=0.03)
    assert found.seeds.mean() == pytest.approx(16 / 5 + 16 / 50, rel=0.03)
    assert found.noise.mean() == pytest.approx(16 / 50, rel=0.03)
    assert found.groups.mean() == pytest.approx(25 / 10, rel=0.03)


def test_noise_never_disappears():
    """Seeds and groups that happen to lie close: the error is still that of independent draws."""
    agree = np.array([[1, 0, 1, 0], [0, 1, 0, 1]])  # equal means of seeds, and of groups
    found = decompose(agree, np.ones(4))
    assert (found.seeds, found.groups) == (0, pytest.approx(found.noise)) and found.noise > 0
    rng = np.random.default_rng(2)
    many = decompose(drawn(rng, 20_000, 2, 8, 0.0, 0.0, 1.0), np.ones(8))
    assert (many.seeds + many.groups >= many.noise * (1 - 1e-9)).all()
    assert many.noise.mean() == pytest.approx(1 / 16, rel=0.03) and many.estimate.var() == pytest.approx(
        1 / 16, rel=0.03
    )


def test_unequal_groups_count_by_their_videos():
    """The estimate is a ratio: a group of three counts as three times one, and so do its errors."""
    rng = np.random.default_rng(2)
    sizes = np.array([1, 1, 2, 3, 5, 8, 13, 21] * 5)
    of_groups = rng.normal(0, 1, (4000, 1, len(sizes)))
    found = decompose(np.repeat(of_groups * sizes, 2, axis=1), sizes)
    true = (sizes**2).sum() / sizes.sum() ** 2
    assert found.estimate.var() == pytest.approx(true, rel=0.06)
    assert found.groups.mean() == pytest.approx(true, rel=0.1)


def test_an_average_adds_variances():
    rng = np.random.default_rng(3)
    of_two = [decompose(drawn(rng, 20_000, 3, g, *sds), np.ones(g)) for g, sds in ((8, (1, 1, 1)), (60, (2, 1, 1)))]
    found = average(of_two)
    assert found.estimate.var() == pytest.approx((found.seeds + found.groups).mean(), rel=0.03)
    assert found.seeds_df.min() >= 2 and found.seeds_df.max() <= 4 + 1e-9
    assert found.groups_df.min() >= 7 and found.groups_df.max() <= 66 + 1e-9
    assert average(of_two[:1]) is of_two[0]


def test_unknown_parts_stay_unknown():
    one_seed = decompose(np.array([[1, 2, 2]]), np.full(3, 2))
    one_group = decompose(np.array([[1], [2]]), np.array([4]))
    assert one_seed.estimate == pytest.approx(5 / 6) and one_group.estimate == pytest.approx(3 / 8)
    for found in (one_seed, one_group):
        assert np.isnan(tail(np.array(0.1), found)) and np.isnan(reach(found, 0.95))


def test_no_spread_is_certainty():
    found = decompose(np.full((3, 7), 2), np.full(7, 3))
    assert (found.seeds, found.groups, found.noise) == (0, 0, 0)
    assert reach(found, 0.95) == 0
    assert tail(np.array(0.1), found) == 0 and tail(np.array(0.0), found) == 1


def test_a_thousand_comparisons_take_seconds():
    rng = np.random.default_rng(4)
    many = stack([parts(*rng.random(1), 2, *rng.random(1), 7) for _ in range(1000)])
    start = time.process_time()
    reach(many, 0.95)
    tail(many.estimate, many)
    assert time.process_time() - start < 5
