"""Which tuned weights go along with results."""

from __future__ import annotations

from enum import StrEnum


class Weights(StrEnum):
    """Which tuned weights are packed."""

    all = "all"
    best = "best"
    """Of each data set those of the row with the highest mean in the main table: all seeds, as test picks none."""
    none = "none"
