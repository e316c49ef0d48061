"""One trial of a sweep: what it is proposed, how it is trained and measured, and what is kept of it.

- What is in no space keeps its start. A choice is never proposed that the method does not take.
- With folds a trial is trained once for each, and its value is the top-1 over the validation videos of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ssp.config import Hyperparameters, Range, slice_hash
from ssp.jobs.cell import Cell
from ssp.jobs.study import PROPOSED
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.jobs.training import curve, train_epochs
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from ssp.records.choice import Trial
from ssp.records.record import Chosen, Epoch
from ssp.training.execution import derive_seed
from ssp.training.failure import TrainingFailed, failures
from ssp.training.loop import TrainingState

SHARED = tuple(Hyperparameters.model_fields)
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


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


def suggest(cell: Cell, trial: optuna.Trial, space: dict[str, Range]) -> Chosen:
    """Values for all of a space, and what they make with the start; the trial keeps them."""
    params = {name: _suggest(trial, name, r, _is_integer(cell, name)) for name, r in space.items()}
    chosen = hyperparameters(cell, params)
    trial.set_user_attr(PROPOSED, chosen.model_dump(mode="json"))
    return chosen


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


def trial_states(cell: Cell) -> Path:
    """What killed trials continue from, a folder for each; removed when it is over."""
    return cell.paths.trial_states(cell.dataset, cell.method, cell.study)


def _state(cell: Cell, trial: optuna.Trial, rung: int, fold: int, chosen: Chosen) -> TrainingState:
    """Where a trial goes on that was killed: the next one of its slot, if that is proposed the same."""
    number = trial_number(cell, rung, trial.user_attrs["slot"])
    identity = slice_hash({"study": trial.study.study_name, "number": number, "chosen": chosen.model_dump(mode="json")})
    return TrainingState(trial_states(cell) / str(number) / f"fold{fold}.pt", identity)


def trial_number(cell: Cell, rung: int, slot: int) -> int:
    """The number of a trial among those of all rungs."""
    return sum(budget.trials for budget in cell.config.rungs(cell.dataset)[:rung]) + slot


def train_trial(
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
            state = None if share else _state(cell, trial, rung, fold, chosen)
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


def trial_result(cell: Cell, rung: int, slot: int, trial: FrozenTrial) -> Trial:
    """What a choice file says of a finished trial."""
    return Trial(
        number=trial_number(cell, rung, slot),
        rung=rung,
        of=trial.user_attrs.get("of"),
        state=_STATES[trial.state],
        reason=trial.user_attrs.get("reason"),
        params=trial.params,
        hyperparameters=Chosen(**trial.user_attrs[PROPOSED]),
        value=trial.value,
        folds=trial.user_attrs.get("folds", []),
        epochs=[Epoch(**epoch) for epoch in trial.user_attrs.get("epochs", [])],
    )
