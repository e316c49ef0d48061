"""The run of one seed of a cell: train from the frozen choice, read test once, write down what came out.

Design choices
- Trains on all training videos, those that validation was carved from included (`refit: false`: without them, and
  validation is measured for the curves only). When the last epoch is over, reads test once, in the same process; there
  is no best epoch. With the quirk `best_epoch: published` there is: test chooses it, read after each epoch.
- Weights, predictions and record are each written atomically, and the MLflow run is closed; then predictions and record
  appear, the record last, and only then the training state goes. So a run that is killed in between goes on from there.
- That test was read is noted before the record says what came out (`ssp.records.readings`).
- A training that fails for a reason of its own (loss not finite, out of memory) writes all three too, says why in the
  record, and the workflow goes on.
- A killed run continues after its last epoch, or where it has last saved within one; its MLflow run goes on as well.
"""

from __future__ import annotations

import json
import logging
import resource
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from ssp.backbone.checkpoint import save_tuned, write_safetensors
from ssp.config import Config, slice_hash
from ssp.errors import ConfigError, RecordError
from ssp.files import file_sha256
from ssp.jobs.cell import Cell
from ssp.jobs.lease import lease
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.jobs.training import curve, predict_test, together, tracked_params, train_epochs
from ssp.methods.parameters import parameter_counts
from ssp.records.choice import Choice, load_choice, search_again
from ssp.records.predictions import merge_views, metrics
from ssp.records.readings import Reading, counted, load_readings, note_reading, this_moment
from ssp.records.record import (
    BestEpoch,
    Metrics,
    Parameters,
    PredictionsFile,
    Record,
    Run,
    Scan,
    load_record,
    package_versions,
    running_code,
    save_record,
)
from ssp.scan import choose_backend
from ssp.training.evaluate import empty_predictions, write_predictions
from ssp.training.failure import TrainingFailed, failures
from ssp.training.loop import EpochResult, TrainingState, best_of
from ssp.training.stopping import stoppable

log = logging.getLogger(__name__)


@dataclass
class _Outcome:
    """What a run has found so far; a failure leaves the rest empty."""

    epochs: list[EpochResult] = field(default_factory=list)
    parameters: Parameters | None = None
    predictions: pd.DataFrame = field(default_factory=empty_predictions)
    best_epoch: BestEpoch | None = None
    metrics: Metrics | None = None
    test_seconds: float | None = None
    reason: str | None = None


def train_cell(config: Config, dataset: str, method: str, seed: int) -> Record:
    """Train one seed of a cell from the frozen choice, test it, and write weights, predictions and record.

    Where another process is at it, waits for that, and takes what it has made.

    Raises:
        ConfigError: the names are not in the config, or the GPU it asks for is not there.
        RecordError: the choice is missing, or of another config or other data.
    """
    cell = Cell(config, dataset, method, config.study_of(seed))
    seeds = [known for d, m, known in config.runs() if (d, m) == (dataset, method)]
    if seed not in seeds:
        raise ConfigError(f"config '{config.name}': no seed {seed}; it has: {', '.join(map(str, seeds))}")
    predictions, record = cell.paths.predictions(dataset, method, seed), cell.paths.record(dataset, method, seed)
    place = cell.paths.lease(record)
    with together(cell) as cell, stoppable():
        choice = _take_over(cell, load_choice(cell.choice_file, config, dataset, cell.row.tuned_as, cell.study))
        _check_origin(cell, choice)
        state = TrainingState(cell.paths.training_state(dataset, method, seed), _identity(cell, choice, seed))
        with lease(place, [predictions, record], state.identity, state.remove) as draft:
            return _run_seed(cell, seed, choice, state, draft) if draft else load_record(place / record.name)


