"""Section: training and validation curves of every run; panels of a data set share their axes."""

from __future__ import annotations

import math
from typing import Any

from ssp.report import svg
from ssp.report.results import Results, anchor
from ssp.tables.cells import CellResult


def content(results: Results) -> dict[str, Any]:
    """For each data set one panel per method: measured accuracy above, where there is any, losses below."""
    datasets = [{"name": dataset, "panels": _panels(results, dataset)} for dataset in results.config.datasets]
    return {"datasets": datasets, "measured_on": _measured_on(results)}


def _measured_on(results: Results) -> str | None:
    """The list that each epoch was measured on, if any."""
    if results.config.quirk("best_epoch") == "published":
        return "test"
    return None if results.config.refit else "validation"


def _panels(results: Results, dataset: str) -> list[dict[str, Any]]:
    cells = results.of(dataset)
    epochs = [epoch for cell in cells for record in cell.records.values() for epoch in record.curves]
    losses = [loss for epoch in epochs for loss in (epoch.train_loss, epoch.val_loss) if loss is not None]
    losses = [loss for loss in losses if math.isfinite(loss)]
    validated = any(epoch.val_top1 is not None for epoch in epochs)
    points = max((epoch.epoch for epoch in epochs), default=1)
    top = max(losses, default=1.0)
    return [
        {
            "method": cell.method,
            "anchor": anchor(dataset, cell.method),
            "accuracy": svg.lines(_accuracies(results, cell), points, 0, 100) if validated else "",
            "loss": svg.lines(_losses(results, cell), points, 0, top, height=70, form=".1f"),
            "reasons": [f"seed {seed}: {reason}" for seed, reason in cell.reasons.items()],
        }
        for cell in cells
    ]


def _accuracies(results: Results, cell: CellResult) -> list[svg.Line]:
    colour, on = results.colour(cell.method), _measured_on(results)
    drawn = []
    for seed, record in cell.records.items():
        values = [epoch.val_top1 for epoch in record.curves if epoch.val_top1 is not None]
        drawn.append(svg.Line(values, colour, f"seed {seed}, {on} top-1 in percent: {_told(values, '.1f')}"))
    return drawn


def _losses(results: Results, cell: CellResult) -> list[svg.Line]:
    colour, on = results.colour(cell.method), _measured_on(results)
    drawn = []
    for seed, record in cell.records.items():
        train = [epoch.train_loss for epoch in record.curves]
        measured = [epoch.val_loss for epoch in record.curves if epoch.val_loss is not None]
        drawn.append(svg.Line(train, colour, f"seed {seed}, training loss: {_told(train)}", dashed=True))
        drawn.append(svg.Line(measured, colour, f"seed {seed}, {on} loss: {_told(measured)}"))
    return drawn


def _told(values: list[float], form: str = ".3f") -> str:
    return ", ".join(f"{value:{form}}" for value in values)
