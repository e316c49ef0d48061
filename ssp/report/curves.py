"""Section: training and validation curves of every run; panels of a data set share their axes."""

from __future__ import annotations

from typing import Any

from ssp.figures.style import look
from ssp.report import svg
from ssp.report.results import Results, anchor
from ssp.tables.cells import CellResult

OPEN_UP_TO = 8  # panels of a data set that are shown without asking for them


def content(results: Results) -> dict[str, Any]:
    """For each data set one panel per method: measured accuracy above, where there is any, losses below."""
    datasets = [results.data(name) | {"panels": _panels(results, name)} for name in results.config.datasets]
    return {"datasets": datasets, "measured_on": _measured_on(results), "open": OPEN_UP_TO}


def _measured_on(results: Results) -> str | None:
    """The list that each epoch was measured on, if any."""
    if results.config.quirk("best_epoch") == "published":
        return "test"
    return None if results.config.refit else "validation"


def _panels(results: Results, dataset: str) -> list[dict[str, Any]]:
    cells = results.of(dataset)
    epochs = [epoch for cell in cells for record in cell.records.values() for epoch in record.curves]
    accuracies = [epoch.val_top1 for epoch in epochs if epoch.val_top1 is not None]
    losses = [loss for epoch in epochs for loss in (epoch.train_loss, epoch.val_loss) if loss is not None]
    x = svg.whole(max((epoch.epoch for epoch in epochs), default=1), "epoch")
    accuracy = svg.linear(accuracies, f"{_measured_on(results)} top-1 (%)", least=5, ends=(0, 100))
    loss = svg.linear(losses, "loss", least=0.1, ends=(0, float("inf")))
    return [
        results.row(cell.method)
        | {
            "anchor": anchor(dataset, cell.method),
            "accuracy": svg.lines(_accuracies(results, cell), x, accuracy) if accuracies else "",
            "loss": svg.lines(_losses(results, cell), x, loss) if losses else "",
            "reasons": [f"seed {seed}: {reason}" for seed, reason in cell.reasons.items()],
        }
        for cell in cells
    ]


def _accuracies(results: Results, cell: CellResult) -> list[svg.Line]:
    colour, on = f"c{look(cell.method).colour}", _measured_on(results)
    drawn = []
    for seed, record in cell.records.items():
        values = [(epoch.epoch, epoch.val_top1) for epoch in record.curves if epoch.val_top1 is not None]
        drawn.append(svg.Line(values, colour, f"seed {seed}, {on} top-1 in percent: {_told(values, '.1f')}"))
    return drawn


def _losses(results: Results, cell: CellResult) -> list[svg.Line]:
    colour, on = f"c{look(cell.method).colour}", _measured_on(results)
    drawn = []
    for seed, record in cell.records.items():
        train = [(epoch.epoch, epoch.train_loss) for epoch in record.curves]
        measured = [(epoch.epoch, epoch.val_loss) for epoch in record.curves if epoch.val_loss is not None]
        drawn.append(svg.Line(train, colour, f"seed {seed}, training loss: {_told(train)}", dashed=True))
        drawn.append(svg.Line(measured, colour, f"seed {seed}, {on} loss: {_told(measured)}"))
    return drawn


def _told(points: list[tuple[int, float]], form: str = ".3f") -> str:
    return ", ".join(f"{value:{form}}" for _, value in points)
