"""Section: what each row trains and adds, what training and using it costs, and accuracy against each of these."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ssp.report import picture
from ssp.report.results import Results, anchor
from ssp.tables.claims import AVERAGE
from ssp.tables.markup import plain_text


def content(results: Results) -> dict[str, Any]:
    """The table of costs, pictures by cost and by data set, and the parameters in full."""
    layout, config = results.layouts["costs"], results.config
    rows = [
        results.row(name) | {"cells": [plain_text(value) for value in cells]}
        for name, cells in zip(config.methods, layout.table.itertuples(index=False), strict=True)
    ]
    columns = [" ".join(filter(None, column)) for column in layout.table.columns]
    return {
        "caption": layout.caption,
        "table": {"columns": columns, "rows": rows, "text": (0,), "rows_in": 0},
        "notes": layout.notes,
        "record": results.link(results.paths.costs),
        "main": results.data(results.main_column),
        "others": [one for cost in picture.OTHERS if (one := picture.against(results, results.main_column, cost))],
        "each": _each(results),
        "parameters": _parameters(results),
        "heads": _heads(results),
        "paper": results.comparable,
    }


def _each(results: Results) -> list[dict[str, Any]]:
    """Accuracy against parameters on each data set, where the first screen has not shown it."""
    if results.main_column != AVERAGE:
        return []
    return [one for name in results.config.columns if (one := picture.against(results, name, picture.PARAMETERS))]


def _parameters(results: Results) -> list[dict[str, Any]]:
    """Counts without the head, a line for each row, or for the data sets on which it has as many."""
    table = results.tables.parameters
    table = table.assign(total=table["total"] - table["head"], trained=table["trainable"] - table["head"])
    found = []
    for name, own in table.groupby("method", sort=False):
        alike = list(own.groupby(["total", "trained", "extra"], sort=False, dropna=False))
        for counts, same in alike:
            titles = [results.data(dataset)["title"] for dataset in same["dataset"]]
            first = results.config.columns[same["dataset"].iloc[0]][0]
            found.append(
                results.row(name)
                | dict(zip(("total", "trained", "extra"), counts, strict=True))
                | {"on": ", ".join(titles) if len(alike) > 1 else "", "link": f"#{anchor(first, name)}"}
                | {"published": same["published_m"].iloc[0]}
            )
    return found


def _heads(results: Results) -> str:
    """The size of the head on each data set, by the number of classes."""
    heads = results.tables.parameters.dropna(subset=["head"]).groupby("dataset", sort=False)["head"].max()
    return ", ".join(f"{results.data(name)['title']} {count:,}" for name, count in heads.items() if not pd.isna(count))
