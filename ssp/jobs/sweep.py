"""Hyper-parameter search: one Optuna study per (data set, row), the same number of trials for each.

Design choices
- Sees train and validation only. A trial's value is the validation top-1 after its last epoch, because the last epoch
  is what a cell tests; the best trial wins, ties go to the lower validation loss, then to the earlier trial.
- The first trial is the row's start, else the data set's, as it stands, even outside the space: a published setting
  must not be moved to be tried. Method options start from the config, or from the method's defaults.
- Space: the shared one, extended or narrowed by the method's own `sweep_space()`, and that by the config's
  `methods.<name>.space`. What is in no space keeps its start.
- TPE (Optuna) after a third of the trials, at least two, drawn at random; a median pruner compares epochs after
  warm-up, once two trials are complete. A trial that reaches its last epoch is never pruned.
- The sampler is started anew for each trial, from the sweep's seed and the trial's number. With one worker proposals
  are a function of the finished trials alone, so a killed sweep goes on to exactly the same choice. Parallel workers
  (`sweep.workers`) see each other's trials as they come, so a sweep with several does not repeat.
- With no trials the start is the choice, and nothing is trained here.
- A loss that is not finite, or too little memory, makes a failed trial, with the reason; it has spent its budget.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import socket
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ssp.config import Config, Hyperparameters, Range, slice_hash
from ssp.files import writing
from ssp.jobs.cell import Cell, curve, tracked_params, train_epochs
from ssp.jobs.study import (
    FINISHED,
    fail_stale_trials,
    finished_trials,
    open_study,
    remaining_slots,
    take_up,
    trial_epochs,
)
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from ssp.records.choice import Budget, Choice, SweepRun, Trial, best_trial, save_choice
from ssp.records.record import Chosen, Epoch
from ssp.training.execution import derive_seed
from ssp.training.loop import TrainingFailed, failures

log = logging.getLogger(__name__)
SHARED = tuple(Hyperparameters.model_fields)
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def run_sweep(config: Config, dataset: str, method: str) -> Choice:
    """Search, or go on searching, and write the choice file.

    Raises:
        ConfigError: the names are not in the config, or the storage cannot be opened.
        RecordError: the study's journal is damaged.
        StorageError: a file cannot be written.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    cell = Cell(config, dataset, method)
    tracking = Tracking(config)
    parent = tracking.start(cell.name, "sweep", tags=cell.tags, resume=True)
    with writing(cell.paths.journal(dataset, method)):  # Optuna's own errors do not name it
        study, interrupted = take_up(cell)
        while slots := remaining_slots(study, config.sweep.trials):
            if config.sweep.workers == 1:
                _work(cell, study, slots, tracking, parent.id)
            else:
                _work_in_parallel(cell, slots, parent.id)
                interrupted = fail_stale_trials(study)
                if len(remaining_slots(study, config.sweep.trials)) == len(slots):
                    raise RuntimeError(f"{cell.name}: no worker of the sweep finished a trial; see the log above")
    home = tracking.start(cell.name, "cell", tags=cell.tags, resume=True)
    trials = finished_trials(study)
    about = SweepRun(
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        trial_seconds=[trial.user_attrs.get("seconds") for trial in trials.values()],
        interrupted=interrupted,
        host=socket.gethostname(),
        sweep_run_id=parent.id,
        cell_run_id=home.id,
        tracking_uri=tracking.public_uri,
    )
    choice = choose(cell, trials, about)
    save_choice(choice, cell.paths.choice(dataset, method))
    if choice.hyperparameters:
        parent.log_params(tracked_params(choice.hyperparameters, trial=choice.trial))
        if choice.value is not None:
            parent.log_metrics({"val_top1": choice.value})
    home.finish()  # after the choice is safe: a sweep that is killed before goes on in the same two runs
    parent.finish("FAILED" if choice.reason else "FINISHED", choice.reason)
    study.set_user_attr(FINISHED, True)
    return choice


# Trials.


def start_params(cell: Cell, space: dict[str, Range]) -> dict[str, Any]:
    """The first trial. A choice that is not among the choices is left to the sampler: it could not be told apart."""
    options = load_method(cell.row.method)(cell.options({})).options.model_dump()
    start = cell.start.model_dump() | options
    return {name: start[name] for name, r in space.items() if r.choices is None or start[name] in r.choices}


def hyperparameters(cell: Cell, params: dict[str, Any]) -> Chosen:
    """Suggested values over the start; whatever is not shared is an option of the method."""
    start = cell.start.model_dump()
    options = {name: value for name, value in params.items() if name not in SHARED}
    return Chosen(**{name: params.get(name, start[name]) for name in SHARED}, options=cell.options(options))


def _suggest(trial: optuna.Trial, name: str, r: Range, integer: bool) -> Any:  # noqa: ANN401 - a choice is anything
    if r.choices is not None:
        return trial.suggest_categorical(name, r.choices)
    if integer:
        return trial.suggest_int(name, int(r.low), int(r.high), log=r.log)
    return trial.suggest_float(name, r.low, r.high, log=r.log)


def _is_integer(cell: Cell, name: str) -> bool:
    """Whether a method's option takes whole numbers only."""
    if name in SHARED:
        return False
    schema = load_method(cell.row.method).Options.model_json_schema()["properties"][name]
    return schema.get("type") == "integer"


