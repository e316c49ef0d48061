"""What tables claim of their rows: intervals, differences, pairs and ranks, on each data set and in the average.

Design choices
- Comparisons with the reference row are one family over the whole table, average included, and all pairs of rows are
  another, larger one: p-values are adjusted (Holm) within these.
- The places that a row may have follow from all pairs: at best behind the rows that are better by an adjusted p, at
  worst ahead of those that are worse. In 95 % of tables all of these ranges hold (Klein, Wright and Wieczorek 2020).
- Pairs and ranks are of complete cells alone, as a mean over surviving seeds does not compete.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from ssp.config import Config
from ssp.errors import RecordError
from ssp.tables import stats
from ssp.tables.cells import TableCell

AVERAGE = "average"  # in the column of data sets
Counted = dict[tuple[str, str], stats.Tally]
"""By (data set, row); cells of which all seeds failed are left out."""


def tallies(cells: list[TableCell]) -> Counted:
    """Counted hits by (data set, method), without cells that failed.

    Raises:
        RecordError: two rows of a data set were tested on different videos.
    """
    found: Counted = {}
    first: dict[str, tuple[str, pd.DataFrame]] = {}
    for cell in cells:
        tally = cell.tally
        if tally is None:
            continue
        other, videos = first.setdefault(cell.dataset, (cell.method, tally.videos))
        if not tally.videos.equals(videos):
            raise RecordError(
                f"{cell.dataset}: {other} and {cell.method} were tested on different videos; run both again"
            )
        found[cell.dataset, cell.method] = replace(tally, videos=videos)
    return found


@dataclass(frozen=True)
class Column:
    """A column of the tables: a data set, or the average over all of them."""

    name: str
    datasets: list[str]
    complete: list[str]
    """The rows without a failed seed on any of its data sets."""


def table_columns(config: Config, cells: list[TableCell]) -> list[Column]:
    """All data sets, and their average where there are several."""
    names = {dataset: [dataset] for dataset in config.columns}
    if len(names) > 1:
        names[AVERAGE] = list(config.columns)
    broken = {(cell.dataset, cell.method) for cell in cells if cell.status != "ok"}
    return [
        Column(name, datasets, [m for m in config.methods if not any((d, m) in broken for d in datasets)])
        for name, datasets in names.items()
    ]


def uncertainty_rows(config: Config, columns: list[Column], cells: list[TableCell], counted: Counted) -> list[dict]:
    """Spread over seeds and interval of each row in each column; empty where all seeds failed, or one in an average."""
    accuracies = {(cell.dataset, cell.method): cell.accuracies for cell in cells}
    rows, by_unit, cells_of = [], [], []
    for column in columns:
        for method in config.methods:
            rows.append({"dataset": column.name, "method": method})
            known = method in column.complete if column.name == AVERAGE else (column.name, method) in counted
            cells_of.append([counted[dataset, method] for dataset in column.datasets] if known else [])
            # Averaged within each seed or study first: the spread is that of the average.
            each = [accuracies[dataset, method] for dataset in column.datasets]
            by_unit.append([float(np.mean(values)) for values in zip(*each, strict=True)] if known else [])
    found = iter(stats.intervals([each for each in cells_of if each]))
    for row, values, each in zip(rows, by_unit, cells_of, strict=True):
        if each:
            spread, interval = stats.spread(values), next(found)
            drawn = interval.kind.replace("seeds", config.units) or None
            row |= {"mean": spread.mean, "sd": spread.sd, "interval": drawn}
            row |= {key: getattr(interval, key) for key in ("low", "high", "half_width", "groups", "videos")}
    return rows


def difference_rows(config: Config, columns: list[Column], counted: Counted) -> list[dict]:
    """Reference minus every other row, in each column; empty where the two share no seed, or have no average."""
    reference = config.reference_row
    rows, pairs = [], []
    for column in columns:
        for method in config.methods:
            if method == reference:
                continue
            rows.append({"dataset": column.name, "method": method, "reference": reference, "n_seeds": 0})
            pair = tuple([counted.get((dataset, row)) for dataset in column.datasets] for row in (reference, method))
            known = all(a and b and set(a.hits) & set(b.hits) for a, b in zip(*pair, strict=True))
            whole = column.name != AVERAGE or {reference, method} <= set(column.complete)
            pairs.append(pair if known and whole else None)
    found = iter(stats.differences([pair for pair in pairs if pair]))
    for row, pair in zip(rows, pairs, strict=True):
        if pair:
            row |= _difference(next(found))
    family = pd.DataFrame(rows, columns=["p", "smallest"], dtype=float)
    adjusted, smallest = stats.holm(family["p"]), stats.smallest_adjusted(family["smallest"])
    return [
        row | {"p_holm": p, "p_holm_smallest": least} for row, p, least in zip(rows, adjusted, smallest, strict=True)
    ]


def pair_rows(columns: list[Column], counted: Counted) -> list[dict]:
    """Every two complete rows of a column, the earlier minus the later."""
    rows, pairs = [], []
    for column in columns:
        for first, second in combinations(column.complete, 2):
            rows.append({"dataset": column.name, "first": first, "second": second})
            pairs.append(tuple([counted[dataset, row] for dataset in column.datasets] for row in (first, second)))
    found = [_difference(one) for one in stats.differences(pairs)]
    adjusted = stats.holm([one["p"] for one in found])
    return [row | one | {"p_holm": p} for row, one, p in zip(rows, found, adjusted, strict=True)]


def rank_rows(columns: list[Column], counted: Counted, pairs: list[dict]) -> list[dict]:
    """Place of each complete row in a column, and the places that it may have; these are empty without p-values."""
    rows = []
    for column in columns:
        own = [pair for pair in pairs if pair["dataset"] == column.name]
        shares = {m: np.mean([_share(counted[d, m]) for d in column.datasets]) for m in column.complete}
        told = [pair for pair in own if pair["p_holm"] < stats.ALPHA]
        won = [(pair["first"], pair["second"])[:: 1 if pair["difference"] > 0 else -1] for pair in told]
        known = any(not np.isnan(pair["p"]) for pair in own)
        for method in column.complete:
            row = {"dataset": column.name, "method": method}
            row["rank"] = 1 + sum(share > shares[method] for share in shares.values())
            if known:
                row["rank_low"] = 1 + sum(loser == method for _, loser in won)
                row["rank_high"] = len(shares) - sum(winner == method for winner, _ in won)
            rows.append(row)
    return rows


def _share(cell: stats.Tally) -> float:
    return cell.sums().mean(0).sum() / cell.sizes.sum()


def _difference(found: stats.Difference) -> dict:
    return {
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "smallest": found.smallest,
        "groups": found.groups,
        "videos": found.videos,
        "n_seeds": found.seeds,
    }
