"""The protocol's statistics: spread over seeds, uncertainty of a test set, paired differences between methods.

Design choices
- Spread over seeds and uncertainty of the test set are two different things and never pooled into one number.
- The unit that is resampled is the group (subject, source film, gNN): videos of one group are not independent, so
  resampling videos would give intervals that are too narrow.
- Bootstrap percentiles are expanded for few groups (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
  section 4.1): a plain percentile interval is too narrow by sqrt((G - 1) / G) and by using the normal instead of
  Student's t. With 8 groups (the subjects of Breakfast's test) it covers 94 % of the time, a plain one 89 %.
- Where resampling groups says nothing (one group, or no spread between groups, as at 100 %), the interval is Wilson's
  binomial interval over videos, and the result says so.
- Two methods are compared on the same videos and seeds. Under the null hypothesis their names could be swapped within
  any group: the p-value comes from flipping the sign of each group's difference, all 2^G flips where these are few.
- Groups with equal counts are interchangeable, so resamples are drawn over kinds of groups (a multinomial over kinds
  has exactly the same law): 10,000 resamples take a fraction of a second for 8 subjects and for 25,000 single videos.
- Everything is seeded and depends on counts alone: same predictions, same digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ssp.errors import RecordError

RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0
_BLOCK = 4_000_000  # largest resamples x kinds held in memory at once
_EXACT_GROUPS = 13  # up to 2^13 = 8,192 sign flips are all tried


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds, in the unit of the values; sd is NaN for one seed."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Interval:
    """A confidence interval in percent, and what it rests on."""

    estimate: float
    low: float
    high: float
    groups: int
    videos: int
    kind: Literal["bootstrap", "binomial"]

    @property
    def half_width(self) -> float:
        """Half of the interval's length, in percentage points."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """Accuracy of one method minus another's, in percentage points, paired by video and seed.

    The interval is NaN where all groups differ by the same amount, or there is one group: resampling says nothing then.
    """

    estimate: float
    low: float
    high: float
    p: float
    groups: int
    videos: int
    seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1) of the seeds' accuracies."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Spread(float("nan"), float("nan"), 0)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(values.mean()), sd, len(values))


def accuracy_interval(
    seeds: Sequence[pd.DataFrame], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """Confidence interval of the accuracy (mean over seeds) for another test set of as many groups.

    The seeds' models are held fixed: this is the uncertainty that comes from the choice of test groups alone.

    Args:
        seeds: merged predictions of each seed (`ssp.records.predictions.merge_views`), on the same videos.
        level: coverage.
        resamples: bootstrap resamples.
        seed: of the resampling.
    """
    videos = _hits(seeds)
    counts = _per_group(videos["group"], videos["hits"])
    total, n, k = int(videos["hits"].sum()), len(videos), len(seeds)
    estimate = 100 * total / (n * k)
    if _no_spread(counts):
        # Seeds see the same videos: they add no independent observations, so the counts are averaged over seeds.
        low, high = _wilson(total / k, n, level)
        return Interval(estimate, 100 * low, 100 * high, len(counts), n, "binomial")
    low, high = _bootstrap(counts, level, resamples, seed)
    return Interval(estimate, 100 * low / k, 100 * high / k, len(counts), n, "bootstrap")


def paired_difference(
    first: Mapping[int, pd.DataFrame],
    second: Mapping[int, pd.DataFrame],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Accuracy of `first` minus `second`, with interval and two-sided sign-flip test over groups.

    Args:
        first: merged predictions by seed of one method; seeds that only one of the two has are left out.
        second: the same of the other.
        level: coverage of the interval.
        resamples: bootstrap resamples, and random sign flips where there are too many groups to try all.
        seed: of both.

    Raises:
        RecordError: no seed in common, or other videos in the two.
    """
    common = sorted(set(first) & set(second))
    if not common:
        raise RecordError("paired difference: the two methods have no seed in common; run both on the same seeds")
    a, b = _hits([first[s] for s in common]), _hits([second[s] for s in common])
    if not a[["id", "group", "label"]].equals(b[["id", "group", "label"]]):
        raise RecordError("paired difference: the two methods were tested on different videos; run both again")
    margin = a["hits"] - b["hits"]
    counts = _per_group(a["group"], margin)
    k, n = len(common), len(a)
    if _no_spread(counts):
        low = high = float("nan")  # one group, or the same difference in all: resampling says nothing
    else:
        low, high = (100 * x / k for x in _bootstrap(counts, level, resamples, seed))
    p = _sign_flip(counts[:, 0], resamples, seed)
    return Difference(100 * int(margin.sum()) / (n * k), low, high, p, len(counts), n, k)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for several comparisons (Holm 1979); NaN entries stay NaN and do not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(order) else scaled
    return adjusted