def _work(cell: Cell, study: optuna.Study, slots: Iterable[int], tracking: Tracking, parent: str) -> None:
    """Run the trials of these slots, one after the other."""
    sweep, space = cell.config.sweep, search_space(cell.config, cell.method)
    for slot in slots:
        study.sampler = optuna.samplers.TPESampler(
            seed=derive_seed(sweep.seed, "sampler", slot) % 2**32,
            n_startup_trials=max(2, sweep.trials // 3),
            constant_liar=sweep.workers > 1,
        )
        if slot == 0 and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(start_params(cell, space))
        _run_trial(cell, study, slot, space, tracking, parent)


def _run_trial(
    cell: Cell, study: optuna.Study, slot: int, space: dict[str, Range], tracking: Tracking, parent: str
) -> None:
    """Ask for parameters, train, tell the result."""
    clock = time.perf_counter()
    trial = study.ask()
    trial.set_user_attr("slot", slot)
    params = {name: _suggest(trial, name, r, _is_integer(cell, name)) for name, r in space.items()}
    chosen = hyperparameters(cell, params)
    trial.set_user_attr("hyperparameters", chosen.model_dump(mode="json"))
    run = tracking.start(f"{cell.name}/trial{slot}", "trial", tags=cell.tags, parent=parent)
    run.log_params(tracked_params(chosen, trial=slot))
    log.info("%s trial %d: %s", cell.name, slot, chosen.model_dump())
    state, value, reason = TrialState.COMPLETE, None, None
    try:
        value = _train(cell, study, trial, chosen, slot, run)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except TrainingFailed as failure:
        state, reason = TrialState.FAIL, str(failure)
        trial.set_user_attr("reason", reason)
        log.warning("%s trial %d failed: %s", cell.name, slot, reason)
    trial.set_user_attr("seconds", round(time.perf_counter() - clock, 3))
    # The run first: a trial that is killed in between runs again, while a run would stay RUNNING for good.
    run.finish("FAILED" if reason else "FINISHED", reason or (state == TrialState.PRUNED and "pruned") or None)
    study.tell(trial, value, state=state)


def _train(cell: Cell, study: optuna.Study, trial: optuna.Trial, chosen: Chosen, slot: int, run: TrackedRun) -> float:
    """Validation top-1 after the last epoch."""
    seed, epochs = derive_seed(cell.config.sweep.seed, "trial"), trial_epochs(cell)
    curves: list[dict] = []
    with failures():
        model = cell.build(chosen, seed)
    for epoch in train_epochs(cell, model, chosen, seed, run, f"{cell.name} trial {slot}", epochs=epochs):
        curves.append(curve(epoch).model_dump())
        trial.set_user_attr("epochs", curves)
        trial.report(epoch.val_top1, epoch.epoch)
        if epoch.epoch < epochs and trial.should_prune():
            raise optuna.TrialPruned
    return epoch.val_top1


# Parallel workers.


def _work_in_parallel(cell: Cell, slots: list[int], parent: str) -> None:
    """Hand the slots out to worker processes; returns when all of them are over, whatever became of them."""
    context = multiprocessing.get_context("spawn")
    tickets = context.Queue()
    for slot in slots:
        tickets.put(slot)
    arguments = (cell.config, cell.dataset, cell.method, tickets, parent)
    workers = [
        context.Process(target=_worker, args=(*arguments, number))
        for number in range(min(cell.config.sweep.workers, len(slots)))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _worker(
    config: Config, dataset: str, method: str, tickets: multiprocessing.Queue, parent: str, number: int
) -> None:
    """A worker process: takes slots until there are none. It ends with its parent, however that ended."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    owner, cell, tracking = os.getppid(), Cell(config, dataset, method), Tracking(config)
    study = open_study(cell)
    while os.getppid() == owner:
        try:
            slot = tickets.get(timeout=1)
        except queue.Empty:
            return
        _work(cell, study, [slot], tracking, parent)


# The outcome.


def choose(cell: Cell, trials: dict[int, FrozenTrial], run: SweepRun) -> Choice:
    """What the finished trials amount to."""
    results = [_result(slot, trial) for slot, trial in trials.items()]
    best = best_trial(results)
    chosen = best.hyperparameters if best else None
    if not cell.config.sweep.trials:
        chosen = hyperparameters(cell, {})
    reasons = sorted({trial.reason for trial in results if trial.reason})
    plain = cell.config.sweep_slice(cell.dataset, cell.method)
    return Choice(
        status="ok" if chosen else "failed",
        reason=None if chosen else f"all {len(results)} trials failed ({'; '.join(reasons)})",
        dataset=cell.dataset,
        method=cell.method,
        config=plain,
        config_hash=slice_hash(plain),
        manifest_hash=cell.manifest_hash,
        backbone_hash=cell.backbone_hash,
        budget=Budget(trials=cell.config.sweep.trials, epochs=trial_epochs(cell)),
        space=search_space(cell.config, cell.method),
        hyperparameters=chosen,
        trial=best.number if best else None,
        value=best.value if best else None,
        trials=results,
        run=run,
    )


def _result(slot: int, trial: FrozenTrial) -> Trial:
    return Trial(
        number=slot,
        state=_STATES[trial.state],
        reason=trial.user_attrs.get("reason"),
        params=trial.params,
        hyperparameters=Chosen(**trial.user_attrs["hyperparameters"]),
        value=trial.value,
        epochs=[Epoch(**epoch) for epoch in trial.user_attrs.get("epochs", [])],
    )
