"""Section: ablations, each with its table and, where it varies a number, its curve; only where the config has some."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ssp.figures.style import COLOURS
from ssp.report import svg
from ssp.report.results import Results
from ssp.tables.ablations import lay_out_ablation, read_ablation
from ssp.tables.markup import plain_text
from ssp.tables.numbers import LEVEL


def content(results: Results) -> dict[str, Any] | None:
    """For each ablation its title, caption, columns, rows of texts, notes, and its curves."""
    names = results.config.ablations
    return {"ablations": [_ablation(results, name) for name in names]} if names else None


def _ablation(results: Results, name: str) -> dict[str, Any]:
    table = read_ablation(results.config, name)
    layout = lay_out_ablation(results.config, name, table)
    columns = [" ".join(filter(None, (results.data(g)["title"], column))) for g, column in layout.table.columns]
    rows = [{"cells": [plain_text(value) for value in row]} for row in layout.table.itertuples(index=False)]
    return {
        "name": name,
        "title": results.config.ablations[name].title,
        "caption": layout.caption,
        "table": {"columns": columns, "rows": rows, "text": (0,), "rows_in": None},
        "notes": layout.notes,
        "curves": _curves(results, name, table),
    }


def _curves(results: Results, name: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    """A curve for each data set over the number that is varied, of a grid a line for each other value."""
    axis, points = results.config.curve_axis(name), table
    if axis is None:
        return []
    points = table[table[axis].notna() & table["mean"].notna()]
    other = next((option for option in results.config.ablations[name].vary if option != axis), None)
    drawn = []
    for dataset, here in points.groupby("dataset", sort=False):
        values = [end for column in ("low", "high", "mean") for end in here[column]]
        x, y = svg.at(here[axis], axis), svg.linear(values, "top-1 (%)", least=5, ends=(0, 100))
        series = (
            [("", here)] if other is None else [(f"{other} {v}", own) for v, own in here.groupby(other, sort=False)]
        )
        made = [line for i, (label, own) in enumerate(series) for line in _lines(own, axis, label, i)]
        drawn.append(
            results.data(dataset)
            | {
                "curve": svg.lines(made, x, y),
                "series": [(label, i % len(COLOURS)) for i, (label, _) in enumerate(series)],
            }
        )
    return drawn


def _lines(own: pd.DataFrame, axis: str, label: str, i: int) -> list[svg.Line]:
    """The means, and a bar for each interval that is known."""
    own, look = own.sort_values(axis), f"c{i % len(COLOURS)}"
    told = ", ".join(f"{axis} {row[axis]:g}: {row['mean']:.1f} %" for _, row in own.iterrows())
    bars = [
        svg.Line(
            [(row[axis], row["low"]), (row[axis], row["high"])],
            look,
            f"{LEVEL} interval at {axis} {row[axis]:g}: {row['low']:.1f} to {row['high']:.1f}",
            ended=False,
        )
        for _, row in own[own["low"].notna()].iterrows()
    ]
    return [svg.Line([*zip(own[axis], own["mean"], strict=True)], look, f"{label} {told}".strip()), *bars]