def _hits(seeds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row per video: id, group, label, hits (number of seeds that classify it correctly)."""
    if not seeds or not len(seeds[0]):
        raise RecordError("statistics: no predictions to work on; run the cell again")
    videos = seeds[0][["id", "group", "label"]].reset_index(drop=True)
    for other in seeds[1:]:
        if not other[["id", "group", "label"]].reset_index(drop=True).equals(videos):
            raise RecordError("statistics: the seeds were tested on different videos; run the cell again")
    return videos.assign(hits=sum((merged["rank"].to_numpy() == 0).astype(np.int64) for merged in seeds))


def _per_group(group: pd.Series, values: pd.Series) -> np.ndarray:
    """(G, 2) integers: sum of values and number of videos of each group."""
    _, index, sizes = np.unique(group.to_numpy(dtype=str), return_inverse=True, return_counts=True)
    sums = np.zeros(len(sizes), dtype=np.int64)
    np.add.at(sums, index, values.to_numpy())
    return np.stack([sums, sizes], axis=1)


def _no_spread(counts: np.ndarray) -> bool:
    """Whether all groups have the same mean, so that no resample differs from the sample."""
    return bool((counts[:, 0] * counts[0, 1] == counts[0, 0] * counts[:, 1]).all())


def _bootstrap(counts: np.ndarray, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Expanded percentile interval of sum / videos over resampled groups; `counts` is (G, 2)."""
    groups = len(counts)
    kinds, multiplicity = np.unique(counts, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(kinds))
    means = []
    for start in range(0, resamples, block):
        drawn = rng.multinomial(groups, multiplicity / groups, size=min(block, resamples - start))
        sums = drawn @ kinds
        means.append(sums[:, 0] / sums[:, 1])
    t = stats.t.ppf((1 + level) / 2, groups - 1)
    tail = stats.norm.sf(np.sqrt(groups / (groups - 1)) * t)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _wilson(hits: float, videos: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion; hits may be fractional (a mean over seeds)."""
    z = stats.norm.ppf((1 + level) / 2)
    share = hits / videos
    centre = (share + z * z / (2 * videos)) / (1 + z * z / videos)
    half = z / (1 + z * z / videos) * np.sqrt(share * (1 - share) / videos + z * z / (4 * videos * videos))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _sign_flip(margins: np.ndarray, resamples: int, seed: int) -> float:
    """Two-sided p-value of the sum of the groups' margins (G integers) under random signs."""
    sizes, observed = np.abs(margins[margins != 0]), abs(int(margins.sum()))
    if not len(sizes):
        return 1.0
    if len(sizes) <= _EXACT_GROUPS:
        signs = 1 - 2 * ((np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes))) & 1)
        return float((np.abs(signs @ sizes) >= observed).mean())
    kinds, multiplicity = np.unique(sizes, return_counts=True)
    rng = np.random.default_rng(seed)
    flips = multiplicity - 2 * rng.binomial(multiplicity, 0.5, size=(resamples, len(kinds)))
    extreme = int((np.abs(flips @ kinds) >= observed).sum())
    # The observed assignment is one of the possible ones: without it a p-value could be 0.
    return (1 + extreme) / (1 + resamples)
