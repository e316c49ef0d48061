"""Results of several machines or groups as one folder, with one table.

Design choices
- Joined are configs (the union of data sets, rows, ablations and seeds), then files; tables, figures and report are
  made from these by what makes them anywhere, and the outcome must verify before it gets its name.
- What decides a result must be the same in all that have it: settings of a data set, a row, the search, the manifest,
  the backbone. Of words and places (title, data_root, tracking, compute) the first results have theirs.
- Each run is taken whole (record, predictions, weights, readings) from the first results that have it. Others that have
  it, too, must have the same but for what may differ between two runs of one thing (`run`: times, host).
- Results may lack what others bring, but not hold what contradicts them.
- Records need no code of the method that made them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import (
    Ablation,
    Config,
    Quirks,
    config_text,
    deciding,
    flattened,
    load_results_config,
    parse_config,
    slice_hash,
)
from ssp.data.manifest import content_hash, read_manifest
from ssp.errors import ConfigError, RecordError
from ssp.figures.ablation import write_curve
from ssp.figures.accuracy import write_figures
from ssp.files import atomic_path, file_sha256, write_text
from ssp.paths import Paths
from ssp.records.choice import Choice, load_choice
from ssp.records.costs import Costs, RowCosts, load_costs, save_costs
from ssp.records.explained import Explained, Origin, explained_datasets
from ssp.records.record import Record, load_checked, load_record
from ssp.records.shared import (
    Contributor,
    Contributors,
    LeftOut,
    load_contributors,
    record_name,
    save_shared,
)
from ssp.records.sums import read_sums, write_sums
from ssp.report import write_report
from ssp.sharing.opening import names_of, opened
from ssp.tables import write_tables
from ssp.tables.ablations import write_ablation
from ssp.verify import verify_results


@dataclass(frozen=True)
class Merged:
    """What came of joining results."""

    conflicts: list[str] = field(default_factory=list)
    """Why nothing was written: one line each, of what the results do not agree about or do not have."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the joined tables should know."""


