"""Figure: accuracy over the number that an ablation varies; PDF for papers, PNG for slides and pages."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssp.config import Config, data_title
from ssp.errors import ConfigError
from ssp.figures.style import COLOURS, MARKERS, STYLE, save_figure
from ssp.paths import Paths
from ssp.tables.ablations import read_ablation
from ssp.tables.numbers import LEVEL

MOST_TICKS = 8  # up to so many values are ticks themselves


def write_curve(config: Config, name: str, paths: list[Path] | None = None) -> list[Path]:
    """Write `results/<config>/figures/ablations/<name>.{pdf, png}` (or `paths`) from the ablation's written table.

    Raises:
        ConfigError: the ablation varies no number.
        RecordError: its table is not written.
    """
    if config.curve_axis(name) is None:
        raise ConfigError(f"ablations.{name}: varies no number, so it has a table but no curve")
    table = read_ablation(config, name)
    paths = paths or Paths.of(config).ablation_curves(name)
    with mpl.rc_context(STYLE):
        save_figure(ablation_curve(config, name, table), paths)
    return paths


def ablation_curve(config: Config, name: str, table: pd.DataFrame) -> Figure:
    """One panel per data set; x: the number that is varied, y: top-1 in percent; of a grid a line per other value."""
    axis, datasets = config.curve_axis(name), config.ablation_columns(name)
    other = next((option for option in config.ablations[name].vary if option != axis), None)
    columns = min(len(datasets), 2)
    rows = math.ceil(len(datasets) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    points = table[table[axis].notna()]
    for panel, dataset in zip(panels.flat, datasets, strict=False):
        here = points[points["dataset"] == dataset]
        lines = (
            [("", here)] if other is None else [(f"{other} {v}", rows) for v, rows in here.groupby(other, sort=False)]
        )
        for i, (label, line) in enumerate(lines):
            _draw(panel, line, axis, config.ablations[name].of, label, i)
        panel.set_title(data_title(config, dataset), loc="left")
        if other is not None:
            panel.legend(frameon=False, fontsize=8)
    for panel in panels.flat[len(datasets) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel(axis)
    for panel in panels[:, 0]:
        panel.set_ylabel("top-1 accuracy (%)")
    if len(values := sorted(points[axis].unique())) <= MOST_TICKS:
        panels[0, 0].set_xticks(values)
    figure.suptitle(config.ablations[name].title.replace("$", r"\$"), fontsize=9, color="#444444")
    figure.supxlabel(f"bars: {LEVEL} interval; ring: base row", fontsize=8, color="#444444")
    return figure


def _draw(panel: Axes, line: pd.DataFrame, axis: str, base: str, label: str, i: int) -> None:
    line = line[line["mean"].notna()].sort_values(axis)
    colour = COLOURS[i % len(COLOURS)]
    panel.plot(line[axis], line["mean"], color=colour, marker=MARKERS[i % len(MARKERS)], markersize=5, label=label)
    known = line[line["low"].notna()]
    panel.vlines(known[axis], known["low"], known["high"], color=colour, linewidth=1.2)
    ringed = line[line["row"] == base]
    panel.plot(ringed[axis], ringed["mean"], "o", markersize=11, fillstyle="none", color="#444444")
