"""The long tables: one row per thing measured, full precision, for programs. The tables for readers are cut from these.

Design choices
- Accuracies are in percent. Missing is an empty field: no published number, no spread with one seed, a failed cell.
- Order is the config's order of data sets, methods and seeds, so equal records give equal bytes.
- A cell with failed seeds is `partial`: its mean is over the surviving seeds and must not be compared as if complete.
- Where there are several data sets, "average" stands for their average: of rows that failed nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config, slice_hash
from ssp.errors import RecordError
from ssp.files import json_text
from ssp.paths import Paths
from ssp.records.costs import load_costs
from ssp.records.published import published_accuracy, published_parameters
from ssp.tables import claims, stats
from ssp.tables.cells import CellResult, Reader, TableCell, collect_cells
from ssp.tables.costs import COLUMNS as COST_COLUMNS
from ssp.tables.costs import cost_rows
from ssp.tables.verdict import verdict_rows

COLUMNS = {
    "main": ("dataset", "method", "mean", "sd", "n_seeds", "published", "status"),
    "parameters": ("method", "dataset", "total", "trainable", "extra", "head", "published_m"),
    "costs": COST_COLUMNS,
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
        "p_holm_smallest",
        "groups",
        "videos",
        "n_seeds",
    ),
    "pairs": ("dataset", "first", "second", "difference", "low", "high", "p", "p_holm"),
    "ranks": ("dataset", "method", "rank", "rank_low", "rank_high"),
    "verdict": (
        "dataset",
        "method",
        "published",
        "mean",
        "difference",
        "low",
        "high",
        "margin",
        "verdict",
        "reason",
    ),
    "seeds": (
        "dataset",
        "method",
        "seed",
        "status",
        "top1",
        "top5",
        "correct",
        "videos",
        "val_top1",
        "reason",
        "read_before",
    ),
}
"""Columns of each table, by the name of its file."""


@dataclass(frozen=True)
class LongTables:
    """The long tables of a config, by the names in `COLUMNS`."""

    main: pd.DataFrame
    parameters: pd.DataFrame
    costs: pd.DataFrame
    uncertainty: pd.DataFrame
    differences: pd.DataFrame
    pairs: pd.DataFrame
    ranks: pd.DataFrame
    verdict: pd.DataFrame
    seeds: pd.DataFrame


def build_tables(config: Config, read: Reader | None = None) -> LongTables:
    """All long tables of a config from its records; `read` may remember what it has read.

    Raises:
        RecordError: a record is missing, stale or broken (`ssp.tables.cells`), or that of the costs.
    """
    cells = collect_cells(config, read)
    counted, columns = claims.tallies(cells), claims.table_columns(config, cells)
    pairs = claims.pair_rows(columns, counted)
    return LongTables(
        main=_table("main", [_main_row(config, cell) for cell in cells]),
        parameters=_table("parameters", _parameter_rows(config, cells)),
        costs=_table("costs", cost_rows(config, load_costs(config))),
        uncertainty=_table("uncertainty", claims.uncertainty_rows(config, columns, cells, counted)),
        differences=_table("differences", claims.difference_rows(config, columns, counted)),
        pairs=_table("pairs", pairs),
        ranks=_table("ranks", claims.rank_rows(columns, counted, pairs)),
        verdict=_table("verdict", verdict_rows(config, columns, counted)),
        seeds=_table(
            "seeds", [_seed_row(split, seed) for cell in cells for split in cell.splits for seed in split.records]
        ),
    )


def to_csv(table: pd.DataFrame) -> str:
    """A long table as CSV."""
    return table.to_csv(index=False, lineterminator="\n")


def made_with(plain: dict[str, Any]) -> str:
    """Which slice of a config tables were made with, as JSON: a plan asks for it."""
    return json_text({"config": plain, "config_hash": slice_hash(plain)})


def read_tables(config: Config) -> LongTables:
    """The long tables as they were written.

    Raises:
        RecordError: a table is missing or not as it was written.
    """
    folder, again = Paths.of(config).tables, f"write the tables again: {config.command('tables')}"
    return LongTables(**{name: read_table(folder / f"{name}.csv", columns, again) for name, columns in COLUMNS.items()})


def read_table(path: Path, columns: tuple[str, ...], again: str, before: Iterable[str] = ()) -> pd.DataFrame:
    """One long table as it was written.

    Args:
        path: the CSV file.
        columns: its columns.
        again: how it is written again.
        before: columns in front of these, which may hold anything.

    Raises:
        RecordError: it is missing or not as it was written.
    """
    expected = (*before, *columns)
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({error}); {again}") from None
    if tuple(table.columns) != expected:
        raise RecordError(f"{path}: columns are not {', '.join(expected)}; {again}")
    return table.astype(dtypes(columns))


def dtypes(columns: Iterable[str]) -> dict[str, str]:
    """Those of columns that keep whole numbers whole beside missing ones."""
    whole = (
        "n_seeds",
        "groups",
        "videos",
        "correct",
        "total",
        "trainable",
        "extra",
        "head",
        "parameters",
        "rounds",
        "threads",
        "seed",
        "rank",
        "rank_low",
        "rank_high",
        "read_before",
    )
    return {column: "Int64" for column in columns if column in whole}


def _table(name: str, rows: list[dict]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    return rounded(table.astype(dtypes(COLUMNS[name])))


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Rounded far below what is shown: what is read back is the same to the last digit. No p-value becomes 0."""
    p_values = {
        name: [float(f"{p:.6g}") for p in table[name].astype(float)] for name in table if name.split("_")[0] == "p"
    }
    return table.round(8).assign(**p_values)


def _main_row(config: Config, cell: TableCell) -> dict:
    spread = stats.spread(cell.accuracies)
    published = config.rows[cell.method].published, config.archived[cell.dataset].source
    return {
        "dataset": cell.dataset,
        "method": cell.method,
        "mean": spread.mean,
        "sd": spread.sd,
        "n_seeds": cell.n_seeds,
        "published": published_accuracy().get(published),
        "status": cell.status,
    }


def _parameter_rows(config: Config, cells: list[TableCell]) -> list[dict]:
    """Parameter counts of each method on each data set, empty where no seed came as far as building the model."""
    rows = []
    for method in config.methods:
        for cell in (cell for cell in cells if cell.method == method):
            counts = cell.parameters.model_dump() if cell.parameters else {}
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
    row |= {key: measured.get(key) for key in COLUMNS["seeds"][4:-2]}
    return row | {"reason": record.reason, "read_before": record.read_before}
