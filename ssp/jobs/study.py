"""Optuna's side of a sweep: where a study is kept, and how one that was killed is taken up again.

Design choices
- A journal file per study by default (no server, no schema, no race), or a relational database by its URL.
- Several jobs may share a study (`sweep.workers`), and each of them may be killed or start at any time. So nothing is
  cleared but what is known to be nobody's: half a last line of the journal by who holds its lock, a RUNNING trial by
  who holds the lease of its slot. A lock that was left is followed after half a minute, at once where there is one job.
- Each rung is a study of its own, in the same journal or database: what proposes and what prunes sees one budget alone.
- The budget is counted in slots 0, 1, ...; a slot is filled by a trial that came to an end, pruned and failed ones
  included. A trial that was killed fills none.
- A study's name holds the hash of its config, space, data and backbone, so that trials of different settings never mix.
  A study whose choice was written starts afresh when it is asked for again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from ssp.config import Recipe, slice_hash
from ssp.config.secret import ENVIRONMENT, public, resolve, without_secret
from ssp.errors import ConfigError, RecordError, ServiceError, first_line
from ssp.jobs.cell import Cell
from ssp.methods.space import search_space

JOURNAL, LOCK = "journal", ".lock"  # the second as Optuna appends it
FINISHED = "finished"  # user attribute of a study whose choice was written
PROPOSED = "hyperparameters"  # user attribute of a trial: all that it was proposed


def take_up(cell: Cell) -> list[optuna.Study]:
    """The study of each rung, new or as others left it; for one process at a time."""
    journal = _journal(cell)
    if cell.config.sweep.workers == 1:  # whoever had a lock was killed
        journal.with_name(journal.name + LOCK).unlink(missing_ok=True)
    rungs = range(len(cell.config.rungs(cell.dataset)))
    studies = [open_study(cell, rung) for rung in rungs]
    if studies and studies[0].user_attrs.get(FINISHED):  # a rerun is wanted: other code, or the choice was removed
        for study in reversed(studies):  # the one that says so goes last
            optuna.delete_study(study_name=study.study_name, storage=open_storage(cell.config.sweep.storage, journal))
        studies = [open_study(cell, rung) for rung in rungs]
    return studies


def open_study(cell: Cell, rung: int = 0) -> optuna.Study:
    """The study of a rung, made if need be.

    Raises:
        ConfigError, ServiceError: the database cannot be opened.
        RecordError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal, settings = _journal(cell), cell.config.datasets[cell.dataset]
    epochs = cell.config.rungs(cell.dataset)[rung].epochs
    try:
        return optuna.create_study(
            study_name=f"{cell.name}/{search_identity(cell)}" + (f"/rung{rung}" if rung else ""),
            storage=open_storage(cell.config.sweep.storage, journal),
            direction="maximize",
            # A fold is as noisy as what several are there to mend, so no trial ends on one.
            pruner=optuna.pruners.NopPruner() if settings.validation.folds > 1 else pruner(settings.recipe, epochs),
            load_if_exists=True,
        )
    # What Optuna makes of a damaged journal.
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        if cell.config.sweep.storage != JOURNAL:
            raise
        raise RecordError(f"{journal}: damaged journal ({error!r}); delete it and run the sweep again") from None


def search_identity(cell: Cell) -> str:
    """Tells what a search is made with from all else: its part of the config, the whole space, data, backbone."""
    space = {name: r.model_dump(mode="json") for name, r in search_space(cell.config, cell.method).items()}
    made_from = {"space": space, "manifest": cell.manifest_hash, "backbone": cell.backbone_hash}
    return slice_hash(cell.config.sweep_slice(cell.dataset, cell.method) | made_from)


def _journal(cell: Cell) -> Path:
    return cell.paths.journal(cell.dataset, cell.method, cell.study)


