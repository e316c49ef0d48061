"""The cells of a config, read from its result records and checked against it.

Design choices
- Only the cells of this config: records of methods, data sets or seeds that it does not name are left alone.
- A missing record is an error, because a table with a silent hole is worse than none; the message is the command that
  makes it. A record of another config (changed options, budget, data) is an error too: its number answers another
  question. A failed cell is a result and stays.
- Trust is checked: predictions must be the very file that the record has sealed, and its hits must follow from them.
- A data set of several splits is one cell of the tables, made of a cell for each split.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import pandas as pd
from rich.console import Console
from rich.progress import track

from ssp.config import Config
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.predictions import merge_views, metrics
from ssp.records.record import Parameters, Record
from ssp.records.runs import read_run, train_again
from ssp.tables import stats

NOT_YET = "no result yet"


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
        """All seeds "ok", all "failed", all "missing" (`read_partly`), or "partial"."""
        if len(self.videos) == len(self.records):
            return "ok"
        if self.videos:
            return "partial"
        return "missing" if set(self.reasons.values()) == {NOT_YET} else "failed"

    @property
    def n_seeds(self) -> int:
        """Seeds that did not fail."""
        return len(self.videos)

    @property
    def accuracies(self) -> list[float]:
        """Top-1 in percent of each seed, or of each study as the mean of its seeds; failed seeds left out."""
        units = stats.drawn_units(self.videos, self.studies)
        return [fmean(self.records[seed].metrics.top1 for seed in unit) for unit in units]

    @cached_property
    def tally(self) -> stats.Tally | None:
        """Hits by seed and group; None where all seeds failed."""
        return stats.tally(self.videos, self.studies) if self.videos else None

    @property
    def parameters(self) -> Parameters | None:
        """Parameter counts; None where no seed came as far as building the model.

        Raises:
            RecordError: seeds differ.
        """
        known = {record.parameters for record in self.records.values() if record.parameters}
        if len(known) > 1:
            raise RecordError(f"{self.dataset}/{self.method}: seeds differ in parameter counts; run the cell again")
        return next(iter(known), None)

    @property
    def splits(self) -> list[CellResult]:
        """The cells that it is made of: itself."""
        return [self]

    @property
    def read_before(self) -> int:
        """How often test had been read from other choices before this one, over all seeds."""
        return sum(record.read_before for record in self.records.values())

    @property
    def reasons(self) -> dict[int, str]:
        """Why seeds failed."""
        return {seed: record.reason for seed, record in self.records.items() if record.status == "failed"}


@dataclass(frozen=True)
class SplitsResult:
    """One row on a data set of several splits: their mean, seed by seed."""

    dataset: str
    """The column of the tables."""
    method: str
    splits: list[CellResult]

    @property
    def status(self) -> str:
        """All trainings "ok", "failed" where every seed failed on a split, or "partial"."""
        if not self.n_seeds:
            return "failed"
        return "ok" if all(cell.status == "ok" for cell in self.splits) else "partial"

    @property
    def _seeds(self) -> list[int]:
        """Seeds that failed on no split."""
        first, *others = self.splits
        return [seed for seed in first.videos if all(seed in other.videos for other in others)]

    @property
    def n_seeds(self) -> int:
        """How many of these there are."""
        return len(self._seeds)

    @property
    def accuracies(self) -> list[float]:
        """Mean top-1 in percent over the splits, of each seed or study, as `CellResult`."""
        units = stats.drawn_units(self._seeds, self.splits[0].studies)
        return [fmean(cell.records[seed].metrics.top1 for cell in self.splits for seed in unit) for unit in units]

    @cached_property
    def tally(self) -> stats.Tally | None:
        """Hits by seed and group, each split of equal weight; None where every seed failed somewhere."""
        return stats.pooled([cell.tally for cell in self.splits]) if self.n_seeds else None

    @property
    def read_before(self) -> int:
        """How often test had been read from other choices before these, over all splits and seeds."""
        return sum(cell.read_before for cell in self.splits)

    @property
    def parameters(self) -> Parameters | None:
        """Parameter counts, as `CellResult`; classes are the same in all splits."""
        return next((cell.parameters for cell in self.splits if cell.parameters), None)


TableCell = CellResult | SplitsResult


def read_tested(config: Config, dataset: str, method: str, seed: int) -> tuple[Record, pd.DataFrame | None]:
    """A record of this config and its merged predictions, from which its metrics follow; None where the run failed.

    Raises:
        RecordError: it is missing, broken, or of another config; or predictions contradict it.
    """
    record, predictions = read_run(config, dataset, method, seed)
    return record, None if record.status == "failed" else _merged(config, record, predictions)


def read_partly(config: Config, dataset: str, method: str, seed: int) -> tuple[Record, pd.DataFrame | None]:
    """`read_tested`; where there is no record yet, a stand-in for that of a failed run, which says so.

    Raises:
        RecordError: as `read_tested`, but for a record that is missing.
    """
    if Paths.of(config).record(dataset, method, seed).exists():
        return read_tested(config, dataset, method, seed)
    place = {"dataset": dataset, "method": method, "seed": seed}
    nothing = dict.fromkeys(("hyperparameters", "manifest_hash", "backbone_hash"))
    return Record.model_construct(status="failed", reason=NOT_YET, **place, **nothing), None


Reader = Callable[[str, str, int], tuple[Record, pd.DataFrame | None]]
"""`read_tested` of a config."""


def collect_cells(config: Config, read: Reader | None = None) -> list[TableCell]:
    """The cells of the tables, column by column, rows in the config's order.

    Raises:
        RecordError: as `read_cells`.
    """
    return read_cells(config, list(config.columns), list(config.methods), config.seeds, read)


def read_cells(
    config: Config, columns: Sequence[str], rows: Sequence[str], seeds: Sequence[int], read: Reader | None = None
) -> list[TableCell]:
    """Cells of a config, column by column; `read` may remember what it has read.

    Raises:
        RecordError: a record is missing, broken, or of another config; or predictions contradict their record.
    """
    names = [(column, row) for column in columns for row in rows]
    console = Console(stderr=True)
    quiet = not sys.stderr.isatty()
    read = read or partial(read_tested, config)
    cells: list[TableCell] = []
    for column, row in track(names, "Reading records", console=console, disable=quiet, transient=True):
        splits = [_read_cell(config, dataset, row, seeds, read) for dataset in config.columns[column]]
        cells.append(splits[0] if splits[0].dataset == column else SplitsResult(column, row, splits))
    _same_origin([split for cell in cells for split in cell.splits], config)
    return cells


def _read_cell(config: Config, dataset: str, method: str, seeds: Sequence[int], read: Reader) -> CellResult:
    runs = {seed: read(dataset, method, seed) for seed in seeds}
    records = {seed: record for seed, (record, _) in runs.items()}
    tested = {seed: videos for seed, (_, videos) in runs.items() if videos is not None}
    return CellResult(dataset, method, records, tested, config.sweep.repeats)


def _merged(config: Config, record: Record, predictions: pd.DataFrame) -> pd.DataFrame:
    """Merged predictions of a record, whose hits follow from them."""
    place = (record.dataset, record.method, record.seed)
    path = Paths.of(config).predictions(*place)
    try:
        videos = merge_views(predictions, config.quirk("merge_ids"))
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    recorded = record.metrics.model_dump()
    for name, value in metrics(videos).items():
        if recorded[name] != value:
            raise RecordError(
                f"{path}: {name} is {value:.10g}, but the record says {recorded[name]:.10g}; "
                f"run again: {train_again(config, *place)}"
            )
    return videos


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