def _run_seed(cell: Cell, seed: int, choice: Choice, state: TrainingState, draft: Path) -> Record:
    """The run, by the one process that is at it; predictions and record go into a folder, until all is done."""
    started, clock = datetime.now(UTC), time.perf_counter()
    config, dataset, method = cell.config, cell.dataset, cell.method
    load_readings(cell.paths.readings(dataset, method, seed))  # a damaged file is met now, not after the training
    tracking = Tracking(config)
    run = tracking.start(
        f"{cell.name}/seed{seed}",
        "seed",
        tags=cell.tags | {"ssp.seed": str(seed)},
        parent=choice.run.cell_run_id,
        resume=state.path.exists(),
    )
    outcome = _Outcome()
    try:
        _train_and_test(cell, choice, seed, state, run, outcome)
    except TrainingFailed as failure:
        log.warning("%s seed %d failed: %s", cell.name, seed, failure)
        outcome.reason = str(failure)
        # The weights file of a failed cell: no tensors, and the reason.
        about = _about(cell, seed) | {"status": "failed", "reason": outcome.reason}
        write_safetensors({}, cell.paths.weights(dataset, method, seed), about)
    predictions = draft / cell.paths.predictions(dataset, method, seed).name
    write_predictions(outcome.predictions, predictions)
    seconds = time.perf_counter() - clock
    processes = cell.team.size if cell.team else 1
    about = _run(outcome, started, seconds, cell.execution.device, processes, run, tracking.public_uri)
    record = _with_readings(cell, _record(cell, choice, seed, outcome, about, predictions))
    save_record(record, draft / cell.paths.record(dataset, method, seed).name)
    _track_result(cell, record, run, predictions)
    return record


def _take_over(cell: Cell, choice: Choice) -> Choice:
    """A choice with the options of this cell, where it is that of the row that an ablation varies."""
    if not choice.hyperparameters:
        return choice
    options = cell.options(choice.hyperparameters.options)
    return choice.model_copy(update={"hyperparameters": choice.hyperparameters.model_copy(update={"options": options})})


def _check_origin(cell: Cell, choice: Choice) -> None:
    """Refuse a choice that was made on other data or from another backbone than there are now."""
    for what, theirs, ours in (
        (f"on another manifest of '{cell.dataset}' than there is", choice.manifest_hash, cell.manifest_hash),
        (f"with other weights than {cell.backbone_file()} has", choice.backbone_hash, cell.backbone_hash),
    ):
        if theirs not in (ours, None):
            raise RecordError(
                f"{cell.choice_file}: was chosen {what} now; "
                f"run again: {search_again(cell.config, cell.dataset, cell.row.tuned_as, cell.study)}"
            )


def _identity(cell: Cell, choice: Choice, seed: int) -> str:
    """What a training state belongs to; of a changed config, choice or data nothing is continued."""
    parts = {
        "cell": cell.config.cell_slice(cell.dataset, cell.method),
        "chosen": choice.hyperparameters.model_dump(mode="json") if choice.hyperparameters else None,
        "manifest": cell.manifest_hash,
        "backbone": cell.backbone_hash,
        "seed": seed,
    }
    return slice_hash(parts)


def _train_and_test(
    cell: Cell, choice: Choice, seed: int, state: TrainingState, run: TrackedRun, outcome: _Outcome
) -> None:
    """Train, save the weights, read test; fills `outcome` on the way, so that a failure leaves what there was."""
    if choice.hyperparameters is None:
        raise TrainingFailed(f"sweep: {choice.reason}")
    chosen, recipe = choice.hyperparameters, cell.config.datasets[cell.dataset].recipe
    run.log_params(tracked_params(chosen, seed=seed, epochs=recipe.epochs, batch_size=recipe.batch_size))
    with failures():
        model = cell.build(chosen, seed)
    outcome.parameters = Parameters(**parameter_counts(model))
    on = "trainval" if cell.config.refit else "train"
    best, title = cell.config.quirk("best_epoch") == "published", f"{cell.name} seed {seed}"
    for epoch in train_epochs(cell, model, chosen, seed, run, title, on=on, best_on_test=best, state=state):
        outcome.epochs.append(epoch)
    taken = best_of(outcome.epochs) if best else outcome.epochs[-1]
    outcome.best_epoch = BestEpoch(epoch=taken.epoch, measured_on="test") if best else None
    # Weights first: from here on nothing trains, and test is read once.
    save_tuned(
        model,
        cell.paths.weights(cell.dataset, cell.method, seed),
        _about(cell, seed) | {"status": "ok", "identity": state.identity},
    )
    clock = time.perf_counter()
    outcome.predictions = predict_test(cell, model)
    outcome.test_seconds = time.perf_counter() - clock
    outcome.metrics = Metrics(
        **metrics(merge_views(outcome.predictions, cell.config.quirk("merge_ids"))),
        val_top1=taken.val_top1,
        val_loss=taken.val_loss,
    )


