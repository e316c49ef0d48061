"""Section: accuracy of every method on every data set, against its parameters, and in paired differences."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup

from ssp.config import search_words
from ssp.figures.accuracy import accuracy_against_parameters
from ssp.figures.style import STYLE
from ssp.report.results import Results, anchor
from ssp.tables.layout import (
    PAPER,
    RANK,
    bold_words,
    epoch_words,
    family_words,
    not_enough,
    p_text,
    seeds_words,
    sign_words,
)
from ssp.tables.markup import Measured, Noted, plain_text


def content(results: Results) -> dict[str, Any]:
    """The main table, its notes, the picture, and the differences."""
    groups, rows = _main(results)
    differences = [
        row
        | {"anchors": _anchors(results, row)}
        | {"p_text": p_text(row["p"], not_enough(results.config) if row["n_seeds"] else None, 4)}
        for row in results.tables.differences.to_dict("records")
    ]
    return {
        "groups": groups,
        "rows": rows,
        "notes": results.layouts["main"].notes,
        "figure": _figure(results),
        "differences": differences,
        "verdict": results.layouts["verdict"],
        "verdict_rows": [
            [plain_text(value) for value in row] for row in results.layouts["verdict"].table.itertuples(index=False)
        ],
        "signs": sign_words(results.tables),
        "bold": bold_words(results.config, results.tables),
        "family": family_words(results.config, results.tables),
        "seeds": seeds_words(results.config),
        "budget": search_words(results.config),
        "epoch": epoch_words(results.config),
    }


def _anchors(results: Results, row: dict[str, Any]) -> dict[str, str]:
    """Where the runs of the two rows stand; an average has none of its own."""
    if row["dataset"] not in results.config.columns:
        return {}
    first = results.config.columns[row["dataset"]][0]
    return {key: anchor(first, row[key]) for key in ("reference", "method")}


def _main(results: Results) -> tuple[list[str], list[dict[str, Any]]]:
    """Column groups, and rows of cells: text, interval, a value to sort by, how it looks, and where it is from."""
    table = results.layouts["main"].table
    groups = list(dict.fromkeys(group for group, _ in table.columns if group))
    intervals = results.tables.uncertainty.set_index(["dataset", "method"])
    rows, columns = [], results.config.columns
    for method, (_, row) in zip(results.config.methods, table.iterrows(), strict=True):
        title, cells = row[("", "method")], []
        for group in groups:
            measured, published = row[(group, "top-1")], row[(group, PAPER)]
            interval = intervals.loc[(group, method)] if (group, method) in intervals.index else None
            known = isinstance(measured, Measured)
            cells.append(
                {
                    "text": measured.text if isinstance(measured, Measured | Noted) else "–",
                    "note": getattr(measured, "note", ""),
                    "value": measured.mean if known else "",
                    "look": "failed" if isinstance(measured, Noted) else "best" if known and measured.best else "",
                    "interval": "" if interval is None or pd.isna(interval["low"]) else _ends(interval),
                    "published": published.text if published else "–",
                    "anchor": anchor(columns[group][0], method) if group in columns else "",
                }
            )
        rows.append({"method": title, "cells": cells, "rank": row[(groups[-1], RANK)] or "–"})
    return groups, rows


def _ends(interval: pd.Series) -> str:
    return f"{interval['low']:.1f}–{interval['high']:.1f}"


def _figure(results: Results) -> Markup:
    """The picture as inline SVG."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": results.config.name}):
        buffer = io.StringIO()
        figure = accuracy_against_parameters(results.config, results.tables)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
