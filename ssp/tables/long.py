"""The long tables: one row per thing measured, full precision, for programs. The tables for readers are cut from these.

Design choices
- Accuracies are in percent. Missing is an empty field: no published number, no spread with one seed, a failed cell.
- Order is the config's order of data sets, methods and seeds, so equal records give equal bytes.
- A cell with failed seeds is `partial`: its mean is over the surviving seeds and must not be compared as if complete.
- Where there are several data sets, "average" stands for their average: of rows that failed nowhere.
- Every row is compared with the config's reference. P-values are
  adjusted (Holm) over the comparisons of a data set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ssp.config import Config
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.published import published_accuracy, published_parameters
from ssp.tables import stats
from ssp.tables.cells import CellResult, collect_cells

AVERAGE = "average"  # in the column of data sets
COLUMNS = {
    "main": ("dataset", "method", "mean", "sd", "n_seeds", "published", "status"),
    "parameters": ("method", "dataset", "total", "trainable", "extra", "head", "published_m"),
    "uncertainty": (
        "dataset",
        "method",
        "mean",
        "sd",
        "low",
        "high",
        "half_width",
        "groups",
        "videos",
        "interval",
    ),
    "differences": (
        "dataset",
        "method",
        "reference",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "groups",
        "videos",
        "n_seeds",
    ),
    "seeds": ("dataset", "method", "seed", "status", "top1", "top5", "correct", "videos", "val_top1", "reason"),
}
"""Columns of each table, by the name of its file."""


@dataclass(frozen=True)
class LongTables:
    """The long tables of a config, by the names in `COLUMNS`."""

    main: pd.DataFrame
    parameters: pd.DataFrame
    uncertainty: pd.DataFrame
    differences: pd.DataFrame
    seeds: pd.DataFrame


def build_tables(config: Config) -> LongTables:
    """All long tables of a config from its records.

    Raises:
        RecordError: a record is missing, stale or broken (`ssp.tables.cells`).
    """
    cells = collect_cells(config)
    tallies = _tallies(cells)
    return LongTables(
        main=_table("main", [_main_row(config, cell) for cell in cells]),
        parameters=_table("parameters", _parameter_rows(config, cells)),
        uncertainty=_table("uncertainty", _uncertainty_rows(config, cells, tallies)),
        differences=_table("differences", _difference_rows(config, cells, tallies)),
        seeds=_table("seeds", [_seed_row(cell, seed) for cell in cells for seed in cell.records]),
    )


def to_csv(table: pd.DataFrame) -> str:
    """A long table as CSV."""
    return table.to_csv(index=False, lineterminator="\n")


def read_tables(config: Config) -> LongTables:
    """The long tables as they were written.

    Raises:
        RecordError: a table is missing or not as it was written.
    """
    folder = Paths.of(config).tables
    return LongTables(**{name: _read(folder / f"{name}.csv", name) for name in COLUMNS})


def _read(path: Path, name: str) -> pd.DataFrame:
    again = f"write the tables again: python -m ssp tables --config {path.parent.parent / 'config.yaml'}"
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({error}); {again}") from None
    if tuple(table.columns) != COLUMNS[name]:
        raise RecordError(f"{path}: columns are not {', '.join(COLUMNS[name])}; {again}")
    return table.astype(_counts(table))


def _counts(table: pd.DataFrame) -> dict[str, str]:
    """Dtypes that keep whole numbers whole beside missing ones."""
    whole = ("n_seeds", "groups", "videos", "correct", "total", "trainable", "extra", "head", "seed")
    return {column: "Int64" for column in table.columns if column in whole}


def _table(name: str, rows: list[dict]) -> pd.DataFrame:
    """Rows as a table, rounded far below what is shown: what is read back is the same to the last digit."""
    table = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    return table.astype(_counts(table)).round(8)


def _main_row(config: Config, cell: CellResult) -> dict:
    spread = stats.spread(list(cell.accuracies.values()))
    published = config.rows[cell.method].published, config.datasets[cell.dataset].source
    return {
        "dataset": cell.dataset,
        "method": cell.method,
        "mean": spread.mean,
        "sd": spread.sd,
        "n_seeds": spread.n,
        "published": published_accuracy().get(published),
        "status": cell.status,
    }


def _tallies(cells: list[CellResult]) -> dict[tuple[str, str], stats.Tally]:
    """Counted hits by (data set, method), without cells that failed; all of a data set share their videos."""
    found: dict[tuple[str, str], stats.Tally] = {}
    first: dict[str, tuple[str, pd.DataFrame]] = {}
    for cell in cells:
        if not cell.videos:
            continue
        counted = stats.tally(cell.videos)
        other, videos = first.setdefault(cell.dataset, (cell.method, counted.videos))
        if not counted.videos.equals(videos):
            raise RecordError(
                f"{cell.dataset}: {other} and {cell.method} were tested on different videos; run both again"
            )
        found[cell.dataset, cell.method] = replace(counted, videos=videos)
    return found


def complete_rows(config: Config, cells: list[CellResult]) -> list[str]:
    """The rows without a failed seed on any data set: those that have an average."""
    broken = {cell.method for cell in cells if cell.status != "ok"}
    return [method for method in config.methods if method not in broken]


def _uncertainty_rows(
    config: Config, cells: list[CellResult], tallies: dict[tuple[str, str], stats.Tally]
) -> list[dict]:
    rows = [{"dataset": cell.dataset, "method": cell.method} for cell in cells]
    by_seed = [list(cell.accuracies.values()) for cell in cells]
    counted = [[tallies[cell.dataset, cell.method]] if cell.videos else [] for cell in cells]
    if len(config.datasets) > 1:
        complete = complete_rows(config, cells)
        for method in config.methods:
            own = [cell for cell in cells if cell.method == method] if method in complete else []
            rows.append({"dataset": AVERAGE, "method": method})
            # Averaged within each seed first: the spread is that of the average.
            by_seed.append([float(np.mean([cell.accuracies[seed] for cell in own])) for seed in config.seeds if own])
            counted.append([tallies[cell.dataset, method] for cell in own])
    found = iter(stats.intervals([each for each in counted if each]))
    for row, accuracies, each in zip(rows, by_seed, counted, strict=True):
        if each:
            spread, interval = stats.spread(accuracies), next(found)
            row |= {"mean": spread.mean, "sd": spread.sd, "interval": interval.kind or None}
            row |= {key: getattr(interval, key) for key in ("low", "high", "half_width", "groups", "videos")}
    return rows


def _difference_rows(
    config: Config, cells: list[CellResult], tallies: dict[tuple[str, str], stats.Tally]
) -> list[dict]:
    """Reference minus every other method, on each data set and in the average; empty where the two share no seed."""
    reference, complete = config.reference_row, complete_rows(config, cells)
    columns = [(dataset, [dataset]) for dataset in config.datasets]
    if len(columns) > 1:
        columns.append((AVERAGE, list(config.datasets)))
    rows, pairs = [], []
    for name, datasets in columns:
        for method in config.methods:
            if method == reference:
                continue
            rows.append({"dataset": name, "method": method, "reference": reference, "n_seeds": 0})
            pair = tuple([tallies.get((d, m)) for d in datasets] for m in (reference, method))
            known = all(a and b and set(a.hits) & set(b.hits) for a, b in zip(*pair, strict=True))
            average = {reference, method} <= set(complete)
            pairs.append(pair if known and (name != AVERAGE or average) else None)
    found = iter(stats.differences([pair for pair in pairs if pair]))
    for row, pair in zip(rows, pairs, strict=True):
        if pair:
            row |= _difference(next(found))
    for name, _ in columns:
        own = [row for row in rows if row["dataset"] == name]
        for row, adjusted in zip(own, stats.holm([row.get("p", float("nan")) for row in own]), strict=True):
            row["p_holm"] = float(adjusted)
    return rows


def _difference(found: stats.Difference) -> dict:
    return {
        "difference": found.estimate,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "groups": found.groups,
        "videos": found.videos,
        "n_seeds": found.seeds,
    }


def _parameter_rows(config: Config, cells: list[CellResult]) -> list[dict]:
    """Parameter counts of each method on each data set, empty where no seed came as far as building the model."""
    rows = []
    for method in config.methods:
        for cell in (cell for cell in cells if cell.method == method):
            known = {record.parameters for record in cell.records.values() if record.parameters}
            if len(known) > 1:
                raise RecordError(f"{cell.dataset}/{method}: seeds differ in parameter counts; run the cell again")
            counts = next(iter(known)).model_dump() if known else {}
            rows.append(
                {"method": method, "dataset": cell.dataset}
                | counts
                | {"published_m": published_parameters().get(config.rows[method].published)}
            )
    return rows


def _seed_row(cell: CellResult, seed: int) -> dict:
    record = cell.records[seed]
    measured = record.metrics.model_dump() if record.metrics and record.status == "ok" else {}
    row = {"dataset": cell.dataset, "method": cell.method, "seed": seed, "status": record.status}
    return row | {key: measured.get(key) for key in COLUMNS["seeds"][4:-1]} | {"reason": record.reason}