def pruner(recipe: Recipe, epochs: int) -> optuna.pruners.BasePruner:
    """Against the median of earlier trials, from the first whole epoch after warm-up on.

    While the learning rate still rises to its peak, a trial is judged by how fast a small rate learns: that misranks.

    Args:
        recipe: whose warm-up shrinks in proportion to the epochs.
        epochs: of a trial.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=math.ceil(recipe.warmup_share * epochs) + 1)


class _JournalLock(JournalFileSymlinkLock):
    """Who has it may write, and finds whole lines alone, whatever was killed while it wrote."""

    def acquire(self) -> bool:
        taken = super().acquire()
        try:
            _mend(Path(self._lock_target_file))
        except BaseException:
            self.release()
            raise
        return taken


def _mend(journal: Path) -> None:
    """Cut off a last line that was not written to its end."""
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def begin_trial(study: optuna.Study, slot: int, params: dict[str, Any], of: int | None = None) -> optuna.Trial:
    """A trial for a slot of the budget, for who holds that slot; one process at a time.

    What was left RUNNING there was killed: it is closed, and tried again as it was proposed.

    Args:
        study: of the rung.
        slot: of the budget.
        params: those that are not left to the sampler.
        of: number of the trial of the rung before that it trains anew.
    """
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("slot") == slot and trial.state in (TrialState.RUNNING, TrialState.FAIL):
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            if PROPOSED in trial.user_attrs:
                params = trial.params
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if slot not in [trial.user_attrs.get("slot") for trial in waiting]:
        study.enqueue_trial(params, user_attrs={"slot": slot} | ({} if of is None else {"of": of}))
    while (trial := study.ask()).user_attrs.get("slot") != slot:  # whoever queued it was killed before it asked
        study.tell(trial, state=TrialState.FAIL)
    return trial


def interrupted_trials(study: optuna.Study) -> int:
    """How many trials were left by processes that were killed or asked to stop."""
    return sum(
        trial.state == TrialState.FAIL and "reason" not in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )


def finished_trials(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Trials that count, by slot 0, 1, ... of the budget; interrupted ones do not."""
    found = {}
    for trial in study.get_trials(deepcopy=False):
        over = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if over or (trial.state == TrialState.FAIL and "reason" in trial.user_attrs):
            found[trial.user_attrs["slot"]] = trial
    return dict(sorted(found.items()))


def remaining_slots(study: optuna.Study, budget: int) -> list[int]:
    """Slots of the budget that no trial has filled yet."""
    done = finished_trials(study)
    return [slot for slot in range(budget) if slot not in done]


def open_storage(address: str, journal: Path) -> BaseStorage:
    """The journal file where `address` is "journal", else the database there; both are made if need be.

    Raises:
        ConfigError, ServiceError: the database cannot be opened.
    """
    if address == JOURNAL:
        journal.parent.mkdir(parents=True, exist_ok=True)
        # Absolute: its lock is a link to this path, which Optuna follows to see for how long nobody has released it.
        path = str(journal.absolute())
        return JournalStorage(JournalFileBackend(path, _JournalLock(path)))
    return open_database(address)


def open_database(address: str) -> RDBStorage:
    """A relational database, as `sweep.storage` says; its tables must be made by one process before several use it.

    Raises:
        ConfigError: the address is wrong.
        ServiceError: nothing answers there.
    """
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    url = resolve(address, "sweep.storage")
    try:
        # Trials last for hours, within which servers and firewalls close what is silent.
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:  # the last: tables of another Optuna
        kind = ServiceError if isinstance(error, OperationalError) else ConfigError
        raise kind(f"sweep.storage: cannot be opened ({_said(error, url)}); give a reachable URL, or journal") from None


@contextmanager
def reached(cell: Cell) -> Iterator[None]:
    """A block that reads and writes a study, whose database may go away at any moment.

    Raises:
        ServiceError: it has; who comes next goes on with what was told to it.
    """
    address = cell.config.sweep.storage
    try:
        yield
    except StorageInternalError as error:  # Optuna's, for all that a database says
        shown = address if address.startswith(ENVIRONMENT) else public(address)
        reason = _said(error.__cause__ or error, resolve(address, "sweep.storage"))
        raise ServiceError(
            f"sweep.storage: {shown} fails ({reason}); run again when it is well, finished trials are kept"
        ) from None


def _said(error: BaseException, url: str) -> str:
    """The first line of what a database or its driver says."""
    return without_secret(first_line(getattr(error, "orig", None) or error), url)
