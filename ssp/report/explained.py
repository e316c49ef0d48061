"""Section: what State Space Prompting attends to in test videos, one picture per data set; only where SSP was run.

The pictures are those of the workflow's rule `explain`: looking into a model takes torch, which the page does without.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from ssp.records.explained import Explained, ExplainedClip, explained_datasets, load_explained
from ssp.report.images import data_uri
from ssp.report.results import Results, anchor


def content(results: Results) -> dict[str, Any] | None:
    """For each data set the picture as an address with its caption, or why there is none; None where none is drawn."""
    datasets = explained_datasets(results.config)
    if not datasets:
        return None
    return {
        "method": results.config.rows[results.config.explained].title,
        "seed": results.config.seeds[0],
        "command": _command(results, datasets[0]),
        "datasets": [_dataset(results, dataset) for dataset in datasets],
    }


def _command(results: Results, dataset: str) -> list[str]:
    """What draws the same for any video; in parts that are not broken between lines."""
    options = f"--config {results.paths.config}", f"--dataset {dataset}", f"--method {results.config.explained}"
    return ["python -m ssp predict VIDEO", *options, f"--seed {results.config.seeds[0]}", "--explain OUT.png"]


def _dataset(results: Results, dataset: str) -> dict[str, Any]:
    cell = next(cell for cell in results.of(dataset) if cell.method == results.config.explained)
    record = cell.records[results.config.seeds[0]]
    explained, picture = load_explained(results.config, record)
    about: dict[str, Any] = results.data(dataset) | {"name": dataset, "reason": record.reason}
    about["anchor"] = anchor(dataset, cell.method)
    if not picture:
        return about | {"picture": None}
    with Image.open(io.BytesIO(picture)) as image:
        pixels = image.convert("RGB")
    # The same pixels in half of PNG's bytes, unless frames are such that these are many: a page has its limits.
    address = min(data_uri(pixels, "WEBP", lossless=True), data_uri(pixels, "WEBP", quality=90), key=len)
    return about | {"picture": address, "clips": explained.clips, "told": _told(explained)}


def _told(explained: Explained) -> str:
    """The picture in words, for who cannot see it."""
    clips = "; ".join(map(_told_of, explained.clips))
    return f"Film strips with the prompts' strength over each frame, and charts of gate, attention and layers. {clips}."


def _told_of(clip: ExplainedClip) -> str:
    equal, (low, high) = 1 / len(clip.gate), clip.strength
    strongest = max(range(len(clip.gate)), key=clip.gate.__getitem__)
    more = 100 * (clip.gate[strongest] / equal - 1)
    return (
        f"{clip.name}: prompts {low:.2g} to {high:.2g} times as large as what they are added to, the gate gives most, "
        f"{more:.2g} % above an equal share, to frame {strongest + 1} of {len(clip.gate)}"
    )
