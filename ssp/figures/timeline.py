"""The classes of a long video over time: one bar a window, as high as its class is probable."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from ssp.figures.style import COLOURS, STYLE, save_figure

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)  # seconds that people count in
COLOURED, GREY = 6, "#b8b8b8"  # classes with a colour; more could not be told apart


def write_timeline(windows: pd.DataFrame, title: str, path: Path) -> None:
    """Draw the windows of a video as a PNG.

    Args:
        windows: from `Predictor.timeline`: start, end, class, probability.
        title: what the video is called.
        path: of the PNG.
    """
    with mpl.rc_context(STYLE):
        save_figure(timeline(windows, title), [path])


def timeline(windows: pd.DataFrame, title: str) -> Figure:
    """Bars over time; the classes that last longest are coloured, the others grey."""
    # Windows may overlap: a bar ends where the next begins.
    ends = windows["start"].shift(-1).fillna(windows["end"]).clip(upper=windows["end"])
    widths = ends - windows["start"]
    lasting = widths.groupby(windows["class"]).sum().sort_values(ascending=False, kind="stable")
    colours = dict(zip(lasting.index[:COLOURED], COLOURS, strict=False))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.bar(
        windows["start"],
        100 * windows["probability"],
        widths,
        align="edge",
        color=[colours.get(name, GREY) for name in windows["class"]],
        edgecolor="white",
        linewidth=0.4 if len(windows) <= 150 else 0,  # of more windows the edges would hide the bars
    )
    axis.set_xlim(windows["start"].iloc[0], windows["end"].iloc[-1])
    axis.set_ylim(0, 100)
    axis.set_xlabel("time (minutes:seconds)")
    axis.set_ylabel("probability (%)")
    axis.xaxis.set_major_locator(MultipleLocator(_between_ticks(axis.get_xlim()[1] - axis.get_xlim()[0])))
    axis.xaxis.set_major_formatter(FuncFormatter(_clock))
    axis.grid(axis="x", visible=False)
    axis.set_title(f"{title}: most probable class of each window", loc="left", parse_math=False)
    handles = [Patch(color=colour, label=_name(name)) for name, colour in colours.items()]
    if len(lasting) > COLOURED:
        handles.append(Patch(color=GREY, label=f"{len(lasting) - COLOURED} other classes"))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may be called anything
    return figure


def _name(name: str) -> str:
    """A class in the legend; one that begins with an underscore would be left out."""
    short = name if len(name) <= 40 else f"{name[:39]}…"
    return f" {short}" if short.startswith("_") else short


def _between_ticks(seconds: float) -> float:
    """Seconds from one tick to the next: ten of them, or a few less."""
    return next((step for step in TICKS if seconds <= 10 * step), 3600 * -(-seconds // 36000))


def _clock(seconds: float, place: int | None = None) -> str:
    """1:02:03 or 2:03; tenths where they say something."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    tail = f"{rest:02.0f}" if rest == int(rest) else f"{rest:04.1f}"
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"
