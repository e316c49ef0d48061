"""Hyper-parameter search: one Optuna study per (data set, row), or several (`sweep.repeats`), all with one budget.

Design choices
- Successive halving (`sweep.fidelity`): the first rung proposes, and each next one trains the best trials of the one
  before it anew, under its own budget, once that is complete. Without it there is one rung. The choice is the best
  trial of the last; trials of two rungs are never compared.
- Sees train and validation only. A trial's value is the validation top-1 after its last epoch, because the last epoch
  is what a cell tests; the best trial wins, ties go to the lower validation loss, then to the earlier trial. With
  `validation.folds` it is the top-1 over the videos of all folds, each left out of a training of its own.
- The first trial is the row's start, else the data set's, as it stands, even outside the space: a published setting
  must not be moved to be tried. Method options start from the config, or from the method's defaults.
- Space: the shared one, extended or narrowed by the method's own `sweep_space()`, and that by the config's
  `methods.<name>.space`. What is in no space keeps its start.
- TPE (Optuna) after a third of the trials, at least two, drawn at random; a median pruner compares epochs after
  warm-up, once two trials are complete. A trial that reaches its last epoch is never pruned, nor one with folds.
- The sampler is started anew for each trial, from the sweep's seed and the trial's number. With one worker proposals
  are a function of the finished trials alone, so a killed sweep goes on to exactly the same choice. Parallel workers
  (`sweep.workers`) see each other's trials as they come, so a sweep with several does not repeat.
- Trials of a method that trains the readout alone share the features of the frozen trunk (`ssp.training.features`),
  with one worker: it costs one stream for each drop path rate, and the choice is the same.
- With no trials the start is the choice, and nothing is trained here.
- A loss that is not finite, or too little memory, makes a failed trial, with the reason; it has spent its budget.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ssp.config import Config, Hyperparameters, Range, slice_hash
from ssp.errors import ConfigError
from ssp.files import writing
from ssp.jobs.cell import Cell, curve, together, tracked_params, train_epochs
from ssp.jobs.lease import lease
from ssp.jobs.study import FINISHED, fail_stale_trials, finished_trials, open_study, remaining_slots, take_up
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from ssp.records.choice import Choice, SweepRun, Trial, last_rung, load_choice, ranked, save_choice
from ssp.records.record import Chosen, Epoch
from ssp.training.execution import derive_seed
from ssp.training.failure import TrainingFailed, failures
from ssp.training.loop import TrainingState
from ssp.training.parallel import launched
from ssp.training.stopping import Interrupted, asked_to_stop, stop_if_asked, stoppable

log = logging.getLogger(__name__)
SHARED = tuple(Hyperparameters.model_fields)
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def run_sweep(config: Config, dataset: str, method: str, study: int | None = None) -> Choice:
    """Search, or go on searching, and write the choice file; where another process is at it, take what that has chosen.

    Raises:
        ConfigError: the names are not in the config, or the storage cannot be opened.
        RecordError: the study's journal is damaged.
        StorageError: a file cannot be written.
    """
    cell = Cell(config, dataset, method, study, job="sweep")
    if study not in config.study_numbers:
        known = ", ".join(map(str, config.study_numbers))
        fix = f"give one of {known}" if config.sweep.repeats > 1 else "leave it out, there is one study"
        raise ConfigError(f"--study: {fix} (sweep.repeats of config '{config.name}')")
    if config.sweep.workers > 1 and launched().size > 1:
        raise ConfigError(
            f"sweep.workers: {config.sweep.workers} cannot share the processes of a launcher; set it to 1"
        )
    path = cell.paths.choice(dataset, method, study)
    with together(cell) as cell, lease(cell.paths.lease(path), [path]) as draft, stoppable():
        return _search(cell, draft / path.name) if draft else load_choice(path, config, dataset, method, study)


def _search(cell: Cell, file: Path) -> Choice:
    """The search, by the one process that is at it."""
    started, clock = datetime.now(UTC), time.perf_counter()
    config, dataset, method, study = cell.config, cell.dataset, cell.method, cell.study
    tracking = Tracking(config)
    parent = tracking.start(cell.name, "sweep", tags=cell.tags, resume=True)
    results: list[Trial] = []
    seconds: list[float | None] = []
    with writing(cell.paths.journal(dataset, method, study)):  # Optuna's own errors do not name it
        studies, best = take_up(cell), []
        for rung, one in enumerate(studies):
            _fill(cell, one, rung, best, tracking, parent.id)
            found = finished_trials(one)
            seconds += [trial.user_attrs.get("seconds") for trial in found.values()]
            results += (own := [_result(cell, rung, slot, trial) for slot, trial in found.items()])
            best = ranked(own)
        interrupted = sum(map(fail_stale_trials, studies))
    home = tracking.start(cell.name, "cell", tags=cell.tags, resume=True)
    about = SweepRun(
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        trial_seconds=seconds,
        interrupted=interrupted,
        host=socket.gethostname(),
        sweep_run_id=parent.id,
        cell_run_id=home.id,
        tracking_uri=tracking.public_uri,
    )
    choice = choose(cell, results, about)
    save_choice(choice, file)
    for folder in (cell.paths.features(cell.name), _trial_states(cell)):
        shutil.rmtree(folder, ignore_errors=True)
    if choice.hyperparameters:
        parent.log_params(tracked_params(choice.hyperparameters, trial=choice.trial))
        if choice.value is not None:
            parent.log_metrics({"val_top1": choice.value})
    home.finish()  # after the choice is safe: a sweep that is killed before goes on in the same two runs
    parent.finish("FAILED" if choice.reason else "FINISHED", choice.reason)
    if studies:
        studies[0].set_user_attr(FINISHED, True)
    return choice


def _fill(cell: Cell, study: optuna.Study, rung: int, best: list[Trial], tracking: Tracking, parent: str) -> None:
    """Run the trials that a rung still lacks; `best` are those of the rung before, best first."""
    asked = cell.config.rungs(cell.dataset)[rung].trials
    while slots := remaining_slots(study, min(asked, len(best)) if rung else asked):
        if cell.config.sweep.workers == 1:
            # One by one: what waits is taken in the order of queueing, which a kill must not change.
            _enqueue(cell, study, rung, slots[:1], best)
            _work(cell, study, rung, slots[0], tracking, parent)
        else:
            _enqueue(cell, study, rung, slots, best)
            _work_in_parallel(cell, rung, slots, parent)
            stop_if_asked()
            fail_stale_trials(study)
            if not set(slots) - set(remaining_slots(study, asked)):
                raise RuntimeError(f"{cell.name}: no worker of the sweep finished a trial; see the log above")


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


def _enqueue(cell: Cell, study: optuna.Study, rung: int, slots: list[int], best: list[Trial]) -> None:
    """What is not left to the sampler: the start in the first rung, the best of the rung before in each next one."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if rung:
        there = {trial.user_attrs["slot"] for trial in waiting}
        for slot in slots:
            if slot not in there:
                study.enqueue_trial(best[slot].params, user_attrs={"slot": slot, "of": best[slot].number})
    elif 0 in slots and not waiting:
        study.enqueue_trial(start_params(cell, search_space(cell.config, cell.method)))


