"""Whether a published number is reproduced: an equivalence test, or a reason why there is none.

Design choices
- A published number is one run of an unknown seed on the same test list. Its own error is unknown, and taken to be that
  of one run of ours: its distance from the mean of S seeds has the variance sd^2 (1 + 1 / S), with our sd over seeds
  and S - 1 degrees of freedom (a prediction interval). Test groups are the same in both and add nothing. Of several
  studies one more run is one seed of one more study: what seeds differ by within a study is added as a part of its own.
- Two one-sided tests (Schuirmann 1987) at 5 % each: reproduced, where the 90 % interval of the difference lies within
  the margin; not reproduced, where it lies outside of it; else nobody can say. Too few seeds cannot reproduce anything.
- No verdict where another thing was measured: other videos, another backbone, another recipe. The reason says what.
"""

from __future__ import annotations

import numpy as np

from ssp.config import Config
from ssp.records.published import BACKBONE, OTHER_RECIPES, TEST_VIDEOS, published_accuracy
from ssp.tables import crossed
from ssp.tables.claims import AVERAGE, Column, Counted
from ssp.tables.stats import ALPHA, MIN_SEEDS, Tally

MARGIN = 2.0
"""Percentage points within which two accuracies are taken for the same."""
REPRODUCED, NOT_REPRODUCED, CANNOT_SAY, NONE = "reproduced", "not reproduced", "cannot say", "no verdict"
SIGNS = {REPRODUCED: "=", NOT_REPRODUCED: "≠", CANNOT_SAY: "?", NONE: ""}
_MAY_BE_BROKEN = 0.01  # share of the test videos that may be missing


def verdict_rows(config: Config, columns: list[Column], counted: Counted) -> list[dict]:
    """A row for each published number, data set by data set and in the average: ours minus it, and what that says."""
    rows, parts = [], []
    for column in columns:
        for method in config.methods:
            numbers = [_published(config, dataset, method) for dataset in column.datasets]
            if None in numbers:
                continue
            row = {"dataset": column.name, "method": method, "published": float(np.mean(numbers)), "margin": MARGIN}
            rows.append(row)
            cells = [counted.get((dataset, method)) for dataset in column.datasets]
            if (column.name == AVERAGE and method not in column.complete) or None in cells:
                row |= {"verdict": NONE, "reason": "failed seeds"}
                continue
            found = crossed.average([one_more_run(*one) for one in zip(cells, numbers, strict=True)])
            row |= {"mean": row["published"] + float(found.estimate), "difference": float(found.estimate)}
            reasons = dict.fromkeys(
                filter(None, (_differs(config, d, method, c) for d, c in zip(column.datasets, cells, strict=True)))
            )
            if reasons:
                row |= {"verdict": NONE, "reason": "; ".join(reasons)}
            elif method not in column.complete:
                row |= {"verdict": CANNOT_SAY, "reason": "failed seeds"}
            elif sum(len(cell.units) - 1 for cell in cells) < MIN_SEEDS - 1:
                row |= {"verdict": CANNOT_SAY, "reason": f"not enough {config.units}"}
            else:
                parts.append((row, found))
    if parts:
        halves = crossed.reach(crossed.stack([found for _, found in parts]), 1 - 2 * ALPHA)
        for (row, _), half in zip(parts, halves, strict=True):
            row |= {"low": row["difference"] - half, "high": row["difference"] + half}
            row |= {"verdict": judge(row["low"], row["high"])}
    return rows


def judge(low: float, high: float) -> str:
    """What the 90 % interval of ours minus the published says, both in percentage points."""
    if low > -MARGIN and high < MARGIN:
        return REPRODUCED
    return NOT_REPRODUCED if low > MARGIN or high < -MARGIN else CANNOT_SAY


def _published(config: Config, dataset: str, method: str) -> float | None:
    return published_accuracy().get((config.rows[method].published, config.archived[dataset].source))


def one_more_run(cell: Tally, published: float) -> crossed.Parts:
    """Ours minus a published number, in points, with the variance that one more run of ours would have."""
    share = 100 / cell.sizes.sum()
    by_unit = cell.sums().sum(1) * share
    n = len(by_unit)
    variance = by_unit.var(ddof=1) * (1 + 1 / n) if n > 1 else np.nan
    # A unit of m seeds varies less than one of its seeds, by (m - 1) / m of the variance within it.
    within = [np.array([cell.hits[seed].sum() for seed in unit]) * share for unit in cell.units]
    df = sum(len(seeds) - 1 for seeds in within)
    lacking = np.mean([1 - 1 / len(seeds) for seeds in within])
    rest = lacking * sum(((seeds - seeds.mean()) ** 2).sum() for seeds in within) / max(df, 1)
    values = by_unit.mean() - published, variance, max(n - 1, 1), rest, max(df, 1), 0.0
    return crossed.Parts(*(np.array(float(value)) for value in values))


def _differs(config: Config, dataset: str, method: str, cell: Tally) -> str | None:
    """Why a number of ours and the published one do not measure the same; None where they do."""
    data, backbone = config.archived[dataset], config.backbone
    source, published = data.source, config.rows[method].published
    other = []
    if data.generate:
        other.append("generated videos")
    if backbone.architecture != BACKBONE:
        other.append("another backbone")
    elif backbone.checkpoints[data.checkpoint].pretrain:
        other.append("another pre-training")
    if (published, source) in OTHER_RECIPES:
        other.append(OTHER_RECIPES[published, source])
    if other:
        return ", ".join(other)
    splits = [config.datasets[name].split for name in config.columns[dataset]]
    if splits != [1]:
        return f"split {' and '.join(map(str, splits))}, published: split 1"
    ours, theirs = int(cell.sizes.sum()), TEST_VIDEOS[source]
    if abs(ours - theirs) > _MAY_BE_BROKEN * theirs:
        return f"{ours:,} test videos, published: {theirs:,}"
    return None
