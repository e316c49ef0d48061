"""The model of a finished run: built as its record says, from the same backbone file, with the tuned weights on top.

Here it reads test again; `ssp.use` puts it to work on other videos.
"""

from __future__ import annotations

import logging

import torch

from ssp.backbone.checkpoint import load_tuned
from ssp.backbone.videomamba import VideoMamba
from ssp.config import Clips, Config
from ssp.errors import CheckpointError, ConfigError, RecordError
from ssp.files import file_sha256
from ssp.jobs.cell import Cell
from ssp.jobs.lease import held
from ssp.jobs.training import predict_test
from ssp.records.predictions import merge_views, metrics
from ssp.records.readings import count_rereading, load_readings
from ssp.records.record import Record, load_record, package_versions
from ssp.records.runs import read_run, train_again
from ssp.scan import choose_backend

log = logging.getLogger(__name__)


def saved_model(cell: Cell, seed: int) -> tuple[VideoMamba, Record]:
    """The model of a run that is done, and its record.

    Raises:
        RecordError: there is no record, it says that the run failed, or that it started from another backbone or was
            tested with other weights.
        CheckpointError: tuned weights or backbone are missing or do not fit.
    """
    if seed not in cell.config.seeds:
        raise ConfigError(f"--seed: {seed} is not in config '{cell.config.name}'; it has: {cell.config.seeds}")
    again = f"run again: {train_again(cell.config, cell.dataset, cell.method, seed)}"
    record = load_record(cell.paths.record(cell.dataset, cell.method, seed), again)
    if record.hyperparameters is None or record.status != "ok":
        raise RecordError(f"{cell.name} seed {seed} has no weights: the run failed ({record.reason})")
    backbone, name = cell.backbone_file(), cell.config.datasets[cell.dataset].checkpoint
    if not backbone.is_file():
        raise CheckpointError(
            f"{backbone.absolute()}: no such file, but {cell.name} was tuned from this backbone; put it there, or mend "
            f"backbone.checkpoints.{name} in {cell.config.origin}"
        )
    if record.backbone_hash not in (None, cell.backbone_hash):
        raise RecordError(
            f"{cell.backbone_file()}: not the weights that {cell.name} seed {seed} was trained from; put those back, "
            f"or {again}"
        )
    model = cell.build(record.hyperparameters, seed)
    weights = cell.paths.weights(cell.dataset, cell.method, seed)
    load_tuned(model, weights)
    # Those of another seed, or of a training anew that was killed before its record, fit the model as well.
    if record.weights_sha256 not in (None, file_sha256(weights)):
        raise RecordError(f"{weights}: not the weights that its record was measured with; put those back, or {again}")
    return model, record


def evaluate_saved(config: Config, dataset: str, method: str, seed: int) -> str:
    """Read test again with saved weights, count that in the record, and give the metrics as text.

    Numbers must be those of the record, to the last digit. Another device, scan backend or version of torch may round a
    logit otherwise and so move a video that is nearly a tie: then they are not these numbers, and the error says on
    what they were read.

    Raises:
        RecordError: as `ssp.records.runs.read_run` and `saved_model`; or the metrics are others than the record's.
    """
    cell = Cell(config, dataset, method)
    path, readings = cell.paths.record(dataset, method, seed), cell.paths.readings(dataset, method, seed)
    load_readings(readings)  # before anything is read that could not be counted
    read_run(config, dataset, method, seed)  # a record that is stale or whose seal is broken is nothing to compare with
    model, _ = saved_model(cell, seed)
    log.warning(
        "This reads test again, and the record counts it. What is chosen after a look at test is measured on videos "
        "that it was chosen by, and tables mark it"
    )
    found = metrics(merge_views(predict_test(cell, model), config.quirk("merge_ids")))
    with held(cell.paths.lease(path)):  # another may read it at the same time, or train it anew
        record = count_rereading(path, readings)
    recorded = record.metrics.model_dump(include=set(found))
    if differing := [name for name in found if recorded[name] != found[name]]:
        numbers = ", ".join(f"{name} {found[name]}, not {recorded[name]}" for name in differing)
        raise RecordError(f"{path}: test read again gives {numbers}; {_unlike(cell, record)}")
    lines = [
        f"{name:8} {value:.2f}" if isinstance(value, float) else f"{name:8} {value}" for name, value in found.items()
    ]
    return "\n".join([*lines, f"equal to the record; test was read {record.test_readings} times from this choice"])


def other_environment(cell: Cell, record: Record) -> list[str]:
    """What here is not as where a record was made, and may round otherwise: device, scan, versions of packages."""
    versions, scan = package_versions(), choose_backend(torch.float32, cell.execution.device).name
    names = record.versions.keys() | versions.keys()
    return [
        f"{name} {now} (recorded: {then})"
        for name, now, then in (
            ("device", cell.execution.name, record.device),
            ("scan", scan, record.scan.backend if record.scan else scan),
            *((name, versions.get(name), record.versions.get(name)) for name in sorted(names)),
        )
        if now != then
    ]


def _unlike(cell: Cell, record: Record) -> str:
    """What numbers that are not the record's may come from, as the end of an error."""
    if other := other_environment(cell, record):
        return f"this is {', '.join(other)}, which may round otherwise: evaluate where it was trained"
    others = "data or code" if record.weights_sha256 else "weights, data or code"
    return f"device, scan and versions are the record's, so {others} are others; run again: " + train_again(
        cell.config, cell.dataset, cell.method, record.seed
    )


def central_view(clips: Clips) -> int:
    """Which of a video's test views is the middle crop of its middle segment."""
    return clips.test_segments // 2 * clips.test_crops + clips.test_crops // 2
