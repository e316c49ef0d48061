"""Accuracy against cost, as inline SVG: rows with their intervals, and the Pareto front through their means."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from ssp.report import svg
from ssp.report.results import Results
from ssp.tables.numbers import LEVEL
from ssp.tables.points import front, points


class Cost(NamedTuple):
    """What may stand on the x axis: a column of `ssp.tables.points`, and what it says there and in words."""

    column: str
    title: str
    words: str


PARAMETERS = Cost("trained", "parameters that train, without the head (log)", "{:,.0f} parameters")
OTHERS = (
    Cost("step", "time of a training step, times a linear probe's", "a step takes {:.2f} times a linear probe's"),
    Cost("memory", "memory of training, times a linear probe's", "training needs {:.2f} times a linear probe's memory"),
    Cost(
        "inference",
        "time of a clip at inference, times a linear probe's",
        "a clip takes {:.2f} times a linear probe's time",
    ),
)


def against(results: Results, column: str, cost: Cost, box: svg.Box = svg.MIDDLE) -> dict[str, Any] | None:
    """The picture of a column of the tables, the rows on its front, and those that it lacks; None: all of them."""
    made = points(results.tables)
    here = made[(made["dataset"] == column) & made["mean"].notna() & made[cost.column].notna()]
    if here.empty:
        return None
    spots = [_spot(results, row, cost) for _, row in here.iterrows()]
    values = [end for spot in spots for end in (spot.low, spot.high, spot.y)]
    y = svg.linear(values, "top-1 (%)", least=5, ends=(0, 100))
    x = _axis([spot.x for spot in spots], cost)
    best = front((spot.row, spot.x, spot.y) for spot in spots if not spot.hollow)
    names = [results.config.rows[row].title for row in best]
    shown = {spot.row for spot in spots}
    missing = [results.config.rows[row].title for row in results.config.methods if row not in shown]
    told = f"Top-1 accuracy over {cost.title}, {len(spots)} rows; on the front of the means: {', '.join(names)}"
    return {
        "picture": svg.rows(spots, x, y, best, told, box),
        "front": names,
        "missing": missing,
        **results.data(column),
    }


def _axis(values: list[float], cost: Cost) -> svg.Axis:
    if cost is not PARAMETERS:
        return svg.linear([0, *values], cost.title)
    return svg.logarithmic([value or 1 for value in values], cost.title, margin=1.8)


def _spot(results: Results, row: pd.Series, cost: Cost) -> svg.Spot:
    name = results.config.rows[row["method"]].title
    interval = "" if pd.isna(row["low"]) else f" ({LEVEL} interval {row['low']:.1f} to {row['high']:.1f})"
    told = f"{name}: {row['mean']:.1f} %{interval}, {cost.words.format(row[cost.column])}"
    # A row that trains nothing but the head stands at the left end of the log axis, whose words tell its number.
    x = float(row[cost.column]) or (1.0 if cost is PARAMETERS else 0.0)
    hollow = row["status"] == "partial"
    return svg.Spot(row["method"], name, x, row["mean"], row["low"], row["high"], told, hollow)
