"""How much each hyper-parameter mattered in a search: a description of the trials, for a reader who sets ranges.

Design choices
- Trials are ranked within their study, so that data sets of any difficulty can be taken together; a pruned trial is
  behind all that were not, a failed one says nothing. Of rungs only the first counts: later ones train the best anew.
- The range of a hyper-parameter is cut into thirds (a choice is a part by itself), on the scale it is drawn on. Told is
  the share of the ranks' variance that goes with the part, less what chance makes on average (epsilon squared, Kelley
  1935); so a best value within the range counts, and one that does not matter has 0 on average.
- Too few trials say nothing (`ENOUGH`), and the page says that instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from ssp.config import Range
from ssp.records.choice import Choice, Trial

ENOUGH = 20  # ranked trials of a hyper-parameter: with fewer, chance alone often makes a share of a third
PARTS = 3


class Importance(NamedTuple):
    """A hyper-parameter's share of the variance of ranks (at least 0), and of how many trials."""

    name: str
    share: float
    trials: int


def importance(choices: Iterable[Choice]) -> list[Importance]:
    """Hyper-parameters that were searched, the most important first; those with enough trials."""
    ranked = pd.DataFrame([one for choice in choices for one in _ranked(choice)], columns=["name", "part", "rank"])
    found = [Importance(str(name), _share(own), len(own)) for name, own in ranked.groupby("name") if len(own) >= ENOUGH]
    return sorted(found, key=lambda one: (-one.share, one.name))


def _ranked(choice: Choice) -> list[dict[str, Any]]:
    """A row for each trial and hyper-parameter of a study: its part of the range, and the trial's rank from 0 to 1."""
    trials = [trial for trial in choice.trials if trial.rung == 0 and trial.state != "failed"]
    ranks = pd.Series([-math.inf if trial.value is None else trial.value for trial in trials], dtype=float).rank(
        pct=True
    )
    return [
        {"name": name, "part": part, "rank": rank}
        for trial, rank in zip(trials, ranks, strict=True)
        for name, dimension in choice.space.items()
        if (part := _part(trial, name, dimension)) is not None
    ]


def _part(trial: Trial, name: str, dimension: Range) -> str | None:
    if name not in trial.params:
        return None
    value = trial.params[name]
    if dimension.choices is not None:
        return str(value) if len(dimension.choices) > 1 else None
    scale = math.log if dimension.log else float
    low, high = scale(dimension.low), scale(dimension.high)
    return None if high == low else str(min(int(PARTS * (scale(value) - low) / (high - low)), PARTS - 1))


def _share(own: pd.DataFrame) -> float:
    """Epsilon squared of the parts, not below 0."""
    parts = own.groupby("part")["rank"]
    total = ((own["rank"] - own["rank"].mean()) ** 2).sum()
    within = ((own["rank"] - parts.transform("mean")) ** 2).sum()
    between, free = parts.ngroups - 1, len(own) - parts.ngroups
    if not total or not between or free <= 0:
        return 0.0
    return max(0.0, float((total - within - between * within / free) / total))
