"""Disk and memory of a config: what is there already, what is known by arithmetic, and None where neither says it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssp.config import Config, Dataset
from ssp.data.synthetic.encode import AVI, PIXELS, WEBM
from ssp.paths import Paths
from ssp.plan import work
from ssp.plan.measured import frames
from ssp.plan.rows import Rows, base_row

FRAME_BYTES, FRAME_PIXELS = 19_460, 320 * 240  # of a JPEG of quality 95; benchmarks/jpeg_quality.py
LOGIT, FLOAT = 4, 4  # bytes


@dataclass(frozen=True)
class Disk:
    """Bytes of one data set's files; None: not known before they are there."""

    archives: int | None
    frames: int | None


def disk(config: Config, column: str) -> Disk:
    """Disk of what one of `Config.archived` is fetched and decoded into; unpacked videos take about their archives."""
    members = config.columns[column]
    stores = [_frames(config, member) for member in members]
    return Disk(_archives(config, column), None if None in stores else sum(stores))


def results_bytes(config: Config, rows: Rows) -> int:
    """Tuned weights and predictions of all runs, the most of a folder of results."""
    found = 0
    for dataset, row, _ in config.runs():
        facts, clips = rows.facts[base_row(rows.config, row)], work.run(config, dataset, frozen=False)
        expected = config.datasets[dataset].expected
        classes = expected.classes if expected else 0
        found += FLOAT * (facts.tuned + facts.head) + LOGIT * classes * int(clips.tested)
    return found


def states_bytes(config: Config, rows: Rows) -> int:
    """The least memory of a training: weights, and gradients and two moments of what trains."""
    return max(FLOAT * (facts.total + 3 * (facts.tuned + facts.head)) for facts in rows.facts.values())


def _archives(config: Config, column: str) -> int | None:
    dataset = config.archived[column]
    if not dataset.archives:
        return 0
    places = [folder for folder in (Paths.of(config).archives(column), dataset.local) if folder]
    sizes = [archive.size or _there(archive.file, places) for archive in dataset.archives]
    if None not in sizes:
        return sum(sizes)
    return _generated(dataset) if dataset.generate else None


def _there(file: str, places: list[Path]) -> int | None:
    return next((path.stat().st_size for folder in places if (path := folder / file).is_file()), None)


def _generated(dataset: Dataset) -> int:
    """Between the smallest and the largest files that the encoder makes."""
    made, form = dataset.generate, WEBM if dataset.source == "ssv2" else AVI
    width, height = made.size
    each = sum(made.seconds) / 2 * made.fps * sum(form.frame_bytes) / 2 * width * height / PIXELS
    return round((made.train + made.test) * (form.overhead + each))


def _frames(config: Config, dataset: str) -> int | None:
    """The frame store: what is there, else frames times what a JPEG of 320 x 240 takes, in proportion to pixels."""
    settings = config.datasets[dataset]
    shards = [Paths.of(config).shard(dataset, shard) for shard in range(settings.frames.shards)]
    if all(shard.is_file() for shard in shards):
        return sum(shard.stat().st_size for shard in shards)
    found = frames(config, dataset)
    if found is None:
        return None
    pixels = settings.generate.size[0] * settings.generate.size[1] if settings.generate else FRAME_PIXELS
    if settings.frames.short_side and settings.generate is None:
        pixels = min(pixels, round(settings.frames.short_side**2 * 4 / 3))
    return round(found * FRAME_BYTES * pixels / FRAME_PIXELS)