def _about(cell: Cell, seed: int) -> dict[str, str]:
    """What the weights file says of where it comes from; `config` is the slice that decides the cell, as JSON."""
    plain = cell.config.cell_slice(cell.dataset, cell.method)
    return {"cell": f"{cell.name}/seed{seed}", "config": json.dumps(plain, sort_keys=True, ensure_ascii=False)}


def _record(cell: Cell, choice: Choice, seed: int, outcome: _Outcome, run: Run, predictions: Path) -> Record:
    """Everything there is to know about a run."""
    plain = cell.config.cell_slice(cell.dataset, cell.method)
    scan = choose_backend(torch.float32, cell.execution.device)
    return Record(
        status="failed" if outcome.reason else "ok",
        reason=outcome.reason,
        dataset=cell.dataset,
        method=cell.method,
        seed=seed,
        config=plain,
        config_hash=slice_hash(plain),
        hyperparameters=choice.hyperparameters,
        sweep=choice.summary(),
        git=running_code(),
        versions=package_versions(),
        device=cell.execution.name,
        scan=Scan(backend=scan.name, reason=scan.reason),
        manifest_hash=cell.manifest_hash,
        backbone_hash=cell.backbone_hash,
        epochs=len(outcome.epochs),
        best_epoch=outcome.best_epoch,
        parameters=outcome.parameters,
        metrics=outcome.metrics,
        curves=[curve(epoch) for epoch in outcome.epochs],
        predictions=PredictionsFile(
            path=cell.paths.predictions(cell.dataset, cell.method, seed).as_posix(), sha256=file_sha256(predictions)
        ),
        weights_sha256=file_sha256(cell.paths.weights(cell.dataset, cell.method, seed)),
        run=run,
    )


def _with_readings(cell: Cell, record: Record) -> Record:
    """The record with what is known of readings of test; its own, if it came to its end, is noted first."""
    path = cell.paths.readings(record.dataset, record.method, record.seed)
    choice = (record.config_hash, record.hyperparameters)
    if record.metrics:
        note_reading(path, Reading(by="train", config_hash=choice[0], hyperparameters=choice[1], run=this_moment()))
    return record.model_copy(update=counted(load_readings(path), choice))


def _run(
    outcome: _Outcome,
    started: datetime,
    seconds: float,
    device: torch.device,
    processes: int,
    run: TrackedRun,
    uri: str,
) -> Run:
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    restored = sum(epoch.restored for epoch in outcome.epochs)
    before = sum(epoch.seconds_before for epoch in outcome.epochs)
    return Run(
        started=started.isoformat(timespec="seconds"),
        seconds=round(seconds + before, 3),
        seconds_before=round(before, 3),
        epoch_seconds=[round(epoch.seconds, 3) for epoch in outcome.epochs],
        test_seconds=None if outcome.test_seconds is None else round(outcome.test_seconds, 3),
        resumed_after_epoch=restored or None,
        host=socket.gethostname(),
        processes=processes,
        largest_pass=min((epoch.largest_pass for epoch in outcome.epochs if epoch.largest_pass), default=None),
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        peak_gpu_memory_mb=None if gpu is None else round(gpu, 1),
        mlflow_run_id=run.id,
        tracking_uri=uri,
    )


def _track_result(cell: Cell, record: Record, run: TrackedRun, predictions: Path) -> None:
    """Close the MLflow run with what the record says."""
    if record.metrics and record.parameters:
        measured = {f"test_{k}": v for k, v in record.metrics.model_dump().items() if not k.startswith("val_")}
        measured |= {f"parameters_{k}": v for k, v in record.parameters.model_dump().items()}
        measured |= {"seconds": record.run.seconds, "peak_memory_mb": record.run.peak_memory_mb}
        run.log_metrics(measured, record.epochs)
    run.log_artifact(cell.paths.weights(cell.dataset, cell.method, record.seed))
    run.log_artifact(predictions)
    run.finish("FAILED" if record.reason else "FINISHED", record.reason)
