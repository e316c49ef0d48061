"""How all figures look, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ssp.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
MARKERS = "osD^vP*Xhp"
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


def save_figure(figure: Figure, paths: Iterable[Path]) -> None:
    """Write a figure atomically in the format of each path (pdf, png), without dates or versions."""
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=_UNDATED[kind])
