"""How all figures look, and how they are written.

A row has one look wherever it is shown: it follows the row's name, not its place in a table, so that two figures of
different rows can be read side by side.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
MARKERS = "osD^vP*Xhp"
# New names at the end: colour and marker are by place, and 7 colours and 10 markers make 70 pairs.
ROWS = (
    *("ssp", "vpt", "full", "adapter", "st_adapter", "lora", "linear", "vfpt", "svp", "additional_scan", "stop"),
    *("affix", "bitfit", "dora", "initial_state", "norm_tuning", "partial", "prodial", "sdt", "ssf", "state_offset"),
)
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.minor.size": 0,
    "pdf.fonttype": 42,  # text stays text
}
_UNDATED = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}


class Look(NamedTuple):
    """Places of a row in `COLOURS` and `MARKERS`."""

    colour: int
    marker: int


def look(row: str) -> Look:
    """How a row is drawn, by its name; a name of its own has one of the 70 pairs that its letters pick."""
    place = ROWS.index(row) if row in ROWS else zlib.crc32(row.encode())
    return Look(place % len(COLOURS), place % len(MARKERS))


def save_figure(figure: Figure, paths: Iterable[Path]) -> None:
    """Write a figure atomically in the format of each path (pdf, png), without dates or versions."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=_UNDATED[kind])
