"""Section: accuracy of every class, and which classes are taken for which. Seeds are pooled: each is a row of counts.

Design choices
- A confusion matrix is a tiny picture (one pixel per pair of classes, enlarged by the browser), so that 174 classes
  take kilobytes; where classes are few the shares stand in it as text.
- Colour says the share of a row: blue on the diagonal (right), orange beside it (wrong), transparent where nothing is,
  so that it reads on a light and on a dark page.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from ssp.report.images import data_uri
from ssp.report.results import Results, anchor
from ssp.tables.cells import CellResult

TEXT_UP_TO = 12  # classes of a matrix that holds its shares as text
OPEN_UP_TO = 20  # classes of a table that is shown without asking for it
CONFUSIONS = 3  # most frequent ones that are named
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
PIXELS = 24  # of a class in a matrix's own coordinates


def content(results: Results) -> dict[str, Any]:
    """For each data set: rows of classes with each method's accuracy, and a confusion matrix for each method."""
    return {"datasets": [_dataset(results, dataset) for dataset in results.config.datasets]}


def _dataset(results: Results, dataset: str) -> dict[str, Any]:
    names, cells = results.names[dataset], results.of(dataset)
    matrices = {cell.method: confusion(cell, len(names)) for cell in cells}
    videos = next((matrix.sum(axis=1) // len(cell.videos) for cell, matrix in _tested(cells, matrices)), None)
    rows = []
    for label, name in names.items():
        accuracies = [_share(matrices[cell.method][label], label) for cell in cells]
        rows.append({"label": label, "name": name, "accuracies": accuracies, "videos": _count(videos, label)})
    return {
        **results.data(dataset),
        "open": len(names) <= OPEN_UP_TO,
        "methods": [results.row(cell.method) for cell in cells],
        "rows": rows,
        "panels": [
            results.row(cell.method)
            | {
                "anchor": anchor(dataset, cell.method),
                "seeds": ", ".join(map(str, cell.videos)),
                "picture": picture(matrix, names),
                "mistakes": _mistakes(matrix, names),
            }
            for cell, matrix in _tested(cells, matrices)
        ],
    }


def _tested(cells: list[CellResult], matrices: dict[str, np.ndarray]) -> list[tuple[CellResult, np.ndarray]]:
    """Cells that have predictions."""
    return [(cell, matrices[cell.method]) for cell in cells if cell.videos]


def confusion(cell: CellResult, classes: int) -> np.ndarray:
    """Counts (classes, classes) over all seeds of a cell: rows are true classes, columns what was predicted."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for videos in cell.videos.values():
        np.add.at(counts, (videos["label"].to_numpy(), videos["predicted"].to_numpy()), 1)
    return counts


def _share(row: np.ndarray, label: int) -> float | None:
    """Percent of a class's videos that were named right; None where it has none."""
    return 100 * float(row[label] / row.sum()) if row.sum() else None


def _count(videos: np.ndarray | None, label: int) -> int | None:
    return None if videos is None else int(videos[label])


def _mistakes(matrix: np.ndarray, names: dict[int, str]) -> list[dict[str, Any]]:
    """The pairs (true, predicted) that were confused most often."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    return [
        {"true": names[t], "predicted": names[p], "share": 100 * wrong[t, p] / matrix[t].sum()}
        for t, p in pairs
        if wrong[t, p]
    ]


def picture(matrix: np.ndarray, names: dict[int, str]) -> Markup:
    """A confusion matrix as inline SVG around a PNG of one pixel per pair."""
    n, sums = len(matrix), matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, sums, out=np.zeros(matrix.shape), where=sums > 0)
    pixels = np.empty((n, n, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(n, dtype=bool)[..., None], RIGHT, WRONG)
    # The root lifts small shares above the page's colour; few levels keep the file small.
    pixels[..., 3] = 17 * np.round(15 * np.sqrt(shares))
    side, edge = n * PIXELS, 1.2 * PIXELS
    parts = [
        f'<image href="{data_uri(Image.fromarray(pixels), "PNG")}" x="0" y="0" width="{side}" height="{side}" '
        f'preserveAspectRatio="none"/><rect class="frame" x="0" y="0" width="{side}" height="{side}"/>'
    ]
    if n <= TEXT_UP_TO:
        for i in range(n):
            middle = (i + 0.5) * PIXELS
            name = f"<title>{escape(names[i])}</title>"
            parts.append(f'<text x="{-0.3 * PIXELS}" y="{middle}" text-anchor="end">{i}{name}</text>')
            parts.append(f'<text x="{middle}" y="{-0.5 * PIXELS}" text-anchor="middle">{i}{name}</text>')
        for (true, predicted), share in np.ndenumerate(shares):
            if share:
                at = f'x="{(predicted + 0.5) * PIXELS}" y="{(true + 0.5) * PIXELS}"'
                told = f"<title>{escape(names[true])} named {escape(names[predicted])}: {100 * share:.1f} %</title>"
                parts.append(f'<text {at} text-anchor="middle" class="share">{100 * share:.0f}{told}</text>')
    box = f"{-edge} {-edge} {side + edge + 1} {side + edge + 1}"
    told = f"Confusion matrix of {n} classes, in percent of each row"
    return Markup(f'<svg class="matrix" viewBox="{box}" role="img" aria-label="{told}">{"".join(parts)}</svg>')
