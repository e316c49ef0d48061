"""Figures for papers and the report, drawn from the written tables: PDF and PNG.

Design choices
- Accuracy against what is trained besides the head, on a log axis, one panel per data set: the question is what a
  method buys with its parameters. For a method that adds modules that is its extra parameters and the final norm, for
  full fine-tuning the whole backbone, so that both stand on one axis.
- The dashed line is the Pareto front of the means: no row off it is both smaller and better.
- A pale bar for the spread over seeds (± sd), a line for the interval of the mean, which counts seeds and test groups.
- Colours can be told apart with any colour vision, and markers differ too.
- Same tables, same bytes: no dates or versions in the files, and no state shared through pyplot.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ssp.config import Config, data_title
from ssp.figures.style import COLOURS, MARKERS, STYLE, look, save_figure
from ssp.paths import Paths
from ssp.tables.long import LongTables, read_tables
from ssp.tables.numbers import LEVEL
from ssp.tables.points import front, points

_SPREAD = {"linewidth": 9, "alpha": 0.25}
_INTERVAL = {"linewidth": 1.2}
_FRONT = {"color": "#888888", "linewidth": 1, "linestyle": "--"}


def write_figures(config: Config, paths: list[Path] | None = None) -> list[Path]:
    """Write the figures of a config under `results/<config>/figures` (or to `paths`), from its written tables.

    Returns:
        Paths: accuracy_against_parameters.pdf and .png.

    Raises:
        RecordError: the tables are not written (`ssp.tables.write_tables`).
    """
    tables, paths = read_tables(config), paths or Paths.of(config).figure_files
    with mpl.rc_context(STYLE):
        save_figure(accuracy_against_parameters(config, tables), paths)
    return paths


def accuracy_against_parameters(config: Config, tables: LongTables) -> Figure:
    """One panel per data set; x: trained parameters without the head, y: top-1 accuracy in percent."""
    datasets = list(config.columns)
    columns = min(len(datasets), 2 if len(datasets) in (2, 4) else 3)
    rows = math.ceil(len(datasets) / columns)
    figure = Figure(figsize=(3.5 * columns, 2.6 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    cells = points(tables)
    cells = cells[cells["dataset"].isin(datasets)]
    titles = {row: config.rows[row].title for row in config.methods}
    looks = {row: {"color": COLOURS[look(row).colour], "marker": MARKERS[look(row).marker]} for row in config.methods}
    for axis, dataset in zip(axes.flat, datasets, strict=False):
        _panel(axis, cells[cells["dataset"] == dataset], looks, titles)
        axis.set_title(data_title(config, dataset), loc="left")
    _decades(axes[0, 0], cells.loc[cells["status"] != "failed", "trained"])
    for axis in axes.flat[len(datasets) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("trained parameters, without the head")
    for axis in axes[:, 0]:
        axis.set_ylabel("top-1 accuracy (%)")
    # A dollar sign would start a formula.
    title = textwrap.fill(config.title, 45 * columns).replace("$", r"\$")
    figure.suptitle(title, fontsize=9, color="#444444")
    marks = [Line2D([], [], linestyle="", markersize=6, label=titles[name], **shown) for name, shown in looks.items()]
    bars = [
        Patch(color="#444444", alpha=_SPREAD["alpha"], linewidth=0, label=f"± sd over {config.units}"),
        Line2D([], [], color="#444444", label=f"{LEVEL} interval of the mean", **_INTERVAL),
        Line2D([], [], label="Pareto front of the means", **_FRONT),
    ]
    if (cells["status"] == "partial").any():
        hollow = {"linestyle": "", "marker": "o", "markerfacecolor": "white", "markeredgecolor": "#444444"}
        bars.append(Line2D([], [], label="without failed seeds", **hollow))
    figure.legend(
        handles=marks + bars,
        loc="outside lower center",
        ncols=(2, 6, 8)[columns - 1],
        columnspacing=1.2,
        handletextpad=0.5,
        frameon=False,
        fontsize=8,
    )
    return figure


def _decades(axis: Axes, trained: pd.Series) -> None:
    """The shared x axis: round numbers that do not collide, also where all rows lie within a decade or at one place."""
    axis.set_xscale("log")
    counts = trained.dropna().clip(lower=1)
    low, high = (counts.min() / 1.8, counts.max() * 1.8) if len(counts) else (1, 10)
    axis.set_xlim(low, high)
    steps = (1.0,) if high / low > 100 else (1.0, 3.0) if high / low > 12 else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=7))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _panel(axis: Axes, cells: pd.DataFrame, looks: dict[str, dict[str, str]], titles: dict[str, str]) -> None:
    """Draw the cells of one data set; failed ones are named, those with failed seeds are hollow."""
    known = cells[cells["status"] == "ok"].set_index("method")  # a mean over surviving seeds does not compete
    best = known.loc[front(zip(known.index, known["trained"], known["mean"], strict=True))]
    if len(best) > 1:
        axis.step(best["trained"], best["mean"], where="post", zorder=0, **_FRONT)
    failed = []
    for row in cells.itertuples():
        if row.status == "failed":
            failed.append(titles[row.method])
            continue
        shown, x = looks[row.method], float(row.trained)
        if not math.isnan(row.low):
            axis.vlines(x, row.low, row.high, color=shown["color"], **_INTERVAL)
        if not math.isnan(row.sd):
            axis.vlines(x, row.mean - row.sd, row.mean + row.sd, color=shown["color"], **_SPREAD)
        fill = {} if row.status == "ok" else {"markerfacecolor": "white"}
        axis.plot([x], [row.mean], linestyle="", markersize=6, **shown, **fill)
    axis.margins(y=0.1)
    if failed:
        axis.text(
            0.98,
            0.03,
            f"failed: {', '.join(failed)}",
            transform=axis.transAxes,
            ha="right",
            color="#aa0000",
            fontsize=8,
        )
