"""Section: test videos as film strips, as the models saw them, with what every method named them.

Design choices
- Three videos of a data set, by how many of its runs name them right: the most, about half, the fewest; of equals the
  first by id. A rule, so that nobody picks what looks good.
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


def content(results: Results) -> dict[str, Any]:
    """For each data set its strips: title, frames as addresses, answers of each method; None without the data."""
    return {"datasets": [_dataset(results, dataset) for dataset in results.config.datasets]}


def _dataset(results: Results, dataset: str) -> dict[str, Any]:
    cells, names, videos = results.of(dataset), results.names[dataset], results.test_videos(dataset)
    if videos is None:
        return {"name": dataset, "strips": None}
    rows, store = videos
    rows = rows.assign(name=merged_ids(rows["id"], results.config.quirk("merge_ids")))
    rows = rows.drop_duplicates("name").set_index("name")
    strips = []
    for title, video in chosen(cells):
        row = rows.loc[video]
        frames, shown = _frames(store, int(row["row"]), results.config.datasets[dataset].clips)
        strips.append(
            {
                "title": title,
                "video": video,
                "name": names[int(row["label"])],
                "frames": frames,
                "shown": shown,
                "answers": [_answers(results, cell, video) for cell in cells if cell.videos],
            }
        )
    return {"name": dataset, "strips": strips}


def chosen(cells: list[CellResult]) -> list[tuple[str, str]]:
    """(why, id) of the videos to show; fewer than three where runs do not differ, none where all failed."""
    runs = [videos.set_index("id")["rank"] == 0 for cell in cells for videos in cell.videos.values()]
    if not runs:
        return []
    right = pd.concat(runs, axis=1).sum(axis=1).astype(int).sort_index()
    picked: dict[str, str] = {}
    for video in (right.idxmax(), (right - len(runs) / 2).abs().idxmin(), right.idxmin()):
        picked.setdefault(video, f"{right[video]} of {len(runs)} runs right")
    return [(why, video) for video, why in picked.items()]


def _frames(store: FrameStore, row: int, clips: Clips) -> tuple[list[str], list[int]]:
    """Frames of the middle view as addresses, and their numbers."""
    indices = test_indices(store.length(row), clips, clips.test_segments // 2)
    indices = indices[np.linspace(0, len(indices) - 1, min(len(indices), FRAMES)).round().astype(int)]
    addresses = []
    for frame in store.read(row, indices.tolist()):
        image = Image.fromarray(frame)
        if image.height > HEIGHT:
            image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)
        addresses.append(data_uri(image, "JPEG", quality=85))
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
    return {
        "method": cell.method,
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
