"""One run of somebody's results, trained again in a scratch folder and compared; nothing is written to the results.

Design choices
- It starts from the frozen choice and is trained, and tested, by what trains and tests in the workflow.
- On the same device with the same scan and versions, predictions must be the same file. Elsewhere numbers round
  otherwise and training drifts apart: then it is one more run of its cell, and its accuracy must lie where one more
  would, by the spread over the cell's seeds (as with published numbers, `ssp.tables.verdict`).
- Tracking goes to the scratch folder, not to a server that the config may name.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ssp.config import Config, Tracking, load_results_config
from ssp.data.manifest import manifest_hash
from ssp.errors import ConfigError, DataError
from ssp.jobs.cell import Cell
from ssp.jobs.inference import other_environment
from ssp.jobs.seed import train_cell
from ssp.jobs.tracking import init_tracking
from ssp.paths import Paths
from ssp.records.record import Record
from ssp.records.runs import read_run
from ssp.tables import crossed, stats, verdict
from ssp.tables.cells import read_cells, read_tested


@dataclass(frozen=True)
class Outcome:
    """What came of training a run again."""

    same: bool
    """Whether it is what the results say, to the byte or, elsewhere, within noise."""
    lines: list[str]


def rerun(folder: Path, dataset: str, row: str, seed: int) -> Outcome:
    """Train a run of a folder of results again, elsewhere, and compare.

    Raises:
        ConfigError: the config has no such run, its method is not installed, or the GPU it asks for is not there.
        DataError: data or backbone are not here, or not those of the record; the message says what is missing.
        RecordError: record, predictions or choice are missing or contradict each other.
    """
    theirs = load_results_config(folder)
    run = (dataset, row, seed)
    if run not in theirs.runs():
        known = ", ".join(f"{d} {r} {s}" for d, r, s in theirs.runs()[:3])
        raise ConfigError(f"--rerun: no run {dataset} {row} {seed} in {theirs.origin}; it has: {known}, ...")
    record, _ = read_run(theirs, *run)
    with tempfile.TemporaryDirectory(prefix="ssp-") as scratch:
        ours = theirs.placed(home=Path(scratch)).model_copy(update={"tracking": Tracking()})
        _bring(theirs, ours, record)
        init_tracking(ours)
        again = train_cell(ours, *run)
        return _compared(theirs, ours, record, again)


def _bring(theirs: Config, ours: Config, record: Record) -> None:
    """Put the choice and a pre-trained backbone into the scratch folder; names what is missing, of data too."""
    source, target, dataset = Paths.of(theirs), Paths.of(ours), record.dataset
    settings = theirs.datasets[dataset]
    checkpoint = theirs.backbone.checkpoints[settings.checkpoint]
    study = (dataset, theirs.rows[record.method].tuned_as, theirs.study_of(record.seed))
    copied = {source.choice(*study): target.choice(*study)}
    needed = [source.manifest(dataset), *(source.shard(dataset, k) for k in range(settings.frames.shards))]
    if checkpoint.pretrain:
        copied[source.backbone(settings.checkpoint)] = target.backbone(settings.checkpoint)
    else:
        needed.append(checkpoint.local or source.fetched_checkpoint(checkpoint.archive.file))
    if missing := [path for path in (*copied, *needed) if not path.is_file()]:
        made = " ".join(str(path) for path in missing[:3] if path != checkpoint.local)
        fix = f"make it: snakemake --cores all {made} --configfile {theirs.origin}" if made else "put it there"
        more = f" (and {len(missing) - 1} more files)" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}: not here{more}, but needed to train {dataset} {record.method} again; {fix}")
    if (found := manifest_hash(needed[0])) != record.manifest_hash:
        raise DataError(
            f"{needed[0]}: other videos or another split (hash {found}) than those of the record "
            f"({record.manifest_hash}); get these, or name their data_root in {theirs.origin}"
        )
    for path, place in copied.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _compared(theirs: Config, ours: Config, record: Record, again: Record) -> Outcome:
    """What the two runs have in common, and what not."""
    run = (record.dataset, record.method, record.seed)
    name = " ".join(map(str, run))
    if "failed" in (record.status, again.status):
        same = (record.status, record.reason) == (again.status, again.reason)
        told = [f"{who}: {one.reason or 'came to its end'}" for who, one in (("recorded", record), ("again", again))]
        return Outcome(same, [f"{name}: {'fails as recorded' if same else 'differs'}", *told])
    if again.predictions.sha256 == record.predictions.sha256:
        weights = (
            "weights: the record has no checksum of them"
            if record.weights_sha256 is None
            else "weights: the same, byte by byte"
            if record.weights_sha256 == again.weights_sha256
            else "weights: other bytes, which predict the same"
        )
        return Outcome(True, [f"{name}: the same", "predictions: the same, byte by byte", weights])
    (_, was), (_, now) = read_tested(theirs, *run), read_tested(ours, *run)
    lines = [
        f"top-1: {record.metrics.top1:.4f} % recorded, {again.metrics.top1:.4f} % again",
        f"videos that are named otherwise: {_named_otherwise(was, now)} of {len(was)}",
        *_differing(record, again),
    ]
    elsewhere = other_environment(Cell(ours, record.dataset, record.method), record)
    if not elsewhere:
        return Outcome(False, [f"{name}: differs, with the record's device, scan and versions", *lines])
    lines.append(f"made elsewhere: here is {', '.join(elsewhere)}")
    mean, reach = _one_more_run(theirs, record)
    if math.isnan(reach):
        told = "noise: nobody can say, as a cell with one seed has no spread"
        return Outcome(False, [f"{name}: differs, perhaps by noise", *lines, told])
    distance = abs(again.metrics.top1 - mean)
    told = (
        f"noise: in {100 * stats.LEVEL:.0f} % of cases one more run of this cell lies within {reach:.2f} points of its "
        f"mean {mean:.2f} %; this one is {distance:.2f} off"
    )
    inside = distance <= reach
    return Outcome(inside, [f"{name}: {'the same within noise' if inside else 'differs beyond noise'}", *lines, told])


def _one_more_run(config: Config, record: Record) -> tuple[float, float]:
    """Mean top-1 of a cell over its seeds in percent, and how far one more run may lie from it; NaN with one seed."""
    seeds = [seed for d, r, seed in config.runs() if (d, r) == (record.dataset, record.method)]
    cells = read_cells(config, [config.column_of(record.dataset)], [record.method], seeds)
    (cell,) = (split for cell in cells for split in cell.splits if split.dataset == record.dataset)
    parts = verdict.one_more_run(cell.tally, 0.0)
    return float(parts.estimate), float(crossed.reach(parts, stats.LEVEL))


def _named_otherwise(was: pd.DataFrame, now: pd.DataFrame) -> int:
    """Videos of merged predictions with another class, or in one of the two alone."""
    both = was.merge(now, on="id")
    return int((both["predicted_x"] != both["predicted_y"]).sum()) + len(was) + len(now) - 2 * len(both)


def _differing(record: Record, again: Record) -> list[str]:
    """Other facts of the two records that are not the same."""
    found = []
    for name in ("hyperparameters", "parameters", "epochs", "best_epoch", "backbone_hash"):
        old, new = getattr(record, name), getattr(again, name)
        if old != new and old is not None:
            found.append(f"{name}: {old} recorded, {new} again")
    first = next((a.epoch for a, b in zip(record.curves, again.curves, strict=False) if a != b), None)
    if first is not None:
        found.append(f"curves: differ from epoch {first} on")
    if record.git.commit != again.git.commit:
        found.append(f"commit: {record.git.commit[:10]} recorded, {again.git.commit[:10]} again")
    return found
