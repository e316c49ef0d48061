"""The search for hyper-parameters: its space, its budget, and where it starts."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from ssp.config.sections.common import Fraction, OrEmpty, Share, Strict


class Range(Strict):
    """One dimension of a search space: an interval, or a list of choices."""

    low: float | None = Field(default=None, description="Lower end of an interval.")
    high: float | None = Field(default=None, description="Upper end of an interval.")
    log: bool = Field(default=False, description="Draw the logarithm uniformly.")
    choices: list[Any] | None = Field(default=None, description="Values to choose from, instead of an interval.")

    @model_validator(mode="after")
    def _interval_or_choices(self) -> Range:
        interval = self.low is not None and self.high is not None
        if interval == (self.choices is not None):
            raise ValueError("give either low and high, or choices")
        if interval and not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if interval and self.log and self.low <= 0:
            raise ValueError(f"a log range must start above 0, not at {self.low}")
        return self


Space = OrEmpty[dict[str, Range]]


class Rung(Strict):
    """A rung of successive halving: the first proposes its trials, each next one trains the best of the one before."""

    trials: PositiveInt = Field(description="How many; fewer in each next rung.")
    epochs: Share = Field(
        default=1.0, description="Share of the recipe's epochs, rounded up to whole ones, with a full schedule in them."
    )
    videos: Share = Field(default=1.0, description="Share of each class's training videos, the same in all trials.")


class Budget(Strict):
    """A rung as it is on a data set, and what every method gets there."""

    trials: NonNegativeInt
    epochs: PositiveInt
    videos: Share = 1.0


def _halving(rungs: list[Rung] | None) -> list[Rung] | None:
    """Each rung has fewer trials than the one before."""
    if rungs == []:
        raise ValueError("give at least one rung, or leave it out")
    for number, (before, rung) in enumerate(pairwise(rungs or []), 2):
        if rung.trials >= before.trials:
            raise ValueError(
                f"rung {number} trains the best {rung.trials} of the {before.trials} trials before it; give it fewer"
            )
    return rungs


Fidelity = Annotated[list[Rung] | None, AfterValidator(_halving)]


class Sweep(Strict):
    """The budget of hyper-parameter search, the same for every method."""

    trials: NonNegativeInt | None = Field(
        default=None,
        description="Trials of each study; the first is the row's start, which is taken as it is where this is 0. "
        "Needed where there is no `fidelity`.",
    )
    epochs: PositiveInt | None = Field(default=None, description="Epochs of a trial; null: those of the recipe.")
    fidelity: Fidelity = Field(
        default=None,
        description="In place of trials and epochs: rungs of successive halving, cheap ones first; the choice is the "
        "best trial of the last.",
    )
    repeats: PositiveInt = Field(
        default=1,
        description="Independent studies of each row on each data set; seed i trains from study i modulo this. "
        "Above 1 a claim counts studies, and so the variance of choosing.",
    )
    seed: NonNegativeInt = Field(default=0, description="Of proposals, and of every trial's training.")
    workers: PositiveInt = Field(
        default=1,
        description="Jobs that search together in one study, wherever they run; above 1 TPE is not reproducible.",
    )
    storage: str = Field(
        default="journal",
        description="journal, or the URL of a relational database; env:NAME: it is in this environment variable.",
    )
    space: Space = Field(default={}, description="Shared search space over lr, weight_decay, drop_path.")

    @model_validator(mode="after")
    def _one_budget(self) -> Sweep:
        if self.fidelity and (twice := [key for key in ("trials", "epochs") if getattr(self, key) is not None]):
            raise ValueError(f"fidelity says what {' and '.join(twice)} would; remove one or the other")
        return self


class Start(Strict):
    """Where a row's search starts. What is left out is the data set's `start`."""

    lr: float | None = Field(default=None, gt=0, description="Peak learning rate.")
    weight_decay: float | None = Field(default=None, ge=0, description="Of matrices.")
    drop_path: Fraction | None = Field(default=None, description="Drop path rate of the last block.")
