"""The outcome of a sweep: chosen hyper-parameters and every trial that led there. The frozen configuration of a cell.

Design choices
- One JSON file per study, checked whenever it is written or read. What may differ between two runs of the
  same sweep (time, host, tracking ids) stands apart under `run`.
- A sweep in which every trial failed has a choice file too: status "failed", and its cells are recorded as failed.
- Light: no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ssp.config import Budget, Config, Range, slice_hash
from ssp.errors import RecordError
from ssp.files import write_json
from ssp.records.record import Chosen, Epoch, Stored, SweepSummary, load_checked


class Trial(Stored):
    """One trial: what was tried and what validation said after each epoch."""

    number: int
    rung: int = 0
    of: int | None = Field(default=None, description="The trial of the rung before that it trains anew.")
    state: Literal["complete", "pruned", "failed"]
    reason: str | None = None
    params: dict[str, Any]
    hyperparameters: Chosen
    value: float | None
    folds: list[float] = Field(default=[], description="Validation top-1 of each fold, where there are several.")
    epochs: list[Epoch]


class SweepRun(Stored):
    """What may differ between two runs of the same sweep."""

    started: str
    seconds: float
    trial_seconds: list[float | None]
    interrupted: int
    host: str
    sweep_run_id: str | None = None
    cell_run_id: str | None = None
    tracking_uri: str | None = None


class Choice(Stored):
    """Result of a study."""

    schema_version: Literal[1] = 1
    status: Literal["ok", "failed"]
    reason: str | None = None
    dataset: str
    method: str
    study: int | None = Field(default=None, description="Which of several studies; null: there is one.")
    config: dict[str, Any]
    config_hash: str
    manifest_hash: str
    backbone_hash: str | None = None
    # Of each rung; a file of before there were rungs has the one.
    budget: Annotated[list[Budget], BeforeValidator(lambda budget: [budget] if isinstance(budget, dict) else budget)]
    space: dict[str, Range]
    hyperparameters: Chosen | None
    trial: int | None
    value: float | None
    trials: list[Trial]
    run: SweepRun

    @model_validator(mode="after")
    def _status_says_all(self) -> Choice:
        if (self.status == "ok") != (self.hyperparameters is not None):
            raise ValueError("status ok goes with hyperparameters, status failed without")
        return self

    def summary(self) -> SweepSummary:
        """The budget that was spent, as records hold it."""
        states = [trial.state for trial in self.trials]
        return SweepSummary(
            trials=len(states),
            completed=states.count("complete"),
            pruned=states.count("pruned"),
            failed=states.count("failed"),
            best_value=self.value,
        )


def last_rung(trials: list[Trial]) -> list[Trial]:
    """The trials that a choice is made among."""
    last = max((trial.rung for trial in trials), default=0)
    return [trial for trial in trials if trial.rung == last]


def ranked(trials: list[Trial]) -> list[Trial]:
    """The trials of a rung that were trained to the end, best first: ties go to the lower loss, then to the earlier."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return sorted(complete, key=lambda t: (-t.value, t.epochs[-1].val_loss, t.number))


def save_choice(choice: Choice, path: str | Path) -> None:
    """Write a choice atomically."""
    write_json(path, choice.model_dump(mode="json"))


def load_choice(path: str | Path, config: Config, dataset: str, method: str, study: int | None = None) -> Choice:
    """Read the frozen configuration of a cell.

    Raises:
        RecordError: it is missing, against the schema, or of another config or study than this one.
    """
    again = f"run: {search_again(config, dataset, method, study)}"
    choice = load_checked(Choice, path, "sweep choice", again)
    if choice.config_hash != slice_hash(config.sweep_slice(dataset, method)):
        raise RecordError(f"{path}: was chosen under another config than '{config.name}' is now; {again}")
    if choice.study != study:
        raise RecordError(f"{path}: is the choice of study {choice.study}, not of {study}; {again}")
    return choice


def search_again(config: Config, dataset: str, method: str, study: int | None = None) -> str:
    """The command that makes a choice anew."""
    return config.command("sweep", dataset=dataset, method=method, **({} if study is None else {"study": study}))
