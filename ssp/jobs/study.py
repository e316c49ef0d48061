"""Optuna's side of a sweep: where a study is kept, and how one that was killed is taken up again.

Design choices
- A journal file per study by default (no server, no schema, no race), or a relational database by its URL.
- One job owns its study and all of its workers. So what is RUNNING when the job starts was killed, and a lock or half a
  line in the journal is nobody's: all three are cleared, and heartbeats are not needed.
- Each rung is a study of its own, in the same journal or database: what proposes and what prunes sees one budget alone.
- The budget is counted in slots 0, 1, ...; a slot is filled by a trial that came to an end, pruned and failed ones
  included. A trial that was killed fills none.
- A study's name holds the hash of its config, data and backbone, so that trials of different settings never mix. A
  study whose choice was written starts afresh when it is asked for again.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ssp.config import Recipe, slice_hash
from ssp.errors import ConfigError, RecordError
from ssp.jobs.cell import Cell

JOURNAL = "journal"
FINISHED = "finished"  # user attribute of a study whose choice was written


def take_up(cell: Cell) -> list[optuna.Study]:
    """The study of each rung, new or as a killed sweep left it; for the one process that owns them."""
    journal = _journal(cell)
    if cell.config.sweep.storage == JOURNAL:
        _mend(journal)
    rungs = range(len(cell.config.rungs(cell.dataset)))
    studies = [open_study(cell, rung) for rung in rungs]
    if studies and studies[0].user_attrs.get(FINISHED):  # a rerun is wanted: other code, or the choice was removed
        for study in reversed(studies):  # the one that says so goes last
            optuna.delete_study(study_name=study.study_name, storage=open_storage(cell.config.sweep.storage, journal))
        studies = [open_study(cell, rung) for rung in rungs]
    for study in studies:
        fail_stale_trials(study)
    return studies


def open_study(cell: Cell, rung: int = 0) -> optuna.Study:
    """The study of a rung, made if need be.

    Raises:
        ConfigError: the database cannot be opened.
        RecordError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made_from = {"manifest": cell.manifest_hash, "backbone": cell.backbone_hash}
    identity = slice_hash(cell.config.sweep_slice(cell.dataset, cell.method) | made_from)
    journal, settings = _journal(cell), cell.config.datasets[cell.dataset]
    epochs = cell.config.rungs(cell.dataset)[rung].epochs
    try:
        return optuna.create_study(
            study_name=f"{cell.name}/{identity}" + (f"/rung{rung}" if rung else ""),
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


def _mend(journal: Path) -> None:
    """Undo what a kill left: a lock that nobody holds, and a last line that was not written to its end."""
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    content = journal.read_bytes() if journal.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def fail_stale_trials(study: optuna.Study) -> int:
    """Close the trials that a killed process left running; returns how many trials were ever interrupted."""
    stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in stale:
        study.tell(trial.number, state=TrialState.FAIL)
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
    """The journal file where `address` is "journal", else the database at that URL; both are made if need be.

    Raises:
        ConfigError: the database cannot be opened.
    """
    if address == JOURNAL:
        journal.parent.mkdir(parents=True, exist_ok=True)
        # Absolute: its lock is a link to this path, which Optuna follows to see for how long nobody has released it.
        return JournalStorage(JournalFileBackend(str(journal.absolute())))
    return open_database(address)


def open_database(url: str) -> RDBStorage:
    """A relational database; its tables must be made by one process before several use it."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(f"sweep.storage: cannot be opened ({reason}); give a reachable URL, or journal") from None
