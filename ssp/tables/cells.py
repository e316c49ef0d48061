"""The cells of a config, read from its result records and checked against it.

Design choices
- Only the cells of this config: records of methods, data sets or seeds that it does not name are left alone.
- A missing record is an error, because a table with a silent hole is worse than none; the message is the command that
  makes it. A record of another config (changed options, budget, data) is an error too: its number answers another
  question. A failed cell is a result and stays.
- Trust is checked: predictions must be the very file that the record names, and the record's hits must follow from it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd
from rich.console import Console
from rich.progress import track

from ssp.config import Config, slice_hash, slice_lines
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.predictions import merge_views, metrics, recorded_predictions
from ssp.records.record import Record, load_record
from ssp.tables.stats import drawn_units


@dataclass(frozen=True)
class CellResult:
    """All seeds of one row on one data set."""

    dataset: str
    method: str
    records: dict[int, Record]
    videos: dict[int, pd.DataFrame]
    """Merged predictions of the seeds that did not fail."""
    studies: int = 1
    """How many chose the hyper-parameters."""

    @property
    def status(self) -> str:
        """All seeds "ok", all "failed", or "partial"."""
        if len(self.videos) == len(self.records):
            return "ok"
        return "partial" if self.videos else "failed"

    @property
    def accuracies(self) -> list[float]:
        """Top-1 in percent of each seed, or of each study as the mean of its seeds; failed seeds left out."""
        units = drawn_units(self.videos, self.studies)
        return [fmean(self.records[seed].metrics.top1 for seed in unit) for unit in units]

    @property
    def reasons(self) -> dict[int, str]:
        """Why seeds failed."""
        return {seed: record.reason for seed, record in self.records.items() if record.status == "failed"}


def collect_cells(config: Config) -> list[CellResult]:
    """The cells of the tables, data set by data set, rows in the config's order.

    Raises:
        RecordError: as `read_cells`.
    """
    return read_cells(config, list(config.datasets), list(config.methods), config.seeds)


def read_cells(config: Config, datasets: Sequence[str], rows: Sequence[str], seeds: Sequence[int]) -> list[CellResult]:
    """Cells of a config, data set by data set.

    Raises:
        RecordError: a record is missing, broken, or of another config; or predictions contradict their record.
    """
    names = [(dataset, row) for dataset in datasets for row in rows]
    console = Console(stderr=True)
    quiet = not sys.stderr.isatty()
    cells = [
        _read_cell(config, dataset, row, seeds)
        for dataset, row in track(names, "Reading records", console=console, disable=quiet, transient=True)
    ]
    _same_origin(cells, config)
    return cells


def _read_cell(config: Config, dataset: str, method: str, seeds: Sequence[int]) -> CellResult:
    paths = Paths.of(config)
    records, videos = {}, {}
    for seed in seeds:
        path = paths.record(dataset, method, seed)
        again = f"python -m ssp train --config {paths.config} --dataset {dataset} --method {method} --seed {seed}"
        if not path.is_file():
            raise RecordError(f"{path}: missing; make it with: {again}")
        record = load_record(path)
        if (record.dataset, record.method, record.seed) != (dataset, method, seed):
            raise RecordError(f"{path}: holds {record.dataset}/{record.method}/seed{record.seed}; run again: {again}")
        if record.config_hash != slice_hash(config.cell_slice(dataset, method)):
            changed = _first_change(record.config, config.cell_slice(dataset, method))
            raise RecordError(f"{path}: stale, made with another config ({changed}); run again: {again}")
        records[seed] = record
        if record.status == "ok":
            videos[seed] = _read_videos(paths.predictions(dataset, method, seed), record, config, again)
    return CellResult(dataset, method, records, videos, config.sweep.repeats)


def _read_videos(path: Path, record: Record, config: Config, again: str) -> pd.DataFrame:
    """Merged predictions of a record, proven to be its own."""
    predictions = recorded_predictions(path, record.predictions.sha256, f"run again: {again}")
    try:
        videos = merge_views(predictions, config.quirk("merge_ids"))
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    found = metrics(videos)
    if (found["correct"], found["videos"]) != (record.metrics.correct, record.metrics.videos):
        raise RecordError(
            f"{path}: {found['correct']} of {found['videos']} videos are right, but the record says "
            f"{record.metrics.correct} of {record.metrics.videos}; run again: {again}"
        )
    return videos


def _first_change(old: dict, new: dict) -> str:
    """The first line in which two slices differ."""
    before, after = set(slice_lines(old)), set(slice_lines(new))
    gone, come = sorted(before - after), sorted(after - before)
    if not gone and not come:
        return "its own hash does not match"
    return "; ".join([f"was {line}" for line in gone[:1]] + [f"now {line}" for line in come[:1]])


def _same_origin(cells: list[CellResult], config: Config) -> None:
    """A data set has one manifest and a checkpoint one file in all records, or methods would not be comparable."""
    first: dict[tuple[str, str], tuple[str | None, Path]] = {}
    for cell in cells:
        for seed, record in cell.records.items():
            path = Paths.of(config).record(cell.dataset, cell.method, seed)
            for what, name, found in (
                ("manifest", cell.dataset, record.manifest_hash),
                ("file of the backbone", config.datasets[cell.dataset].checkpoint, record.backbone_hash),
            ):
                if found is None:
                    continue
                known, other = first.setdefault((what, name), (found, path))
                if found != known:
                    raise RecordError(
                        f"{path}: made from another {what} than {other}; delete the older one and run it again"
                    )
