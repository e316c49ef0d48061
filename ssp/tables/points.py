"""Accuracy against cost: a point for each row in each column, and the front of those that no other row beats on both.

What a row trains is counted without the head, which all rows train alike. For a method that adds modules that is what
is new and the final norm, for full fine-tuning the whole backbone, so that both stand on one axis.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ssp.tables.long import LongTables

COLUMNS = ("dataset", "method", "status", "mean", "sd", "low", "high", "trained", "step", "memory", "inference")


def points(tables: LongTables) -> pd.DataFrame:
    """One row for each cell and, where there are several data sets, for the average of each method; columns `COLUMNS`.

    A cell that failed has no mean, and an average no status. Counts of the average are the largest over data sets;
    step, memory and inference are relative to the linear probe, and the same for all data sets.
    """
    keys = ["dataset", "method"]
    own = tables.parameters.assign(trained=lambda t: t["trainable"] - t["head"])[[*keys, "trained"]]
    largest = own.groupby("method", sort=False, as_index=False)["trained"].max()
    found = tables.uncertainty[[*keys, "mean", "sd", "low", "high"]]
    found = found.merge(tables.main[[*keys, "status"]], on=keys, how="left").merge(own, on=keys, how="left")
    found["trained"] = found["trained"].fillna(found["method"].map(largest.set_index("method")["trained"]))
    costs = tables.costs[["method", "step", "memory", "inference"]]
    return found.merge(costs, on="method", how="left")[list(COLUMNS)]


def front(made: Iterable[tuple[str, float, float]]) -> list[str]:
    """Rows of (name, cost, accuracy) that no other beats, by rising cost; of equals the first by name."""
    best, found = float("-inf"), []
    for name, _, accuracy in sorted(made, key=lambda one: (one[1], -one[2], one[0])):
        if accuracy > best:
            best = accuracy
            found.append(name)
    return found
