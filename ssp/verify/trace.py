"""One number of the tables, back to where it comes from: what `ssp trace` prints, within 80 columns.

Everything is read from the folder of results; the number is computed again from the predictions on the way.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from ssp.config import Config, load_results_config, slice_lines
from ssp.data.manifest import content_hash, read_manifest
from ssp.errors import ConfigError
from ssp.paths import Paths
from ssp.records.choice import Choice, load_choice
from ssp.records.record import Chosen, Record
from ssp.tables.cells import CellResult, TableCell, read_cells
from ssp.tables.long import read_tables

WIDTH = 80


def trace(folder: Path, column: str, row: str) -> str:
    """The way back from a cell of the main table, as text.

    Raises:
        ConfigError: the folder has no such data set or row.
        RecordError: something on the way is missing, stale or contradicts its record.
    """
    config = load_results_config(folder)
    for option, name, known in (("--dataset", column, config.columns), ("--row", row, config.methods)):
        if name not in known:
            raise ConfigError(f"{option}: '{name}' is not in {config.origin}; it has: {', '.join(known)}")
    (cell,) = read_cells(config, [column], [row], config.seeds)
    lines = [*_head(config, cell)]
    for split in cell.splits:
        lines += ["", *_split(config, split)]
    return "\n".join(lines)


def _head(config: Config, cell: TableCell) -> Iterator[str]:
    """What the table says, and what comes out of the predictions."""
    column, row = cell.dataset, cell.method
    table = read_tables(config).main
    (written,) = table[(table["dataset"] == column) & (table["method"] == row)].to_dict("records")
    yield from _wrapped(f"{config.home}: {config.title}")
    yield ""
    yield from _wrapped(f"{config.rows[row].title} ({row}) on {column}")
    if not cell.accuracies:
        yield from _fact("table", f"{written['status']}, no run has come to its end")
        return
    again = fmean(cell.accuracies)
    seeds = f"{written['n_seeds']} seed{'s' if written['n_seeds'] > 1 else ''}"
    yield from _fact("table", f"{written['mean']:.4f} % top-1, mean over {seeds} (tables/main.csv)")
    same = "the same" if abs(again - written["mean"]) < 1e-6 else "NOT the same: write the tables again"
    yield from _fact("recomputed", f"{again:.4f} %, from the predictions below; {same}")


def _split(config: Config, cell: CellResult) -> Iterator[str]:
    """A cell on one data set: its runs, the searches behind them, and what both were made from."""
    yield cell.dataset
    for seed, record in cell.records.items():
        yield ""
        yield from _seed(config, record, failed=seed not in cell.videos)
    for number in config.study_numbers:
        study = (cell.dataset, config.rows[cell.method].tuned_as, number)
        yield ""
        yield from _choice(config, load_choice(Paths.of(config).choice(*study), config, *study))
    yield ""
    yield from _origin(config, cell.records[config.seeds[0]])


def _seed(config: Config, record: Record, failed: bool) -> Iterator[str]:
    """A run: its files, what they say, and what made them."""
    paths, run = Paths.of(config), (record.dataset, record.method, record.seed)
    if failed:
        yield from _wrapped(f"seed {record.seed}: failed: {record.reason}", indent=1)
    else:
        counts = f"{record.metrics.correct} of {record.metrics.videos} videos, {record.metrics.views} views"
        yield from _wrapped(f"seed {record.seed}: {record.metrics.top1:.4f} % top-1, {counts}", indent=1)
    yield from _fact("record", _name(config, paths.record(*run)))
    for what, path, sha256 in (
        ("predictions", paths.predictions(*run), record.predictions.sha256),
        ("weights", paths.weights(*run), record.weights_sha256),
    ):
        yield from _fact(what, _name(config, path) + (f", SHA-256 {sha256[:16]}…" if sha256 else ""))
    yield from _fact("test read", _readings(record))
    changed = {True: ", with uncommitted changes", False: "", None: ", state of the code unknown"}[record.git.dirty]
    yield from _fact("commit", record.git.commit + changed)
    scan = f", scan {record.scan.backend}" if record.scan else ""
    yield from _fact("made on", f"{record.device}{scan}, {record.run.host}, {record.run.started}")
    yield from _fact("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()))
    if record.run.mlflow_run_id:
        yield from _fact("MLflow run", record.run.mlflow_run_id)


def _readings(record: Record) -> str:
    if record.test_readings is None:
        return "not noted"
    times = {0: "never", 1: "once"}.get(record.test_readings, f"{record.test_readings} times")
    return times + (f", and {record.read_before} times from other choices before" if record.read_before else "")


def _choice(config: Config, choice: Choice) -> Iterator[str]:
    """The chosen trial among its rivals."""
    path = Paths.of(config).choice(choice.dataset, choice.method, choice.study)
    yield f" hyper-parameters: {_name(config, path)}"
    if not choice.trials:
        yield from _fact("no search", _chosen(choice.hyperparameters))
    for trial in choice.trials:
        mark = ">" if trial.number == choice.trial else " "
        value = f"{trial.value:.2f} %" if trial.value is not None else trial.reason or trial.state
        value += f" of rung {trial.rung}" if len(choice.budget) > 1 else ""
        yield from _fact(f"{mark} trial {trial.number}", f"{value} on validation; {_chosen(trial.hyperparameters)}")


def _chosen(chosen: Chosen | None) -> str:
    if chosen is None:
        return "none"
    plain = chosen.model_dump()
    return ", ".join(f"{name} {_short(value)}" for name, value in (plain | plain.pop("options")).items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _origin(config: Config, record: Record) -> Iterator[str]:
    """Videos, backbone, and the slice of the config that decides the cell."""
    paths = Paths.of(config)
    kept = paths.kept_manifest(record.dataset)
    yield " made from"
    if kept.is_file():
        manifest = read_manifest(kept)
        same = "the record's" if content_hash(manifest) == record.manifest_hash else "NOT the record's"
        counts = ", ".join(f"{count} {split}" for split, count in manifest["split"].value_counts().items())
        yield from _fact("manifest", f"{_name(config, kept)}, {same} {record.manifest_hash}: {counts} videos")
    else:
        yield from _fact("manifest", f"{record.manifest_hash}, not kept here")
    checkpoint = config.datasets[record.dataset].checkpoint
    yield from _fact("backbone", f"{checkpoint}, SHA-256 {record.backbone_hash or 'not noted'}")
    yield from _fact("config", f"{record.config_hash}, in config.yaml:")
    for line in slice_lines(record.config):
        yield from _wrapped(line, indent=15)


def _name(config: Config, path: Path) -> str:
    return path.relative_to(config.home).as_posix()


def _fact(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"  {name:12} {text}", WIDTH, subsequent_indent=" " * 15, break_on_hyphens=False)


def _wrapped(text: str, indent: int = 0) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=space, subsequent_indent=space + "  ", break_on_hyphens=False)
