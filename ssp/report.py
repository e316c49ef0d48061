"""The report of a config: one HTML page that needs nothing else, with a way back from every number to its run.

Design choices
- Made from what was written (tables, records, sweep choices); measures nothing itself.
- Self-contained: no scripts, styles, fonts or pictures from elsewhere. Works without JavaScript too, which only sorts.
- Unlike the tables it shows times, hosts and MLflow run ids, so two runs of the same thing differ in it.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup

from ssp.choice import load_choice
from ssp.config import Config
from ssp.figures import STYLE, accuracy_against_parameters
from ssp.files import write_text
from ssp.paths import Paths
from ssp.record import Record, load_record
from ssp.tables.frames import LongTables, read_tables
from ssp.tables.layout import LEVEL, PAPER, Layout, context, lay_out
from ssp.tables.markup import Measured, Noted


def write_report(config: Config) -> Path:
    """Write `results/<config>/report.html` from the tables, records and sweeps of a config.

    Raises:
        RecordError: tables, a record or a sweep's choice are missing, broken, or of another config.
    """
    paths = Paths.of(config)
    tables = read_tables(config)
    layouts = lay_out(config, tables)
    records = {
        (dataset, method, seed): load_record(paths.record(dataset, method, seed))
        for dataset in config.datasets
        for method in config.methods
        for seed in config.seeds
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sparkline": sparkline, "number": _number}
    page = environment.get_template("report.html.j2").render(
        config=config,
        level=LEVEL,
        paper=PAPER,
        context=context(config),
        accuracy=_accuracy(tables, layouts["main"]),
        notes=layouts["main"].notes,
        differences=tables.differences.to_dict("records"),
        parameters=tables.parameters.to_dict("records"),
        figure=_figure(config, tables),
        studies=[_study(config, paths, d, m) for d in config.datasets for m in config.methods],
        runs=[_run(paths, record) for record in records.values()],
        versions=_versions(records),
    )
    write_text(paths.report, page)
    return paths.report


def sparkline(values: list[float], width: int = 90, height: int = 22) -> Markup:
    """A small line from 0 to 100 %, one point per epoch."""
    if not values:
        return Markup("–")
    step = (width - 6) / max(len(values) - 1, 1)
    spots = [(3 + i * step, height - 3 - (height - 6) * min(max(v, 0), 100) / 100) for i, v in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    told = ", ".join(f"{v:.1f}" for v in values)
    return Markup(
        f'<svg class="spark" width="{width}" height="{height}" role="img"><title>{told}</title>'
        f'<polyline points="{line}"/><circle cx="{spots[-1][0]:.1f}" cy="{spots[-1][1]:.1f}" r="2"/></svg>'
    )


def _number(value: Any, form: str = ".1f") -> str:  # noqa: ANN401 - a number of any kind, or a missing one
    return "–" if value is None or pd.isna(value) else f"{value:{form}}"


def _accuracy(tables: LongTables, main: Layout) -> dict[str, Any]:
    """Head and rows of the main table: each cell a text, its interval, a value to sort by, and how it looks."""
    groups = list(dict.fromkeys(group for group, _ in main.frame.columns if group))
    intervals = tables.uncertainty.set_index(["dataset", "method"])
    rows = []
    for _, row in main.frame.iterrows():
        method, cells = row[("", "method")], []
        for group in groups:
            measured, published = row[(group, "top-1")], row[(group, PAPER)]
            interval = intervals.loc[(group, method)] if (group, method) in intervals.index else None
            known = isinstance(measured, Measured)
            cells.append(
                {
                    "text": measured.text if isinstance(measured, Measured | Noted) else "–",
                    "note": getattr(measured, "note", ""),
                    "value": measured.mean if known else "",
                    "look": "failed" if isinstance(measured, Noted) else "best" if known and measured.best else "",
                    "interval": "" if interval is None or pd.isna(interval["low"]) else _ends(interval),
                    "published": None if pd.isna(published) else published,
                }
            )
        rows.append({"method": method, "cells": cells})
    return {"groups": groups, "rows": rows}


def _ends(interval: pd.Series) -> str:
    return f"{interval['low']:.1f}–{interval['high']:.1f}"


def _figure(config: Config, tables: LongTables) -> Markup:
    """The picture as inline SVG."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": config.name}):
        buffer = io.StringIO()
        accuracy_against_parameters(config, tables).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])


def _study(config: Config, paths: Paths, dataset: str, method: str) -> dict[str, Any]:
    """One sweep: its budget and what it chose."""
    path = paths.choice(dataset, method)
    choice = load_choice(path, config, dataset, method)
    values = sorted((trial.value for trial in choice.trials if trial.value is not None), reverse=True)
    return {
        "dataset": dataset,
        "method": method,
        "link": path.relative_to(paths.results).as_posix(),
        "chosen": choice.hyperparameters,
        "reason": choice.reason,
        "value": choice.value,
        "spread": f"{values[-1]:.1f}–{values[0]:.1f}" if values else "–",
        "summary": choice.summary(),
        "trial": choice.trial,
        "seconds": choice.run.seconds,
        "run_id": choice.run.sweep_run_id,
    }


def _run(paths: Paths, record: Record) -> dict[str, Any]:
    """One record: its numbers and what leads back to it."""
    path = paths.record(record.dataset, record.method, record.seed)
    return {
        "record": record,
        "link": path.relative_to(paths.results).as_posix(),
        "validation": [epoch.val_top1 for epoch in record.curves if math.isfinite(epoch.val_top1)],
    }


def _versions(records: dict[tuple[str, str, int], Record]) -> list[tuple[str, str]]:
    """Package versions over all records, several where they differ."""
    seen: dict[str, set[str]] = {}
    for record in records.values():
        for name, version in record.versions.items():
            seen.setdefault(name, set()).add(version)
    return [(name, ", ".join(sorted(versions))) for name, versions in sorted(seen.items())]
