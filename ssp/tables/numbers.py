"""Numbers of the tables as one reads them: differences with a true minus, intervals, p-values."""

from __future__ import annotations

import pandas as pd

from ssp.tables import stats
from ssp.tables.markup import DECIMALS

LEVEL = f"{100 * stats.LEVEL:.0f} %"
WIDER = f"{100 * (1 - 2 * stats.ALPHA):.0f} %"  # of the two one-sided tests


def interval_text(low: float, high: float) -> str | None:
    """Both ends of an interval; None where there is none."""
    return None if pd.isna(low) else f"{low:.{DECIMALS}f}–{high:.{DECIMALS}f}"


def signed(value: float) -> str | None:
    """A difference with its sign, a true minus, and no sign where it rounds to zero."""
    if pd.isna(value):
        return None
    text = f"{value:+.{DECIMALS}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def signed_interval(low: float, high: float) -> str | None:
    """Both ends of an interval of differences; None where there is none."""
    return None if pd.isna(low) else f"{signed(low)} to {signed(high)}"


def p_text(p: float, missing: str | None, decimals: int = 3) -> str | None:
    """A p-value, or what is said where there is none."""
    if pd.isna(p):
        return missing
    least = 10.0**-decimals
    return f"<{least:.{decimals}f}" if p < least else f"{p:.{decimals}f}"