@dataclass(frozen=True)
class _Side:
    """One of the results."""

    name: str
    config: Config

    @property
    def paths(self) -> Paths:
        return Paths.of(self.config)

    @cached_property
    def records(self) -> dict[tuple[str, str, int], Record]:
        """Of the runs that are there."""
        runs = [run for run in self.config.runs() if self.paths.record(*run).is_file()]
        return {run: load_record(self.paths.record(*run)) for run in runs}

    @cached_property
    def choices(self) -> dict[tuple[str, str, int | None], Choice]:
        """Of the studies that are there."""
        studies = [study for study in self.config.studies() if self.paths.choice(*study).is_file()]
        return {study: load_choice(self.paths.choice(*study), self.config, *study) for study in studies}

    @cached_property
    def manifests(self) -> dict[str, pd.DataFrame]:
        """Of the data sets whose manifest is there."""
        kept = {dataset: self.paths.kept_manifest(dataset) for dataset in self.config.datasets}
        return {dataset: read_manifest(path) for dataset, path in kept.items() if path.is_file()}

    @cached_property
    def contributors(self) -> Contributors:
        """Itself, or those that it was joined from."""
        if (joined := load_contributors(self.config)) is not None:
            return joined
        sums = file_sha256(self.paths.sums) if self.paths.sums.is_file() else None
        itself = {self.name: Contributor(title=self.config.title, sums=sums)}
        return Contributors(contributors=itself, records={record_name(*run): [self.name] for run in self.records})


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Join folders or archives of results into a new folder, or say what keeps them from being one.

    Args:
        sources: the results; the first give words and places.
        out: the new folder; its name becomes that of the config.

    Raises:
        ConfigError: there are fewer than two, one is no results, or `out` is there already or has no name for a config.
        RecordError: one of them does not verify.
    """
    if len(sources) < 2:
        raise ConfigError("give two or more results to join, such as results/demo theirs.zip")
    if out.exists():
        raise ConfigError(f"--out: {out}: is there already; name another folder, or remove it")
    with ExitStack() as stack:
        sides = []
        for name, source in zip(names_of(sources), sources, strict=True):
            folder = stack.enter_context(opened(source))
            _check_order(folder, source)
            sides.append(_Side(name, load_results_config(folder)))
        if conflicts := [*_protocol(sides)]:
            return Merged(conflicts)
        config = _joined(sides, out)
        if conflicts := [*_contents(sides, config)]:
            return Merged(conflicts)
        with atomic_path(out) as temporary:
            _write(sides, config.placed(home=temporary))
        return Merged(notes=[*_notes(sides)])


def _check_order(folder: Path, source: Path) -> None:
    """Refuse results that contradict themselves. What is not there yet others may have."""
    found = verify_results(folder)
    sealed = {} if "config.yaml" in found.wrong else read_sums(load_results_config(folder)) or {}
    wrong = [name for name in sorted(found.wrong) if (folder / name).exists() or name in {*sealed, "config.yaml"}]
    if wrong:
        problems = "; ".join(found.wrong[wrong[0]])
        raise RecordError(f"{source}: not in order: {wrong[0]}: {problems}; `ssp verify` names all, mend these first")


# -- do they go together ---------------------------------------------------------------------------------------------


def _protocol(sides: list[_Side]) -> Iterator[str]:
    """What decides a result and is not the same in all that say it: one line for each key."""
    first: dict[str, tuple[str, dict[str, str]]] = {}
    for side in sides:
        for section, plain in (_settings(side.config) | _origins(side)).items():
            own = flattened(plain)
            other, known = first.setdefault(section, (side.name, own))
            for key in sorted(own.keys() | known.keys()):
                if own.get(key) != known.get(key):
                    was, now = (found.get(key, "not said") for found in (known, own))
                    yield f"{'.'.join(filter(None, (section, key)))}: {was} in {other}, {now} in {side.name}"


def _settings(config: Config) -> dict[str, dict[str, Any]]:
    """By section of the config: what decides results, and what is compared by name where several have it."""
    found: dict[str, dict[str, Any]] = {
        "": {
            "backbone": deciding(config.backbone),
            "quirks": {name: config.quirk(name) for name in Quirks.model_fields},
            "refit": config.refit,
            "sweep": deciding(config.sweep),
        }
    }
    for name, dataset in config.datasets.items():
        plain = deciding(dataset)
        del plain["frames"]["shards"]  # into how many files frames are written changes none of them
        found[f"datasets.{name}"] = plain
    for name, checkpoint in config.backbone.checkpoints.items():
        found[f"backbone.checkpoints.{name}"] = deciding(checkpoint)
    for name, method in config.methods.items():
        found[f"methods.{name}"] = deciding(method, {"options", "space", "start"}) | {"method": method.method or name}
        for dataset in config.columns:
            found[f"methods.{name}.starts.{dataset}"] = config.rows[name].start_on(dataset)
    for name, ablation in config.ablations.items():
        found[f"ablations.{name}"] = deciding(ablation, set(Ablation.model_fields) - {"title"})
    return found


def _origins(side: _Side) -> dict[str, dict[str, Any]]:
    """The videos and the backbones that records were made from."""
    found = {f"manifests.{name}": {"hash": content_hash(manifest)} for name, manifest in side.manifests.items()}
    for (dataset, *_), record in side.records.items():
        if record.backbone_hash:
            found[f"backbone of {side.config.datasets[dataset].checkpoint}"] = {"hash": record.backbone_hash}
    return found


def _joined(sides: list[_Side], out: Path) -> Config:
    """The config of all: names that are new are added, words and places are those of the first.

    Raises:
        ConfigError: the folder's name can be no config's, or the outcome is none.
    """
    first, *others = (side.config for side in sides)
    plain = first.model_dump(mode="json") | {"name": out.name, "reference": first.reference_row}
    for other in others:
        added = other.model_dump(mode="json")
        for into, own in ((plain, added), (plain["backbone"], added["backbone"])):
            for key in ("datasets", "methods", "ablations", "checkpoints"):
                if key in into:
                    into[key] |= {name: value for name, value in own[key].items() if name not in into[key]}
        for name, method in added["methods"].items():
            plain["methods"][name]["starts"] |= method["starts"]
        plain["seeds"] += [seed for seed in added["seeds"] if seed not in plain["seeds"]]
        plain["explained"] = plain["explained"] or added["explained"]
    return parse_config(plain, f"--out: {out}", made=True)


def _contents(sides: list[_Side], config: Config) -> Iterator[str]:
    """What several have and is not the same, and what nobody has: one line for each file or cell."""
    paths = Paths(Path(), Path())
    for study in config.studies():
        have = [(side.name, side.choices[study]) for side in sides if study in side.choices]
        yield from _unlike(paths.choice(*study).as_posix(), have, {"run"})
    cells: dict[tuple[str, str], list[int]] = {}
    for run in config.runs():
        have = [(side.name, side.records[run]) for side in sides if run in side.records]
        if have:
            yield from _unlike(record_name(*run), have, {"run": True, "predictions": {"path"}})
        else:
            cells.setdefault(run[:2], []).append(run[2])
    for (dataset, row), seeds in cells.items():
        yield f"records/{dataset}/{row}: nobody has seed {', '.join(map(str, seeds))}"
    for dataset in config.datasets:
        if not any(dataset in side.manifests for side in sides):
            yield f"{paths.kept_manifest(dataset).as_posix()}: nobody has it"
    for name, checkpoint in config.backbone.checkpoints.items():
        if checkpoint.pretrain and not any(side.paths.backbone(name).is_file() for side in sides):
            yield f"{paths.backbone(name).as_posix()}: nobody has it"
    if isinstance(costs := _costs(sides, config), str):
        yield costs
    known: dict[str, Contributor] = {}
    for side in sides:
        for name, contributor in side.contributors.contributors.items():
            if known.setdefault(name, contributor) != contributor:
                yield f"contributors.json: '{name}' is the name of two results; rename the folder or archive of one"


def _unlike(name: str, have: list[tuple[str, Choice | Record]], leave_out: Any) -> Iterator[str]:  # noqa: ANN401 - pydantic's
    """Others of a file than the first, and in what they differ."""
    if not have:
        yield f"{name}: nobody has it"
        return
    (first, kept), *others = [(who, flattened(made.model_dump(mode="json", exclude=leave_out))) for who, made in have]
    for other, made in others:
        if keys := sorted(key for key in kept.keys() | made.keys() if kept.get(key) != made.get(key)):
            more = f" and {len(keys) - 1} more keys" if len(keys) > 1 else ""
            yield f"{name}: not the same in {first} and {other}: {keys[0]}{more}; take it out of one of them"


def _costs(sides: list[_Side], config: Config) -> Costs | str:
    """Costs of all rows, or why there are none.

    Times can be compared within a job. Of rows that the job of the first costs did not measure, what can be counted is
    taken over, and where the times are is said.
    """
    measured = []
    for side in sides:
        if side.paths.costs.is_file():
            measured.append((side.name, load_costs(side.config)))
    if not measured:
        return "costs.json: nobody has it"
    measured.sort(key=lambda one: -len(set(config.methods) & set(one[1].rows)))  # stable: the first of equals
    plain, (_, first) = config.costs_slice(), measured[0]
    rows: dict[str, RowCosts] = {}
    for name, costs in measured:
        alike = {**costs.config, "rows": {}} == {**plain, "rows": {}}
        for row in costs.rows if alike else ():
            if row in rows or row not in config.methods or costs.config["rows"][row] != plain["rows"][row]:
                continue
            elsewhere = {"memory_bytes": None, "step_seconds": [], "inference_seconds": []} | {
                "reason": f"not in one job with the other rows, so times cannot be compared; {name} has its own"
            }
            rows[row] = costs.rows[row] if costs is first else costs.rows[row].model_copy(update=elsewhere)
    if missing := [row for row in config.methods if row not in rows]:
        return (
            f"costs.json: nobody has measured {', '.join(missing)} on clips of {next(iter(config.datasets))}; "
            "name the results first whose first data set has all rows"
        )
    own = {"config": plain, "config_hash": slice_hash(plain), "rows": {row: rows[row] for row in config.methods}}
    return Costs.model_validate(first.model_dump() | own)


def _notes(sides: list[_Side]) -> Iterator[str]:
    """What differs between the records in what they were made by and on."""
    records = [record for side in sides for record in side.records.values()]
    for what, values in (
        ("commits", [record.git.commit[:10] for record in records]),
        ("devices", [record.device for record in records]),
        ("versions of torch", [record.versions.get("torch", "unknown") for record in records]),
    ):
        if len(counts := Counter(values)) > 1:
            yield f"records are of {len(counts)} {what}: {', '.join(f'{v} ({n})' for v, n in counts.items())}"


# -- one folder ------------------------------------------------------------------------------------------------------


def _write(sides: list[_Side], config: Config) -> None:
    """Files of all, then what is made from them.

    Raises:
        RecordError: what came out does not verify.
    """
    explanations = {dataset: _explanation(sides, config, dataset) for dataset in explained_datasets(config)}
    if None in explanations.values():  # of the run that is explained now nobody has a picture of all data sets
        explanations, config = {}, config.model_copy(update={"explained": None})
    paths = Paths.of(config)
    _copy_files(sides, config)
    for dataset, side in explanations.items():
        _copy([side.paths.explained(dataset)], paths.explained(dataset))
        _copy([side.paths.explained_picture(dataset)], paths.explained_picture(dataset))
    write_text(paths.config, config_text(config))
    write_tables(config)
    write_figures(config)
    for name in config.ablations:
        write_ablation(config, name)
        if config.curve_axis(name):
            write_curve(config, name)
    write_report(config)
    write_sums(config)
    if lines := verify_results(paths.results).lines:
        raise RecordError(f"{config.name}: does not verify when joined: {lines[0]} (and {len(lines) - 1} more files)")


def _copy_files(sides: list[_Side], config: Config) -> None:
    """What runs and searches have left behind, and whose it is."""
    paths, left_out = Paths.of(config), []
    records: dict[str, list[str]] = {}
    for run in config.runs():
        have = [side for side in sides if run in side.records]
        for of in ("record", "predictions", "readings"):
            _copy([getattr(have[0].paths, of)(*run)], getattr(paths, of)(*run))
        weights = paths.weights(*run)
        if not _copy([side.paths.weights(*run) for side in have], weights):
            left_out.append(weights.relative_to(paths.results).as_posix())
        name = record_name(*run)
        records[name] = [*dict.fromkeys(who for side in have for who in side.contributors.records[name])]
    for study in config.studies():
        _copy([side.paths.choice(*study) for side in sides], paths.choice(*study))
    for dataset in config.datasets:
        _copy([side.paths.kept_manifest(dataset) for side in sides], paths.kept_manifest(dataset))
    for name in config.backbone.checkpoints:
        _copy([side.paths.backbone(name) for side in sides], paths.backbone(name))
        _copy([side.paths.backbone_report(name) for side in sides], paths.backbone_report(name))
    save_costs(config, _costs(sides, config))
    contributors = {name: one for side in sides for name, one in side.contributors.contributors.items()}
    save_shared(Contributors(contributors=contributors, records=records), paths.contributors)
    if left_out:
        save_shared(LeftOut(weights=left_out), paths.left_out)


def _copy(sources: list[Path], target: Path) -> bool:
    """Copy the first file that is there; whether there is one."""
    source = next((path for path in sources if path.is_file()), None)
    if source is None:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return True


def _explanation(sides: list[_Side], config: Config, dataset: str) -> _Side | None:
    """Who has the picture of the run that is explained in the joined results."""
    run = (dataset, config.explained, config.seeds[0])
    have = [side for side in sides if run in side.records]
    for side in have:
        path = side.paths.explained(dataset)
        if path.is_file():
            made = load_checked(Explained, path, "explanation", "run `ssp explain` again")
            if made.made_from == Origin.of(have[0].records[run]):
                return side
    return None
