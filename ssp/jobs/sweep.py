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
  are a function of the finished trials alone, so a killed sweep goes on to exactly the same choice.
- Several workers (`sweep.workers`) are jobs of their own, which know of each other by the study and by leases: each
  holds the slot of the budget that it trains, and takes the next that nobody holds. What a killed one held, another
  goes on with. Then the sweep itself fills what still lacks, by rule nothing, and chooses. Workers see each other's
  trials as they come, so proposals do not repeat; the same finished trials still make the same choice.
- Trials of a method that trains the readout alone share the features of the frozen trunk (`ssp.training.features`),
  with one worker: it costs one stream for each drop path rate, and the choice is the same.
- With no trials the start is the choice, and nothing is trained here.
- A loss that is not finite, or too little memory, makes a failed trial, with the reason; it has spent its budget.
"""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import optuna
from optuna.trial import TrialState

from ssp.config import Config, slice_hash
from ssp.errors import ConfigError
from ssp.files import write_text, writing
from ssp.jobs.cell import Cell
from ssp.jobs.lease import LOOK_S, held, lease
from ssp.jobs.study import (
    FINISHED,
    begin_trial,
    finished_trials,
    interrupted_trials,
    open_study,
    reached,
    remaining_slots,
    search_identity,
    take_up,
)
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.jobs.training import together, tracked_params
from ssp.jobs.trial import hyperparameters, start_params, suggest, train_trial, trial_number, trial_result, trial_states
from ssp.methods.space import search_space
from ssp.records.choice import Choice, SweepRun, Trial, last_rung, load_choice, ranked, save_choice
from ssp.training.execution import derive_seed
from ssp.training.failure import TrainingFailed
from ssp.training.stopping import stop_if_asked, stoppable

log = logging.getLogger(__name__)


def run_sweep(config: Config, dataset: str, method: str, study: int | None = None) -> Choice:
    """Search, or go on searching, and write the choice file; where another process is at it, take what that has chosen.

    Raises:
        ConfigError: the names are not in the config, or the storage cannot be opened.
        RecordError: the study's journal is damaged.
        ServiceError: the storage or the tracking server does not answer, or does no more.
        StorageError: a file cannot be written.
    """
    cell = _cell(config, dataset, method, study)
    path = cell.paths.choice(dataset, method, study)
    with (
        together(cell) as cell,
        reached(cell),
        stoppable(),
        lease(_place(cell), [path], search_identity(cell), lambda: _tidy(cell)) as draft,
    ):
        if draft:
            return _Search(cell).choose(draft / path.name)
        return load_choice(_place(cell) / path.name, config, dataset, method, study)


def run_worker(config: Config, dataset: str, method: str, worker: int, study: int | None = None) -> Path:
    """Take part in a search, as one of `sweep.workers`, until nothing is left for it to do; a file says so.

    Args:
        config: of the sweep.
        dataset: its data set.
        method: its row.
        worker: number of this one, from 0.
        study: which of several.

    Returns:
        The file.

    Raises:
        ConfigError: the names are not in the config, or the storage cannot be opened.
        RecordError: the study's journal is damaged.
        ServiceError: the storage or the tracking server does not answer, or does no more.
        StorageError: a file cannot be written.
    """
    cell = _cell(config, dataset, method, study)
    if worker not in (workers := config.workers(dataset)):
        raise ConfigError(f"--worker: {len(workers)} search together on {dataset} (sweep.workers), counted from 0")
    mark = cell.paths.worker(dataset, method, worker, study)
    with (
        together(cell) as cell,
        reached(cell),
        stoppable(),
        lease(cell.paths.lease(mark), [mark], search_identity(cell)) as draft,
    ):
        if draft:
            _Search(cell).help()
            write_text(draft / mark.name, "")
    return mark


def _cell(config: Config, dataset: str, method: str, study: int | None) -> Cell:
    cell = Cell(config, dataset, method, study, job="sweep")
    if study not in config.study_numbers:
        known = ", ".join(map(str, config.study_numbers))
        fix = f"give one of {known}" if config.sweep.repeats > 1 else "leave it out, there is one study"
        raise ConfigError(f"--study: {fix} (sweep.repeats of config '{config.name}')")
    return cell


def _place(cell: Cell) -> Path:
    """Folder of the leases of a search."""
    return cell.paths.lease(cell.paths.choice(cell.dataset, cell.method, cell.study))


def _slots(cell: Cell) -> Path:
    """Those of the slots."""
    return _place(cell) / "slots"


def _tidy(cell: Cell) -> None:
    """The choice is there: what a search would be gone on with is needed no more."""
    for folder in (cell.paths.features(cell.name), trial_states(cell), _slots(cell)):
        shutil.rmtree(folder, ignore_errors=True)
    if cell.config.rungs(cell.dataset):
        open_study(cell).set_user_attr(FINISHED, True)


class _Search:
    """A study's trials as a process comes to them: alone, or beside others that search, too."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.tracking = cell, Tracking(cell.config)
        self._tags = cell.tags  # at once: where the GPU that is asked for is not there, no file is touched
        self._journal = cell.paths.journal(cell.dataset, cell.method, cell.study)
        with self._alone():
            self.studies = take_up(cell)

    def choose(self, file: Path) -> Choice:
        """Run what lacks, and write down what comes of all trials."""
        started, clock = datetime.now(UTC), time.perf_counter()
        cell, parent = self.cell, self.parent
        results, seconds = self._climb(wait=True)
        home = self.tracking.start(cell.name, "cell", tags=self._tags, resume=True)
        about = SweepRun(
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - clock, 3),
            trial_seconds=seconds,
            interrupted=sum(map(interrupted_trials, self.studies)),
            host=socket.gethostname(),
            sweep_run_id=parent.id,
            cell_run_id=home.id,
            tracking_uri=self.tracking.public_uri,
        )
        choice = choose(cell, results, about)
        save_choice(choice, file)
        if choice.hyperparameters:
            parent.log_params(tracked_params(choice.hyperparameters, trial=choice.trial))
            if choice.value is not None:
                parent.log_metrics({"val_top1": choice.value})
        home.finish()  # after the choice is written down: a sweep that is killed before goes on in the same two runs
        parent.finish("FAILED" if choice.reason else "FINISHED", choice.reason)
        return choice

    def help(self) -> None:
        """Run trials until there are none left that others would need this process for."""
        self._climb(wait=False)

    @cached_property
    def parent(self) -> TrackedRun:
        """The tracked run of the sweep: the same for all that search."""
        with self._alone():
            return self.tracking.start(self.cell.name, "sweep", tags=self._tags, resume=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the block runs, no other process takes up the study, begins a trial or opens the sweep's run."""
        with writing(self._journal), held(_place(self.cell) / "study"):  # Optuna's own errors do not name the file
            yield

    def _climb(self, wait: bool) -> tuple[list[Trial], list[float | None]]:
        """Rung by rung; results and seconds of all trials. Without `wait`, up to where others can do the rest."""
        results: list[Trial] = []
        seconds: list[float | None] = []
        best: list[Trial] = []
        with writing(self._journal):
            for rung, study in enumerate(self.studies):
                if not self._fill(rung, best, wait):
                    break
                found = finished_trials(study)
                seconds += [trial.user_attrs.get("seconds") for trial in found.values()]
                results += (own := [trial_result(self.cell, rung, slot, trial) for slot, trial in found.items()])
                best = ranked(own)
        return results, seconds

    def _fill(self, rung: int, best: list[Trial], wait: bool) -> bool:
        """Run the trials that a rung still lacks and nobody is at; `best` are those of the rung before, best first.

        Returns:
            Whether the rung is complete. Without `wait`, not where others are at all that is left, and as many as the
            next rung has trials: this process has nothing to do any more, and what it has another can use.
        """
        rungs = self.cell.config.rungs(self.cell.dataset)
        asked = min(rungs[rung].trials, len(best)) if rung else rungs[rung].trials
        needed = rungs[rung + 1].trials if rung + 1 < len(rungs) else 0
        while slots := remaining_slots(self.studies[rung], asked):
            stop_if_asked()
            if any(self._run_slot(rung, slot, best) for slot in slots):
                continue
            if not wait and len(slots) >= needed:
                return False
            time.sleep(LOOK_S)
        return True

    def _run_slot(self, rung: int, slot: int, best: list[Trial]) -> bool:
        """Run the trial of a slot, unless another process is at it."""
        with held(_slots(self.cell) / str(trial_number(self.cell, rung, slot)), wait=False) as mine:
            if mine and slot in remaining_slots(self.studies[rung], slot + 1):  # nobody has filled it meanwhile
                self._work(rung, slot, best)
            return mine

    def _work(self, rung: int, slot: int, best: list[Trial]) -> None:
        """Run the trial of a slot: ask for parameters, train, tell the result."""
        clock, cell, study = time.perf_counter(), self.cell, self.studies[rung]
        space = search_space(cell.config, cell.method)
        study.sampler = optuna.samplers.TPESampler(
            seed=derive_seed(cell.search_seed, "sampler", slot) % 2**32,
            n_startup_trials=max(2, cell.config.rungs(cell.dataset)[rung].trials // 3),
            constant_liar=cell.config.sweep.workers > 1,
        )
        parent = self.parent
        with self._alone():
            if rung:
                trial = begin_trial(study, slot, best[slot].params, of=best[slot].number)
            else:
                trial = begin_trial(study, slot, {} if slot else start_params(cell, space))
            chosen = suggest(cell, trial, space)
        number = trial_number(cell, rung, slot)
        name = f"{cell.name}/trial{number}"
        run = self.tracking.start(name, "trial", tags=self._tags, parent=parent.id)
        run.log_params(tracked_params(chosen, trial=number, **({"rung": rung} if rung else {})))
        log.info("%s trial %d: %s", cell.name, number, chosen.model_dump())
        state, value, reason = TrialState.COMPLETE, None, None
        try:
            value = train_trial(cell, trial, chosen, rung, name, run, self.tracking)
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
        shutil.rmtree(trial_states(cell) / str(number), ignore_errors=True)


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