def _work(cell: Cell, study: optuna.Study, rung: int, slot: int, tracking: Tracking, parent: str) -> None:
    """Run the trial of a slot: ask for parameters, train, tell the result."""
    clock, space = time.perf_counter(), search_space(cell.config, cell.method)
    study.sampler = optuna.samplers.TPESampler(
        seed=derive_seed(cell.search_seed, "sampler", slot) % 2**32,
        n_startup_trials=max(2, cell.config.rungs(cell.dataset)[rung].trials // 3),
        constant_liar=cell.config.sweep.workers > 1,
    )
    trial = study.ask()
    if rung:
        slot = trial.user_attrs["slot"]  # each worker takes one that waits, whichever
    else:
        trial.set_user_attr("slot", slot)
    params = {name: _suggest(trial, name, r, _is_integer(cell, name)) for name, r in space.items()}
    chosen = hyperparameters(cell, params)
    trial.set_user_attr("hyperparameters", chosen.model_dump(mode="json"))
    number = _number(cell, rung, slot)
    name = f"{cell.name}/trial{number}"
    run = tracking.start(name, "trial", tags=cell.tags, parent=parent)
    run.log_params(tracked_params(chosen, trial=number, **({"rung": rung} if rung else {})))
    log.info("%s trial %d: %s", cell.name, number, chosen.model_dump())
    state, value, reason = TrialState.COMPLETE, None, None
    try:
        value = _train(cell, trial, chosen, rung, name, run, tracking)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except TrainingFailed as failure:
        state, reason = TrialState.FAIL, str(failure)
        trial.set_user_attr("reason", reason)
        log.warning("%s trial %d failed: %s", cell.name, number, reason)
    trial.set_user_attr("seconds", round(time.perf_counter() - clock, 3))
    # The run first: a trial that is killed in between runs again, while a run would stay RUNNING for good.
    run.finish("FAILED" if reason else "FINISHED", reason or (state == TrialState.PRUNED and "pruned") or None)
    study.tell(trial, value, state=state)
    shutil.rmtree(_trial_states(cell) / str(number), ignore_errors=True)


def _trial_states(cell: Cell) -> Path:
    """What killed trials continue from, a folder for each; removed when it is over."""
    return cell.paths.trial_states(cell.dataset, cell.method, cell.study)


def _trial_state(cell: Cell, trial: optuna.Trial, rung: int, fold: int, chosen: Chosen) -> TrainingState:
    """Where a trial goes on that was killed: the next one of its slot, if that is proposed the same."""
    number = _number(cell, rung, trial.user_attrs["slot"])
    identity = slice_hash({"study": trial.study.study_name, "number": number, "chosen": chosen.model_dump(mode="json")})
    return TrainingState(_trial_states(cell) / str(number) / f"fold{fold}.pt", identity)


def _number(cell: Cell, rung: int, slot: int) -> int:
    """The number of a trial among those of all rungs."""
    return sum(budget.trials for budget in cell.config.rungs(cell.dataset)[:rung]) + slot


def _train(
    cell: Cell, trial: optuna.Trial, chosen: Chosen, rung: int, name: str, run: TrackedRun, tracking: Tracking
) -> float:
    """Validation top-1 after the last epoch, over the videos of all folds."""
    seed, budget = derive_seed(cell.search_seed, "trial"), cell.config.rungs(cell.dataset)[rung]
    folds = cell.config.datasets[cell.dataset].validation.folds
    curves: list[list[Epoch]] = []
    for fold in range(folds):
        part, own = cell.view(fold, budget.videos), f"{name}/fold{fold}" if folds > 1 else name
        with failures():
            model = part.build(chosen, seed)
        curves.append([])
        with _fold_run(tracking, own, cell, run) if folds > 1 else nullcontext(run) as tracked:
            share = model.trunk_is_frozen and shares_features(cell)  # then it is quick, and has no state of its own
            state = None if share else _trial_state(cell, trial, rung, fold, chosen)
            epochs = {"epochs": budget.epochs, "share": share, "state": state}
            for epoch in train_epochs(part, model, chosen, seed, tracked, own, **epochs):
                curves[-1].append(curve(epoch))
                if folds == 1:
                    trial.set_user_attr("epochs", _plain(curves[0]))
                    trial.report(epoch.val_top1, epoch.epoch)
                    if epoch.epoch < budget.epochs and trial.should_prune():
                        raise optuna.TrialPruned
    if folds > 1:
        trial.set_user_attr("folds", [own[-1].val_top1 for own in curves])
        curves[0] = pooled(curves, [len(cell.view(fold, budget.videos).rows("val")) for fold in range(folds)])
        trial.set_user_attr("epochs", _plain(curves[0]))
    return curves[0][-1].val_top1


@contextmanager
def _fold_run(tracking: Tracking, key: str, cell: Cell, trial: TrackedRun) -> Iterator[TrackedRun]:
    """A tracked run for the curves of one fold."""
    run = tracking.start(key, "fold", tags=cell.tags, parent=trial.id)
    try:
        yield run
    except TrainingFailed as failure:
        run.finish("FAILED", str(failure))
        raise
    run.finish()


def pooled(curves: list[list[Epoch]], videos: list[int]) -> list[Epoch]:
    """Curves of folds as one, over the validation videos of all."""
    return [
        Epoch(
            epoch=folds[0].epoch,
            **{
                name: float(np.average([getattr(fold, name) for fold in folds], weights=videos))
                for name in ("lr", "train_loss", "val_loss", "val_top1")
            },
        )
        for folds in zip(*curves, strict=True)
    ]


def _plain(epochs: list[Epoch]) -> list[dict[str, Any]]:
    return [epoch.model_dump() for epoch in epochs]


def shares_features(cell: Cell) -> bool:
    """Whether a trial may have the drop path and options of an earlier one, and no other process writes features."""
    space = search_space(cell.config, cell.method)
    others = [r for name, r in space.items() if name not in ("lr", "weight_decay")]
    trials = sum(rung.trials for rung in cell.config.rungs(cell.dataset))
    return trials > 1 and cell.config.sweep.workers == 1 and all(r.choices is not None for r in others)


# Parallel workers.


def _work_in_parallel(cell: Cell, rung: int, slots: list[int], parent: str) -> None:
    """Hand the slots out to worker processes; returns when all of them are over, whatever became of them."""
    context = multiprocessing.get_context("spawn")
    tickets = context.Queue()
    for slot in slots:
        tickets.put(slot)
    workers = [
        context.Process(
            target=_worker, args=(cell.config, cell.dataset, cell.method, cell.study, rung, tickets, parent, n)
        )
        for n in range(min(cell.config.sweep.workers, len(slots)))
    ]
    for worker in workers:
        worker.start()
    while alive := [worker for worker in workers if worker.is_alive()]:
        alive[0].join(timeout=1)
        if asked_to_stop():
            for worker in alive:
                worker.terminate()  # asks it, too
                worker.join()


def _worker(
    config: Config,
    dataset: str,
    method: str,
    number: int | None,
    rung: int,
    tickets: multiprocessing.Queue,
    parent: str,
    place: int,
) -> None:
    """A worker process: takes slots until there are none. It ends with its parent, however that ended."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(place * config.processes("sweep") % torch.cuda.device_count())
    owner, cell, tracking = os.getppid(), Cell(config, dataset, method, number, job="sweep"), Tracking(config)
    study = open_study(cell, rung)
    with suppress(Interrupted), together(cell) as cell, stoppable():
        while os.getppid() == owner:
            try:
                slot = tickets.get(timeout=1)
            except queue.Empty:
                return
            _work(cell, study, rung, slot, tracking, parent)


# The outcome.


def choose(cell: Cell, trials: list[Trial], run: SweepRun) -> Choice:
    """What the finished trials of all rungs amount to."""
    budgets = cell.config.rungs(cell.dataset)
    last = last_rung(trials)
    best = next(iter(ranked(last)), None)
    chosen = best.hyperparameters if best else None if budgets else hyperparameters(cell, {})
    reasons = sorted({trial.reason for trial in last if trial.reason})
    plain = cell.config.sweep_slice(cell.dataset, cell.method)
    where = f" of rung {last[0].rung}" if last and last[0].rung else ""
    return Choice(
        status="ok" if chosen else "failed",
        reason=None if chosen else f"all {len(last)} trials{where} failed ({'; '.join(reasons)})",
        dataset=cell.dataset,
        method=cell.method,
        study=cell.study,
        config=plain,
        config_hash=slice_hash(plain),
        manifest_hash=cell.manifest_hash,
        backbone_hash=cell.backbone_hash,
        budget=budgets,
        space=search_space(cell.config, cell.method),
        hyperparameters=chosen,
        trial=best.number if best else None,
        value=best.value if best else None,
        trials=trials,
        run=run,
    )


def _result(cell: Cell, rung: int, slot: int, trial: FrozenTrial) -> Trial:
    return Trial(
        number=_number(cell, rung, slot),
        rung=rung,
        of=trial.user_attrs.get("of"),
        state=_STATES[trial.state],
        reason=trial.user_attrs.get("reason"),
        params=trial.params,
        hyperparameters=Chosen(**trial.user_attrs["hyperparameters"]),
        value=trial.value,
        folds=trial.user_attrs.get("folds", []),
        epochs=[Epoch(**epoch) for epoch in trial.user_attrs.get("epochs", [])],
    )
