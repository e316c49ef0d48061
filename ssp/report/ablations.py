"""Section: ablations, each with its table and, where it varies a number, its curve; only where the config has some."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ssp.report.images import data_uri
from ssp.report.results import Results
from ssp.tables.ablations import lay_out_ablation, read_ablation
from ssp.tables.markup import plain_cell


def content(results: Results) -> dict[str, Any] | None:
    """For each ablation its title, caption, columns, rows of texts, notes, and the curve as an address."""
    names = results.config.ablations
    return {"ablations": [_ablation(results, name) for name in names]} if names else None


def _ablation(results: Results, name: str) -> dict[str, Any]:
    layout = lay_out_ablation(results.config, name, read_ablation(results.config, name))
    return {
        "name": name,
        "title": results.config.ablations[name].title,
        "caption": layout.caption,
        "columns": [" ".join(filter(None, column)) for column in layout.table.columns],
        "rows": [[plain_cell(value) for value in row] for row in layout.table.itertuples(index=False)],
        "notes": layout.notes,
        "curve": _curve(results, name),
    }


def _curve(results: Results, name: str) -> str | None:
    if results.config.curve_axis(name) is None:
        return None
    png = next(path for path in results.paths.ablation_curves(name) if path.suffix == ".png")
    with Image.open(png) as image:
        return data_uri(image.convert("RGB"), "WEBP", lossless=True)
