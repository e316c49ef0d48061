"""Section: mistakes. Test videos that all rows miss, and those that the reference row alone gets, as film strips.

Design choices
- A row gets a video where more than half of its seeds name it right, and misses it where fewer than half do. "All miss"
  is stricter: no seed of any row is right. "Alone" means that every other row misses it.
- Which videos are shown is a rule, so that nobody picks what looks good: the first `SHOWN` by id that all miss; those
  of the reference by how many of its seeds are right, then by id.
- The frames are those of the middle temporal view at test, from the frame store, before cropping; of a long clip every
  second or third, so that a strip has at most eight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ssp.config import Clips
from ssp.data.frames import FrameStore
from ssp.data.sampling import test_indices
from ssp.records.predictions import merged_ids
from ssp.report.images import data_uri
from ssp.report.results import Results, anchor
from ssp.tables.cells import CellResult

FRAMES = 8  # of a strip
HEIGHT = 96  # pixels of a frame that is larger
SHOWN = 3  # videos of a kind


def content(results: Results) -> dict[str, Any]:
    """For each data set how many videos are missed by whom, and strips of them; no strips without the data."""
    reference = results.config.rows[results.config.reference_row].title
    datasets = [_dataset(results, dataset) for dataset in results.config.datasets]
    return {"datasets": datasets, "reference": reference, "many": len(results.config.methods) > 1}


def _dataset(results: Results, dataset: str) -> dict[str, Any]:
    cells = [cell for cell in results.of(dataset) if cell.videos]
    right = shares(cells)
    rows = [
        results.row(row) | alone(right, row) | {"link": f"#{anchor(dataset, row)}"}
        for row in right.columns
        if len(right.columns) > 1
    ]
    missed, own = missed_by_all(right), only(right, results.config.reference_row)
    found = {"videos": len(right), "missed": len(missed), "rows": rows, "own": len(own)}
    videos = results.test_videos(dataset)
    if videos is None:
        return results.data(dataset) | found | {"kinds": None}
    kinds = [
        {"name": name, "strips": [_strip(results, dataset, cells, videos, video) for video in picked[:SHOWN]]}
        for name, picked in (("missed by all", missed), ("own", own))
    ]
    return results.data(dataset) | found | {"kinds": kinds}


def shares(cells: list[CellResult]) -> pd.DataFrame:
    """The share of a row's seeds that name a video right: videos by id, a column for each row."""
    found = {}
    for cell in cells:
        hits = [videos.set_index("id")["rank"] == 0 for videos in cell.videos.values()]
        found[cell.method] = pd.concat(hits, axis=1).mean(axis=1)
    return pd.DataFrame(found).sort_index()


def missed_by_all(right: pd.DataFrame) -> list[str]:
    """Videos that no seed of any row names right."""
    return [] if right.empty else [*right.index[(right == 0).all(axis=1)]]


def only(right: pd.DataFrame, row: str) -> list[str]:
    """Videos that one row gets and every other misses, those first that more of its seeds get."""
    if row not in right or len(right.columns) < 2:
        return []
    others = right.drop(columns=row)
    own = right.loc[(right[row] > 0.5) & (others < 0.5).all(axis=1), row]
    return [*own.sort_values(ascending=False, kind="stable").index]


def alone(right: pd.DataFrame, row: str) -> dict[str, int]:
    """How many videos a row alone gets, and how many it alone misses."""
    others = right.drop(columns=row)
    misses = (right[row] < 0.5) & (others > 0.5).all(axis=1)
    return {"gets": len(only(right, row)), "misses": int(misses.sum())}


def _strip(
    results: Results, dataset: str, cells: list[CellResult], videos: tuple[pd.DataFrame, FrameStore], video: str
) -> dict[str, Any]:
    """A video as its frames, and what every row named it."""
    rows, store = videos
    rows = rows.assign(name=merged_ids(rows["id"], results.config.quirk("merge_ids")))
    row = rows.drop_duplicates("name").set_index("name").loc[video]
    frames, shown = _frames(store, int(row["row"]), results.config.datasets[dataset].clips)
    return {
        "video": video,
        "name": results.names[dataset][int(row["label"])],
        "frames": frames,
        "shown": shown,
        "answers": [_answers(results, cell, video) for cell in cells],
    }


def _frames(store: FrameStore, row: int, clips: Clips) -> tuple[list[str], list[int]]:
    """Frames of the middle view as addresses, and their numbers."""
    indices = test_indices(store.length(row), clips, clips.test_segments // 2)
    indices = indices[np.linspace(0, len(indices) - 1, min(len(indices), FRAMES)).round().astype(int)]
    addresses = []
    for frame in store.read(row, indices.tolist()):
        image = Image.fromarray(frame)
        if image.height > HEIGHT:
            image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)
        addresses.append(data_uri(image, "WEBP", quality=85))
    return addresses, indices.tolist()


def _answers(results: Results, cell: CellResult, video: str) -> dict[str, Any]:
    """What the seeds of a method named a video: each answer once, with its seeds."""
    said: dict[int, list[int]] = {}
    label = -1
    for seed, videos in cell.videos.items():
        row = videos.set_index("id").loc[video]
        label = int(row["label"])
        said.setdefault(int(row["predicted"]), []).append(seed)
    names = results.names[cell.dataset]
    return results.row(cell.method) | {
        "anchor": anchor(cell.dataset, cell.method),
        "given": [
            {
                "name": names[predicted],
                "right": predicted == label,
                "seeds": "" if len(said) == 1 else f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
            }
            for predicted, seeds in said.items()
        ],
    }
