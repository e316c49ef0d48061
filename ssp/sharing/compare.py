"""Two or more results side by side: each later one minus the first, cell by cell, and what differs in what made them.

Design choices
- A cell is a (data set, row) of the main table that both have. The difference is that of the protocol's statistics:
  paired by video and seed where both were tested on the same videos with common seeds, else of two samples.
- Which cells moved: p adjusted after Holm over all cells that are compared here.
- Beside it stands what differs: keys of the config, chosen hyper-parameters, commits, devices, versions, videos.
"""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ssp.config import Config, flattened, load_results_config
from ssp.errors import ConfigError
from ssp.records.record import Record
from ssp.sharing.opening import names_of, opened
from ssp.tables import stats
from ssp.tables.cells import TableCell, collect_cells
from ssp.tables.long import rounded, to_csv
from ssp.tables.numbers import LEVEL, p_text, signed, signed_interval

WIDTH = 100
COLUMNS = (
    "first",
    "other",
    "dataset",
    "method",
    "mean_first",
    "mean_other",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "n_seeds",
    "paired",
    "same_predictions",
)
"""Of the long table. Accuracies in percent, differences (other minus first) in percentage points; n_seeds: common ones
where paired; same_predictions: seeds whose predictions are the same file in both."""


@dataclass(frozen=True)
class Side:
    """One of the results."""

    name: str
    config: Config
    cells: dict[tuple[str, str], TableCell]

    @property
    def records(self) -> Iterator[Record]:
        """Those of the main table."""
        return (record for cell in self.cells.values() for split in cell.splits for record in split.records.values())

    @cached_property
    def origin(self) -> dict[str, str]:
        """What records say of what made them, by key; all values where they differ."""
        found: dict[str, set[str]] = {}
        for record in self.records:
            said = {"commit": record.git.commit[:10] + (" with changes" if record.git.dirty else "")}
            said |= {"device": record.device, "scan": record.scan.backend if record.scan else "unknown"}
            said |= {f"version of {package}": version for package, version in record.versions.items()}
            said[f"manifest of {record.dataset}"] = record.manifest_hash
            checkpoint = self.config.datasets[record.dataset].checkpoint
            said[f"file of backbone {checkpoint}"] = record.backbone_hash or "unknown"
            for key, value in said.items():
                found.setdefault(key, set()).add(value)
        return {key: ", ".join(sorted(values)) for key, values in found.items()}

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Hyper-parameters that rows were trained with, by data set, row and name; all values of several studies."""
        found: dict[str, dict[str, None]] = {}
        for record in self.records:
            plain = record.hyperparameters.model_dump(mode="json") if record.hyperparameters else {"none": True}
            for key, value in flattened(plain).items():
                found.setdefault(f"{record.dataset}.{record.method}.{key}", {})[value] = None
        return {key: ", ".join(values) for key, values in found.items()}


@dataclass(frozen=True)
class Change:
    """What is not the same in one of the results as in the first."""

    first: str
    other: str
    config: dict[str, tuple[str | None, str | None]]
    """By key: the first's value and the other's, as JSON; None where it has no such key, or the default."""
    chosen: dict[str, tuple[str | None, str | None]]
    """The same of the hyper-parameters of cells that both have."""
    origin: dict[str, tuple[str | None, str | None]]
    """The same of commits, devices, versions, manifests, backbones."""
    only_first: list[str]
    """Data sets and rows that the other does not have."""
    only_other: list[str]


@dataclass(frozen=True)
class Comparison:
    """Results side by side."""

    cells: pd.DataFrame
    """Columns `COLUMNS`."""
    changes: list[Change]

    def csv(self) -> str:
        """The cells, for programs."""
        return to_csv(self.cells)

    def json(self) -> str:
        """All of it, for programs."""
        cells = [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in self.cells.astype(object).to_dict("records")
        ]
        return json.dumps({"cells": cells, "changes": [vars(change) for change in self.changes]}, indent=1)

    def text(self) -> str:
        """All of it, for readers, within 100 columns."""
        return "\n".join(line for change in self.changes for line in [*self._told(change), ""]).rstrip("\n")

    def _told(self, change: Change) -> Iterator[str]:
        own = self.cells[self.cells["other"] == change.other]
        yield from _wrapped(f"{change.other} minus {change.first}, top-1 in percent")
        if not own.empty:
            yield _table(own, change)
        yield from _wrapped(self._words(own))
        for title, only in ((change.first, change.only_first), (change.other, change.only_other)):
            if only:
                yield from _wrapped(f"Only in {title}: {', '.join(only)}")
        for title, pairs in (
            ("Config", change.config),
            ("Hyper-parameters", change.chosen),
            ("Made by", change.origin),
        ):
            yield ""
            yield f"{title}: {'what differs' if pairs else 'the same'}"
            for key, (was, now) in pairs.items():
                yield from _wrapped(f"{key}: {was if was is not None else '–'} > {now if now is not None else '–'}", 2)

    def _words(self, own: pd.DataFrame) -> str:
        if own.empty:
            return "No data set and row are in both."
        tested, moved = int(own["p"].notna().sum()), int((own["p_holm"] < stats.ALPHA).sum())
        family = int(self.cells["p"].notna().sum())
        same = int(((own["n_seeds"] > 0) & (own["same_predictions"] >= own["n_seeds"])).sum())
        words = f"{len(own)} cells, {same} with the same predictions. "
        words += (
            f"{moved} moved beyond noise (*: p < {stats.ALPHA}, adjusted after Holm over {family} cells)."
            if tested
            else "Not enough seeds for a p-value."
        )
        if apart := int((~own["paired"].astype(bool)).sum()):
            words += f" {apart} could not be paired (other test videos, or no common seed)."
        return words


def compare(sources: Sequence[Path]) -> Comparison:
    """Put results side by side: each later one beside the first.

    Args:
        sources: two or more folders or archives.

    Raises:
        ConfigError: there are fewer than two, or one is no results.
        RecordError: a record is missing, stale or broken.
    """
    if len(sources) < 2:
        raise ConfigError("give two or more results to compare, such as results/demo theirs.zip")
    with ExitStack() as stack:
        sides = []
        for name, source in zip(names_of(sources), sources, strict=True):
            config = load_results_config(stack.enter_context(opened(source)))
            cells = {(cell.dataset, cell.method): cell for cell in collect_cells(config)}
            sides.append(Side(name, config, cells))
    first, *others = sides
    return Comparison(_cells(first, others), [_change(first, other) for other in others])


def _cells(first: Side, others: list[Side]) -> pd.DataFrame:
    """The long table; empty fields where a row has failed in one of two."""
    rows, paired, apart = [], [], []
    for other in others:
        for key in [key for key in first.cells if key in other.cells]:
            one, two = first.cells[key], other.cells[key]
            row = {"first": first.name, "other": other.name, "dataset": key[0], "method": key[1], "n_seeds": 0}
            rows.append(row | {"paired": False, "same_predictions": _same(one, two)})
            means = {"mean_first": one.accuracies, "mean_other": two.accuracies}
            rows[-1] |= {name: fmean(values) for name, values in means.items() if values}
            if one.tally is None or two.tally is None:
                continue
            alike = one.tally.videos.equals(two.tally.videos) and one.tally.studies == two.tally.studies
            common = set(one.tally.hits) & set(two.tally.hits) if alike else ()
            rows[-1] |= {"paired": bool(common), "n_seeds": len(common) or min(one.n_seeds, two.n_seeds)}
            (paired if common else apart).append((rows[-1], (two.tally, one.tally)))
    found = stats.differences([([a], [b]) for _, (a, b) in paired]) + stats.unpaired([pair for _, pair in apart])
    for (row, _), one in zip([*paired, *apart], found, strict=True):
        row |= {"difference": one.estimate, "low": one.low, "high": one.high, "p": one.p}
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["p_holm"] = stats.holm(table["p"].astype(float))
    return rounded(table)


def _same(one: TableCell, two: TableCell) -> int:
    """Seeds whose predictions are byte by byte the same, on all splits."""

    def sealed(cell: TableCell, seed: int) -> list[str | None]:
        records = [split.records.get(seed) for split in cell.splits]
        return [record.predictions.sha256 if record and record.status == "ok" else None for record in records]

    seeds = set(one.splits[0].records) & set(two.splits[0].records)
    return sum(sealed(one, seed) == sealed(two, seed) and None not in sealed(one, seed) for seed in seeds)


def _change(first: Side, other: Side) -> Change:
    shared = {
        f"{split.dataset}.{key[1]}." for key in first.cells if key in other.cells for split in first.cells[key].splits
    }
    chosen = [
        {key: value for key, value in side.chosen.items() if key.startswith(tuple(shared))} for side in (first, other)
    ]
    return Change(
        first.name,
        other.name,
        config=_differing(
            *(flattened(side.config.model_dump(mode="json", exclude_defaults=True)) for side in (first, other))
        ),
        chosen=_differing(*chosen),
        origin=_differing(first.origin, other.origin),
        only_first=_only(first.config, other.config),
        only_other=_only(other.config, first.config),
    )


def _differing(old: dict[str, str], new: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}


def _only(config: Config, other: Config) -> list[str]:
    """Data sets and rows of a config that another does not have."""
    datasets = [f"data set {name}" for name in config.columns if name not in other.columns]
    return datasets + [f"row {name}" for name in config.methods if name not in other.methods]


def _table(cells: pd.DataFrame, change: Change) -> str:
    """The cells of two results, for readers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("data set", "row"):
        table.add_column(name, overflow="fold")
    for name in (change.first, change.other, "difference", LEVEL, "p (Holm)", "seeds"):
        table.add_column(name, justify="right", overflow="fold")
    for row in cells.to_dict("records"):
        moved = "*" if row["p_holm"] < stats.ALPHA else ""
        means = ["failed" if pd.isna(row[name]) else f"{row[name]:.1f}" for name in ("mean_first", "mean_other")]
        difference = (signed(row["difference"]) or "–") + moved
        ends = signed_interval(row["low"], row["high"]) or "–"
        p = p_text(row["p_holm"], "–")
        table.add_row(row["dataset"], row["method"], *means, difference, ends, p, str(row["n_seeds"]))
    console = Console(width=WIDTH, file=io.StringIO(), color_system=None)
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").splitlines())


def _wrapped(text: str, indent: int = 0) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=space, subsequent_indent=space + "  ", break_on_hyphens=False)
