"""What the comparisons of a config can find, and how many seeds would find more.

Design choices
- Planned is the very test of the tables (`ssp.tables.crossed`): its critical distance varies with the mean squares, so
  these are drawn for an experiment of as many seeds, with the variances that the records show, on the same test groups.
  For normal effects they are independent of the estimate, whose chance to lie farther away is then known.
- Mean squares are drawn as a Sobol sequence: smooth in all that is planned, and the same each time.
- It is a plan and no more: a spread over three seeds is known within a factor of two (`spread_factor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from ssp.config import Config
from ssp.tables import crossed
from ssp.tables.cells import collect_cells
from ssp.tables.claims import table_columns, tallies
from ssp.tables.stats import ALPHA, MIN_SEEDS, Pair, margin
from ssp.tables.words import not_enough

POWER = 0.8
CERTAINTY = 0.8  # one-sided, of how much larger the true spread may be
MOST_SEEDS = 50
TOO_FEW = "too few groups"
_DRAWS = 128  # off by less than 1 % from 4,096 of them; by 5 % with two seeds


@dataclass(frozen=True)
class Design:
    """Variances of a paired difference on one data set; of shares, not of percentage points."""

    seed: float
    """Of one seed's difference, the test set being the same."""
    noise: float
    """The share of it that averages out over groups."""
    groups: float
    """Of the mean over this many groups, however many seeds there are."""
    n_groups: int


def design(pair: Pair) -> list[Design]:
    """Variances that records show, of each data set of a pair; NaN with one seed or one group."""
    found = []
    for first, second in zip(*pair, strict=True):
        sums, sizes = margin(first, second)
        parts, n = crossed.decompose(sums, sizes), len(sums)
        between = parts.groups + np.minimum(parts.seeds, parts.noise) - parts.noise
        seed = np.maximum(parts.seeds, parts.noise)
        found.append(Design(float(seed * n), float(parts.noise * n), float(np.maximum(between, 0)), len(sizes)))
    return found


def detectable(designs: Sequence[Design], seeds: int, alpha: float = ALPHA) -> float:
    """The true difference, in percentage points, that a two-sided test at `alpha` finds with probability `POWER`.

    NaN where nothing can be found: variances are unknown, seeds too few for a p-value, or groups for one below `alpha`.
    """
    if not _can_claim(designs, seeds, alpha):
        return float("nan")
    reach, error = _reaches(designs, seeds, alpha)
    if error == 0:
        return 0.0
    # A claim in the wrong direction is no find.
    return 100 * brentq(lambda true: stats.norm.cdf((true - reach) / error).mean() - POWER, 0, reach.max() + 9 * error)


def seeds_needed(designs: Sequence[Design], difference: float, alpha: float = ALPHA) -> int | None:
    """The fewest seeds that find a true difference (percentage points) so often; None where 50 do not."""

    def enough(seeds: int) -> bool:
        return detectable(designs, seeds, alpha) <= difference  # NaN is not

    low, high = 1, MOST_SEEDS
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def spread_factor(seeds: int) -> float:
    """By how much the true spread over seeds may exceed the one of so many seeds, with one-sided `CERTAINTY`."""
    return float(np.sqrt((seeds - 1) / stats.chi2.ppf(1 - CERTAINTY, seeds - 1))) if seeds > 1 else float("nan")


