"""Section: the first screen. What was found in sentences, every row in a line, and accuracy against what it trains."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ssp.report import findings, picture, svg
from ssp.report.results import Results
from ssp.tables.layout import RANK
from ssp.tables.markup import Measured
from ssp.tables.numbers import interval_text, p_text, signed, signed_interval
from ssp.tables.words import not_enough

FEW = 10  # rows up to which names have room in the smaller picture


def content(results: Results) -> dict[str, Any]:
    """Sentences, rows from the best mean to the least, the picture."""
    config, column = results.config, results.main_column
    many = len(config.methods) > FEW
    ranks = results.tables.ranks
    ranks = ranks[ranks["dataset"] == column].set_index("method")["rank"]
    order = sorted(config.methods, key=lambda row: ranks.get(row, len(config.methods) + 1))
    return {
        "findings": findings.findings(results),
        "how": findings.how(results),
        "limits": findings.limits(results),
        "column": results.data(column),
        "reference": config.rows[config.reference_row].title,
        "rows": [_row(results, column, row) for row in order],
        "against": picture.against(results, column, picture.PARAMETERS, svg.Box(720, 520, 13) if many else svg.PICTURE),
        "many": many,
        "steps": bool(results.tables.costs["step"].notna().any()),
    }


def _row(results: Results, column: str, name: str) -> dict[str, Any]:
    """A row in one line: place, accuracy, what it is above or below the reference, what it costs."""
    config, tables = results.config, results.tables
    table = results.layouts["main"].table
    shown = table.iloc[list(config.methods).index(name)]
    cell, place = shown[(column, "top-1")], shown[next(key for key in table.columns if key[1] == RANK)]
    interval = tables.uncertainty.set_index(["dataset", "method"]).loc[(column, name)]
    differences = tables.differences
    other = differences[(differences["dataset"] == column) & (differences["method"] == name)]
    costs = tables.costs.set_index("method").loc[name]
    return results.row(name) | {
        "place": place or "–",
        "best": isinstance(cell, Measured) and cell.best,
        "mean": None if pd.isna(interval["mean"]) else interval["mean"],
        "interval": interval_text(interval["low"], interval["high"]) or "",
        "difference": _beside(other.iloc[0], not_enough(config)) if len(other) else None,
        "parameters": costs["parameters"],
        "step": costs["step"],
    }


def _beside(row: pd.Series, few: str) -> dict[str, Any]:
    """A row minus the reference: the other way round than in the table of differences, as the line is the row's."""
    if pd.isna(row["difference"]):
        return {"value": "", "points": "–", "interval": "", "p": ""}
    return {
        "value": -row["difference"],
        "points": signed(-row["difference"]),
        "interval": signed_interval(-row["high"], -row["low"]) or "",
        "p": f"p {p_text(row['p_holm'], None)}" if not pd.isna(row["p_holm"]) else few,
    }
