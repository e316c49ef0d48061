"""The protocol's statistics: spread over seeds, intervals of accuracies, paired differences between methods.

Design choices
- A number stands for a method, so its uncertainty counts what another run would draw anew: seeds and test groups,
  together (`ssp.tables.crossed`). The spread over seeds is shown beside it, as a description.
- The unit that is drawn is the group (subject, source film, gNN), as videos of one group are not independent. Nor are
  seeds that train from one study's choice: where there are several studies, these are drawn, as means of their seeds.
  With one study the choice is fixed, and a claim is one about a method at that setting.
- Two methods are compared on the same videos and seeds.
- Intervals of accuracies are made on the logit scale and carried back, as for proportions in surveys (Korn and Graubard
  1998): they stay between 0 and 100 and are skewed where the accuracy is near an end.
- A p-value needs two degrees of freedom for seeds: three seeds, or two and an average over data sets. Fewer rest on
  one difference between two runs; there is no p-value then.
- G groups make no p-value below 2 / 2^G, what a test that knows no more than the signs of their differences could reach
  (`smallest`): with 8 subjects nothing rests on the far tails of t.
- Everything depends on counts alone and nothing is drawn at random: same predictions, same digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from ssp.errors import RecordError
from ssp.tables import crossed

LEVEL = 0.95
ALPHA = 0.05
MIN_SEEDS = 3  # of a claim about one data set

Pair = tuple[Sequence["Tally"], Sequence["Tally"]]
"""Two rows, each as its tallies on one or more data sets."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds, in the unit of the values; sd is NaN for one seed."""

    mean: float
    sd: float
    n: int


@dataclass(frozen=True)
class Tally:
    """Hits of a cell: a seed's number of right videos in each group."""

    hits: dict[int, np.ndarray]
    """By seed: (G,), of several splits weighted."""
    sizes: np.ndarray
    """(G,) videos of each group, weighted alike."""
    videos: pd.DataFrame
    """One row per video: id, group, label."""
    studies: int = 1
    """Seed i is of study i modulo this; one study is fixed, and its seeds are drawn."""

    @property
    def units(self) -> list[list[int]]:
        """The seeds of each unit that is drawn anew."""
        return drawn_units(self.hits, self.studies)

    def sums(self, seeds: Iterable[int] | None = None) -> np.ndarray:
        """(S, G) hits of each unit, the mean of its seeds; of some seeds, or of all."""
        units = drawn_units(self.hits if seeds is None else seeds, self.studies)
        return np.stack([np.mean([self.hits[seed] for seed in unit], axis=0) for unit in units])


