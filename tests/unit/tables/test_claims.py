"""Ranks from pairs, and who takes part."""

import numpy as np
import pandas as pd
import pytest

from ssp.errors import RecordError
from ssp.tables.cells import CellResult
from ssp.tables.claims import Column, pair_rows, rank_rows, tallies
from ssp.tables.stats import Tally

COLUMNS = [Column("x", ["x"], ["a", "b", "c"])]


def counted(**hits):
    videos = pd.DataFrame(index=range(100))
    return {("x", row): Tally({0: np.array([n])}, np.array([100]), videos) for row, n in hits.items()}


def ranks(pairs, **hits):
    made = [{"dataset": "x", "first": a, "second": b, "difference": d, "p": p, "p_holm": h} for a, b, d, p, h in pairs]
    return {
        row["method"]: (row["rank"], row.get("rank_low"), row.get("rank_high"))
        for row in rank_rows(COLUMNS, counted(**hits), made)
    }


def test_ranks_by_hand():
    """c is worse than a; a and b, and b and c, cannot be told apart, for only adjusted p-values count."""
    found = ranks([("a", "b", 4, 0.03, 0.06), ("a", "c", 9, 0.001, 0.003), ("b", "c", 5, 0.04, 0.06)], a=60, b=56, c=51)
    assert found == {"a": (1, 1, 2), "b": (2, 1, 3), "c": (3, 2, 3)}
    turned = ranks(
        [("a", "b", -4, 0.03, 0.06), ("a", "c", -9, 0.001, 0.003), ("b", "c", -5, 0.04, 0.06)], a=51, b=55, c=60
    )
    assert turned == {"a": (3, 2, 3), "b": (2, 1, 3), "c": (1, 1, 2)}


def test_equal_rows_share_a_place_and_without_p_values_no_range_is_given():
    nothing = [(a, b, 0, np.nan, np.nan) for a, b in ("ab", "ac", "bc")]
    assert ranks(nothing, a=60, b=60, c=51) == {"a": (1, None, None), "b": (1, None, None), "c": (3, None, None)}


def test_pairs_are_of_complete_rows():
    columns = [Column("x", ["x"], ["a", "c"])]
    found = pair_rows(columns, counted(a=60, b=50, c=40))
    assert [(row["first"], row["second"], round(row["difference"], 6)) for row in found] == [("a", "c", 20)]


def test_rows_on_different_videos_are_named():
    def cell(method, videos):
        merged = pd.DataFrame({"id": videos, "group": videos, "label": 0, "rank": 0})
        return CellResult("x", method, {0: None}, {0: merged})

    with pytest.raises(RecordError, match="x: a and b were tested on different videos; run both again"):
        tallies([cell("a", ["v1", "v2"]), cell("b", ["v1", "v3"])])
    assert [*tallies([cell("a", ["v1"]), CellResult("x", "b", {0: None}, {})])] == [("x", "a")]