def plan(config: Config, difference: float | None = None) -> pd.DataFrame:
    """What each comparison with the reference row can find: a row for each, on each data set and in the average.

    Args:
        config: whose records there are.
        difference: in percentage points; None: no numbers of seeds.

    Returns:
        Columns data set, comparison, seeds (or studies), sd over these (of the paired difference, in points), found
        now (the true difference, in points, that is found with 80 % power at 5 % two-sided) and found now (Holm), at
        the first and hardest step of Holm over all comparisons; with `difference`, the seeds that would find it, at
        either. Text says why a number is missing.

    Raises:
        RecordError: a record is missing, stale or broken.
    """
    cells = collect_cells(config)
    counted, reference = tallies(cells), config.reference_row
    compared = []
    for column in table_columns(config, cells):
        for method in config.methods:
            if method != reference and {reference, method} <= set(column.complete):
                pair = tuple([counted[dataset, row] for dataset in column.datasets] for row in (reference, method))
                compared.append((column.name, config.rows[method].title, design(pair)))
    seeds, title = config.n_units(), config.rows[reference].title
    holm = ALPHA / max(len(compared), 1)
    found = []
    for name, method, designs in compared:
        spread = 100 * np.sqrt(sum(d.seed for d in designs)) / len(designs)
        units, few = config.units, not_enough(config)
        row = {"data set": name, "comparison": f"{title} − {method}", units: seeds, f"sd over {units}": float(spread)}
        for label, alpha in (("", ALPHA), (" (Holm)", holm)):
            row[f"found now{label}"] = _points(designs, seeds, alpha, few)
            if difference is not None:
                row[f"{units} for {difference:g}{label}"] = _seeds(designs, difference, alpha, few)
        found.append(row)
    return pd.DataFrame(found)


def describe(config: Config) -> str:
    """What the numbers of `plan` mean, and how far they may be off."""
    seeds, units = config.n_units(), config.units
    words = (
        f"found now: the true difference, in percentage points, that {seeds} {units} find with {POWER:.0%} power at "
        f"{ALPHA:.0%}, two-sided; (Holm): at the first step of the adjustment over all comparisons. As many test "
        f"groups as now; {units} and groups drawn anew."
    )
    if seeds > 1:
        words += (
            f" A plan: the spread over {units} is estimated from {seeds}, and with {CERTAINTY:.0%} certainty at most "
            f"{spread_factor(seeds):.1f} times as large as seen."
        )
    return words


def _can_claim(designs: Sequence[Design], seeds: int, alpha: float) -> bool:
    """Whether a p-value below alpha is possible at all."""
    known = not any(np.isnan([d.seed, d.noise, d.groups]).any() for d in designs)
    return known and len(designs) * (seeds - 1) >= MIN_SEEDS - 1 and not _too_few_groups(designs, alpha)


def _too_few_groups(designs: Sequence[Design], alpha: float) -> bool:
    return 2.0 ** (1 - sum(d.n_groups for d in designs)) >= alpha or any(d.n_groups == 1 for d in designs)


def _points(designs: list[Design], seeds: int, alpha: float, few: str) -> float | str:
    points = detectable(designs, seeds, alpha)
    return points if not np.isnan(points) else TOO_FEW if _too_few_groups(designs, alpha) else few


def _seeds(designs: list[Design], difference: float, alpha: float, few: str) -> int | str:
    if _too_few_groups(designs, alpha):
        return TOO_FEW
    if any(np.isnan(d.seed) for d in designs):
        return few
    return seeds_needed(designs, difference, alpha) or f"over {MOST_SEEDS}"


def _reaches(designs: Sequence[Design], seeds: int, alpha: float) -> tuple[np.ndarray, float]:
    """Critical distances of drawn experiments, and the standard error of their estimate; both as shares."""
    sequence = stats.qmc.Sobol(3 * len(designs), rng=0).random(_DRAWS)
    parts, variance = [], 0.0
    for d, uniform in zip(designs, np.split(sequence, len(designs), axis=1), strict=True):
        dfs = seeds - 1, d.n_groups - 1, (seeds - 1) * (d.n_groups - 1)
        expected = d.seed / seeds, d.groups + d.noise / seeds, d.noise / seeds
        by_seed, by_group, noise = (
            mean * stats.chi2.ppf(u, df) / df for mean, u, df in zip(expected, uniform.T, dfs, strict=True)
        )
        own = np.maximum(by_group, noise) - np.minimum(by_seed, noise)
        dfs_of = (np.full(_DRAWS, float(df)) for df in dfs[:2])
        parts.append(crossed.Parts(np.zeros(_DRAWS), by_seed, next(dfs_of), own, next(dfs_of), noise))
        variance += d.seed / seeds + d.groups
    return crossed.reach(crossed.average(parts), 1 - alpha), float(np.sqrt(variance)) / len(designs)
