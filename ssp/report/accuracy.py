"""Section: accuracy of every method on every data set, in paired differences, and beside published numbers."""

from __future__ import annotations

from typing import Any

from ssp.config import search_words
from ssp.report.results import Results, anchor
from ssp.tables.layout import RANK
from ssp.tables.markup import Measured, Noted, plain_text
from ssp.tables.numbers import interval_text, p_text
from ssp.tables.words import PAPER, bold_words, epoch_words, family_words, measured_words, not_enough, sign_words


def content(results: Results) -> dict[str, Any]:
    """The main table, its notes, the differences, and verdicts where published numbers are of the same thing."""
    config = results.config
    groups, rows = _main(results)
    return {
        "groups": groups,
        "rows": rows,
        "paper": PAPER if results.comparable else "",
        "notes": results.layouts["main"].notes,
        "differences": [_difference(results, row) for row in results.tables.differences.to_dict("records")],
        "verdict": _verdict(results) if results.comparable else None,
        "signs": sign_words(results.tables) if results.comparable else "",
        "bold": bold_words(config, results.tables),
        "family": family_words(config, results.tables),
        "measured": measured_words(config),
        "budget": search_words(config),
        "epoch": epoch_words(config),
    }


def _difference(results: Results, row: dict[str, Any]) -> dict[str, Any]:
    few = not_enough(results.config) if row["n_seeds"] else None
    return row | {
        "data": results.data(row["dataset"]),
        "of": results.row(row["method"]),
        "beside": results.row(row["reference"]),
        "links": {key: _runs(results, row["dataset"], row[key]) for key in ("reference", "method")},
        "p_text": p_text(row["p"], few, 4),
    }


def _runs(results: Results, column: str, row: str) -> str:
    """Where a number's runs stand; an average is of the numbers of its row."""
    if column in results.config.columns:
        return f"#{anchor(results.config.columns[column][0], row)}"
    return f"#row-{row}"


def _main(results: Results) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Column groups, and rows of cells: text, interval, a value to sort by, how it looks, and where it is from."""
    table, config = results.layouts["main"].table, results.config
    groups = list(dict.fromkeys(group for group, _ in table.columns if group))
    intervals = results.tables.uncertainty.set_index(["dataset", "method"])
    rows = []
    for method, (_, row) in zip(config.methods, table.iterrows(), strict=True):
        cells = []
        for group in groups:
            measured, published = row[(group, "top-1")], row.get((group, PAPER))
            interval = intervals.loc[(group, method)]
            known = isinstance(measured, Measured)
            cells.append(
                results.data(group)
                | {
                    "text": measured.text if isinstance(measured, Measured | Noted) else "–",
                    "note": getattr(measured, "note", ""),
                    "value": measured.mean if known else "",
                    "look": "failed" if isinstance(measured, Noted) else "best" if known and measured.best else "",
                    "interval": interval_text(interval["low"], interval["high"]) or "",
                    "published": published.text if published else "–",
                    "link": _runs(results, group, method) if group in config.columns else "",
                    "command": results.way_back(group, method) if group in config.columns else "",
                }
            )
        rows.append(results.row(method) | {"cells": cells, "rank": row[(groups[-1], RANK)] or "–"})
    return [results.data(group) for group in groups], rows


def _verdict(results: Results) -> dict[str, Any]:
    """The table of verdicts with its caption and notes."""
    layout, table = results.layouts["verdict"], results.tables.verdict
    keys = zip(table["dataset"], table["method"], strict=True)
    rows = [
        {"cells": [plain_text(value) for value in cells], **results.data(dataset), **results.row(method)}
        for (dataset, method), cells in zip(keys, layout.table.itertuples(index=False), strict=True)
    ]
    columns = [*layout.table.columns]
    return {
        "caption": layout.caption,
        "notes": layout.notes,
        "table": {"columns": columns, "rows": rows, "text": (0, 1, len(columns) - 1), "rows_in": 1},
    }