@dataclass(frozen=True)
class Interval:
    """A confidence interval in percent, and what it rests on."""

    estimate: float
    low: float
    high: float
    groups: int
    videos: int
    kind: Literal["seeds and groups", "seeds and videos", ""]
    """What is drawn anew; empty with one seed, where low and high are NaN."""

    @property
    def half_width(self) -> float:
        """Half of the interval's length, in percentage points."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """Accuracy of one method minus another's, in percentage points, paired by video and seed.

    The interval is NaN with one seed, one group, or where all seeds and groups differ by the same amount.
    """

    estimate: float
    low: float
    high: float
    p: float
    """Two-sided; NaN with too few seeds."""
    smallest: float
    """Below it p cannot be, with so few groups; NaN with too few seeds."""
    groups: int
    videos: int
    seeds: int
    """Or studies, where these are drawn."""


def drawn_units(seeds: Iterable[int], studies: int) -> list[list[int]]:
    """What is drawn anew among seeds: each seed, where one study is fixed; else those of each study together."""
    found: dict[int, list[int]] = {}
    for seed in seeds:
        found.setdefault(seed % studies if studies > 1 else seed, []).append(seed)
    return list(found.values())


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1) of the seeds' accuracies."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Spread(float("nan"), float("nan"), 0)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(values.mean()), sd, len(values))


def tally(seeds: Mapping[int, pd.DataFrame], studies: int = 1) -> Tally:
    """Count hits of merged predictions (`ssp.records.predictions.merge_views`) by seed and group.

    Raises:
        RecordError: there are none, or the seeds were tested on different videos.
    """
    first = next(iter(seeds.values()), None)
    if first is None or not len(first):
        raise RecordError("statistics: no predictions to work on; run the cell again")
    videos = first[["id", "group", "label"]].reset_index(drop=True)
    for other in seeds.values():
        if other is not first and not other[["id", "group", "label"]].reset_index(drop=True).equals(videos):
            raise RecordError("statistics: the seeds were tested on different videos; run the cell again")
    _, index, sizes = np.unique(videos["group"].to_numpy(dtype=str), return_inverse=True, return_counts=True)
    hits = {
        seed: np.bincount(index[merged["rank"].to_numpy() == 0], minlength=len(sizes)) for seed, merged in seeds.items()
    }
    return Tally(hits, sizes, videos, studies)


def pooled(splits: Sequence[Tally]) -> Tally:
    """The tally of the mean over several splits of one data set, of the seeds that all of them have.

    A group that is tested in several splits is one group, so what their test sets share is not counted as new. Hits are
    weighted so that each split counts the same, however many videos it tests; by whole numbers, which do not round.
    """
    names = [np.unique(one.videos["group"].to_numpy(dtype=str)) for one in splits]
    union = np.unique(np.concatenate(names))
    at = [np.searchsorted(union, own) for own in names]
    totals = [int(one.sizes.sum()) for one in splits]
    weights = [math.lcm(*totals) // total for total in totals]

    def added(counts: Sequence[np.ndarray]) -> np.ndarray:
        total = np.zeros(len(union), np.int64)
        for places, weight, own in zip(at, weights, counts, strict=True):
            total[places] += weight * own
        return total

    seeds = [seed for seed in splits[0].hits if all(seed in one.hits for one in splits)]
    videos = pd.concat(
        [one.videos.assign(id=f"{i}/" + one.videos["id"].astype(str)) for i, one in enumerate(splits)],
        ignore_index=True,
    )
    hits = {seed: added([one.hits[seed] for one in splits]) for seed in seeds}
    return Tally(hits, added([one.sizes for one in splits]), videos, splits[0].studies)


def intervals(cells: Sequence[Sequence[Tally]]) -> list[Interval]:
    """Intervals of accuracies, many at once; of a row on several data sets, of its average over them."""
    if not cells:
        return []
    alike = [[_alike(one) for one in each] for each in cells]
    parts = crossed.stack(
        [
            crossed.average([_accuracy_parts(*one) for one in zip(each, same, strict=True)])
            for each, same in zip(cells, alike, strict=True)
        ]
    )
    found = []
    for each, same, share, half in zip(cells, alike, parts.estimate, crossed.reach(parts, LEVEL), strict=True):
        groups, videos = sum(len(one.sizes) for one in each), sum(len(one.videos) for one in each)
        if np.isnan(half):  # one seed
            low, high, kind = np.nan, np.nan, ""
        else:
            low, high = _ends(share, half, videos)
            kind = "seeds and videos" if any(same) else "seeds and groups"
        found.append(Interval(100 * float(share), 100 * float(low), 100 * float(high), groups, videos, kind))
    return found


def differences(pairs: Sequence[Pair]) -> list[Difference]:
    """Paired differences, many at once; a pair on several data sets is compared in the average over them.

    Raises:
        RecordError: no seed in common, or other videos in the two of a pair.
    """
    margins = [[margin(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
    parts = [crossed.average([crossed.decompose(*one) for one in each]) for each in margins]
    samples = [
        _Samples([len(sums) for sums, _ in each], sum(len(g) for _, g in each), sum(len(one.videos) for one in pair[0]))
        for pair, each in zip(pairs, margins, strict=True)
    ]
    return _judged(parts, samples)


def unpaired(pairs: Sequence[tuple[Tally, Tally]]) -> list[Difference]:
    """Differences between two rows that share neither seeds nor, perhaps, videos: as of independent samples.

    `groups` and `videos` of what is found are those of the smaller test set, `seeds` the fewer.
    """
    parts, samples = [], []
    for pair in pairs:
        first, second = (_accuracy_parts(one, _alike(one)) for one in pair)
        half = crossed.average([first, replace(second, estimate=-second.estimate)])  # of two: half of their difference
        scaled = {name: 4 * getattr(half, name) for name in ("seeds", "groups", "noise")}
        parts.append(replace(half, estimate=2 * half.estimate, **scaled))
        sizes = (min(len(getattr(one, name)) for one in pair) for name in ("sizes", "videos"))
        samples.append(_Samples([len(one.units) for one in pair], *sizes))
    return _judged(parts, samples)


class _Samples(NamedTuple):
    """What a difference rests on."""

    seeds: list[int]
    """Of each data set, or of each of two samples."""
    groups: int
    videos: int


def _judged(parts: Sequence[crossed.Parts], samples: Sequence[_Samples]) -> list[Difference]:
    """Intervals and p-values of differences whose parts are known."""
    if not parts:
        return []
    parts = crossed.stack(parts)
    halves = crossed.reach(parts, LEVEL)
    halves = np.where(halves > 0, halves, np.nan)  # no spread at all says nothing of other seeds and groups
    p_values = np.nan_to_num(crossed.tail(parts.estimate, parts), nan=1.0)  # one group speaks of no other
    found = []
    for (seeds, groups, videos), estimate, half, p in zip(samples, parts.estimate, halves, p_values, strict=True):
        smallest = 2.0 ** (1 - groups) if sum(seeds) - len(seeds) >= MIN_SEEDS - 1 else float("nan")
        found.append(
            Difference(
                estimate=100 * float(estimate),
                low=100 * float(estimate - half),
                high=100 * float(estimate + half),
                p=smallest if np.isnan(smallest) else float(max(p, smallest)),
                smallest=smallest,
                groups=groups,
                videos=videos,
                seeds=min(seeds),
            )
        )
    return found


def margin(first: Tally, second: Tally) -> tuple[np.ndarray, np.ndarray]:
    """(S, G) hits of one minus the other's for their common seeds, and the groups' sizes.

    Raises:
        RecordError: no seed in common, or other videos in the two.
    """
    common = sorted(set(first.hits) & set(second.hits))
    if not common:
        raise RecordError("paired difference: the two methods have no seed in common; run both on the same seeds")
    if first.videos is not second.videos and not first.videos.equals(second.videos):
        raise RecordError("paired difference: the two methods were tested on different videos; run both again")
    return first.sums(common) - second.sums(common), first.sizes


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for several comparisons (Holm 1979); NaN entries stay NaN and do not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1) if len(order) else scaled
    return adjusted


def smallest_adjusted(smallest: Sequence[float]) -> np.ndarray:
    """What each comparison's p-value can be at best after Holm, when all that can be smaller are.

    Args:
        smallest: the smallest p-value of each comparison of the family (`Difference.smallest`).
    """
    low = np.asarray(smallest, dtype=np.float64)
    # Holm multiplies by the number of comparisons that are not smaller; those that cannot be smaller always count.
    counts = (low[None, :] >= low[:, None]).sum(axis=1)
    return np.where(np.isnan(low), np.nan, np.minimum(low * counts, 1))


def _alike(cell: Tally) -> bool:
    """Whether groups say nothing of others: there is one, or all are equally good."""
    hits = np.sum([*cell.hits.values()], axis=0)
    return len(set((hits / cell.sizes).round(12))) == 1


def _accuracy_parts(cell: Tally, alike: bool) -> crossed.Parts:
    """Parts of the accuracy's variance; where groups say nothing, that of single videos stands in for theirs."""
    parts = crossed.decompose(cell.sums(), cell.sizes)
    if not alike:
        return parts
    share, videos = parts.estimate, len(cell.videos)
    return replace(parts, groups=share * (1 - share) / videos, groups_df=np.float64(videos), noise=np.float64(0))


def _ends(share: float, half: float, videos: int) -> tuple[float, float]:
    """Ends of an interval on the logit scale, carried back; at 0 and 1, which have no logit, Wilson's over videos."""
    if share in (0, 1):  # seeds see the same videos, and are no further observations
        return tuple(stats.binomtest(round(share * videos), videos).proportion_ci(LEVEL, method="wilson"))
    away = half / (share * (1 - share))
    return tuple(special.expit(special.logit(share) + np.array([-away, away])))
