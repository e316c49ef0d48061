"""Everything that the sections of a report read, loaded and checked once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config, data_title
from ssp.data.frames import FrameStore, load_split
from ssp.data.manifest import class_names, content_hash, read_manifest
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.choice import Choice, load_choice
from ssp.records.published import BACKBONE
from ssp.records.record import Record
from ssp.records.runs import read_run
from ssp.report import svg
from ssp.tables.cells import CellResult, collect_cells
from ssp.tables.claims import AVERAGE
from ssp.tables.layout import Layout, lay_out
from ssp.tables.long import LongTables, read_tables


@dataclass(frozen=True)
class Results:
    """The results of a config."""

    config: Config
    paths: Paths
    tables: LongTables
    layouts: dict[str, Layout]
    cells: list[CellResult]
    """Data set by data set, methods in the config's order."""
    points: list[Record]
    """Records that ablations alone have."""
    choices: dict[tuple[str, str, int | None], Choice]
    """By (data set, method, study)."""
    names: dict[str, dict[int, str]]
    """Class names by label, for each data set."""

    @property
    def records(self) -> list[Record]:
        """The records of the tables, in the order of cells and seeds."""
        return [record for cell in self.cells for record in cell.records.values()]

    def of(self, dataset: str) -> list[CellResult]:
        """The cells of a data set."""
        return [cell for cell in self.cells if cell.dataset == dataset]

    def link(self, path: Path) -> str:
        """Address of a file under the results, seen from the report."""
        return path.relative_to(self.paths.results).as_posix()

    def row(self, name: str) -> dict[str, Any]:
        """A row as the page shows it: its key, its title, its mark, and where it stands in the main table."""
        return {"row": name, "title": self.config.rows[name].title, "key": svg.key(name), "home": f"#row-{name}"}

    def data(self, name: str) -> dict[str, str]:
        """A data set or a column as the page shows it: what people call it, and the column that it is in."""
        column = self.config.column_of(name) if name in self.config.datasets else name
        return {"set": column, "title": data_title(self.config, name)}

    @property
    def comparable(self) -> bool:
        """Whether any published number is of what was measured here; elsewhere such numbers are not shown."""
        real = any(not self.config.archived[column].generate for column in self.config.columns)
        return real and self.config.backbone.architecture == BACKBONE and not self.tables.verdict.empty

    @property
    def main_column(self) -> str:
        """The column that says most: the average where there are several data sets."""
        return AVERAGE if len(self.config.columns) > 1 else next(iter(self.config.columns))

    def way_back(self, column: str, row: str) -> str:
        """The command that follows a number of the main table back to what it was made from."""
        return f"ssp trace {shlex.quote(str(self.paths.results))} --dataset {column} --row {shlex.quote(row)}"

    def test_videos(self, dataset: str) -> tuple[pd.DataFrame, FrameStore] | None:
        """The test videos that could be read, with the numbers that the frame store knows them by; None without data.

        Raises:
            DataError: the data are not those that the runs read.
        """
        shards = [self.paths.shard(dataset, k) for k in range(self.config.datasets[dataset].frames.shards)]
        if not all(path.is_file() for path in (self.paths.manifest(dataset), *shards)):
            return None
        return load_split(self.config, dataset, "test"), FrameStore(self.paths.frames(dataset))


def anchor(dataset: str, method: str) -> str:
    """Id of the rows, in the tables of runs, that a cell's numbers come from."""
    return f"run-{dataset}-{method}"


def load_results(config: Config) -> Results:
    """Load and check the results of a config.

    Raises:
        RecordError: tables, a record or a choice are missing, broken or stale; or the manifest is not the records'.
        DataError: a manifest cannot be read.
    """
    paths, tables = Paths.of(config), read_tables(config)
    cells = [split for cell in collect_cells(config) for split in cell.splits]
    studies = [(cell.dataset, cell.method, number) for cell in cells for number in config.study_numbers]
    choices = {study: load_choice(paths.choice(*study), config, *study) for study in studies}
    return Results(
        config=config,
        paths=paths,
        tables=tables,
        layouts=lay_out(config, tables),
        cells=cells,
        points=[read_run(config, *run)[0] for run in config.runs() if run[1] not in config.methods],
        choices=choices,
        names={dataset: _class_names(config, dataset, cells) for dataset in config.datasets},
    )


def _class_names(config: Config, dataset: str, cells: list[CellResult]) -> dict[int, str]:
    path = Paths.of(config).kept_manifest(dataset)
    again = f"snakemake --cores 1 --force {path} --configfile {shlex.quote(str(config.origin))}"
    if not path.is_file():
        raise RecordError(f"{path}: missing; keep it: {again}")
    manifest = read_manifest(path)
    known = {record.manifest_hash for cell in cells if cell.dataset == dataset for record in cell.records.values()}
    if known != {content_hash(manifest)}:
        raise RecordError(f"{path}: not the manifest that the records were made with; keep that again: {again}")
    expected = config.datasets[dataset].expected
    return class_names(manifest, expected.classes if expected else None)
