"""Section: how hyper-parameters were found. The budget of every study, its choice, what mattered, and every trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ssp.config import search_words
from ssp.records.choice import Choice, Trial, last_rung
from ssp.report import svg
from ssp.report.importance import ENOUGH, importance
from ssp.report.results import Results, anchor


def content(results: Results) -> dict[str, Any]:
    """One row per study, what mattered, one panel per study (learning rate and validation accuracy), all trials."""
    choices = [*results.choices.values()]
    return {
        "studies": [study(results, choice) for choice in choices],
        "budget": search_words(results.config),
        "rungs": any(len(choice.budget) > 1 for choice in choices),
        "datasets": [results.data(name) | {"panels": _panels(results, name)} for name in results.config.datasets],
        "trials": [_trial(results, choice, trial, i) for choice in choices for i, trial in enumerate(choice.trials)],
        "important": _important(results, choices),
        "enough": ENOUGH,
    }


def study(results: Results, choice: Choice) -> dict[str, Any]:
    """A study as the page shows it: what it spent and chose, and where its file lies."""
    values = sorted(trial.value for trial in last_rung(choice.trials) if trial.value is not None)
    return {
        "choice": choice,
        "data": results.data(choice.dataset),
        "of": _named(results, choice),
        "link": results.link(results.paths.choice(choice.dataset, choice.method, choice.study)),
        "anchor": anchor(choice.dataset, choice.method),
        "spread": f"{values[0]:.1f}–{values[-1]:.1f}" if values else "–",
        "summary": choice.summary(),
        "epochs": sum(map(_epochs, choice.trials)),
    }


def _epochs(trial: Trial) -> int:
    """Epochs that a trial trained, on all of its folds."""
    return len(trial.epochs) * max(1, len(trial.folds))


def _named(results: Results, choice: Choice) -> dict[str, Any]:
    row = results.row(choice.method)
    return row if choice.study is None else row | {"title": f"{row['title']} (study {choice.study})"}


def _trial(results: Results, choice: Choice, trial: Trial, place: int) -> dict[str, Any]:
    seconds = choice.run.trial_seconds
    return {
        "data": results.data(choice.dataset),
        "of": _named(results, choice),
        "trial": trial,
        "epochs": _epochs(trial),
        "chosen": trial.number == choice.trial,
        "seconds": seconds[place] if place < len(seconds) else None,
    }


def _important(results: Results, choices: list[Choice]) -> list[dict[str, Any]]:
    """All rows together, each hyper-parameter within its row's own range, then each row that has enough trials."""
    by_row = {row: [choice for choice in choices if choice.method == row] for row in results.config.methods}
    everything = {"row": "", "title": "all rows", "key": "", "found": importance(choices)}
    found = [results.row(row) | {"found": importance(own)} for row, own in by_row.items()]
    return [one for one in (everything if len(by_row) > 1 else None, *found) if one and one["found"]]


def _panels(results: Results, dataset: str) -> list[dict[str, Any]]:
    """Trials over their learning rates; all panels of a data set on the same axes."""
    choices = [choice for choice in results.choices.values() if choice.dataset == dataset]
    spots = {id(choice): list(map(_dot(choice), choice.trials)) for choice in choices}
    every = [dot for own in spots.values() for dot in own]
    if not every:
        return []
    x = svg.logarithmic([dot.x for dot in every], "learning rate (log)", margin=1.25)
    y = svg.linear([dot.y for dot in every if dot.look != "failed"], "validation top-1 (%)", least=5, ends=(0, 100))
    return [_named(results, choice) | {"chart": svg.dots(spots[id(choice)], x, y)} for choice in choices]


def _dot(choice: Choice) -> Callable[[Trial], svg.Dot]:
    """A trial as a dot: at its value, a pruned one at its last epoch's, one without any at the bottom."""

    def dot(trial: Trial) -> svg.Dot:
        value = trial.value
        if value is None and trial.epochs:
            value = trial.epochs[-1].val_top1
        look = "chosen" if trial.number == choice.trial else trial.state
        rung = f" of rung {trial.rung}" if len(choice.budget) > 1 else ""
        told = f"trial {trial.number}{rung}, {look}: learning rate {trial.hyperparameters.lr:.3g}"
        told += "" if value is None else f", {value:.1f} %"
        told += f" (folds: {', '.join(f'{fold:.1f}' for fold in trial.folds)})" if trial.folds else ""
        return svg.Dot(trial.hyperparameters.lr, value or 0, look, told)

    return dot
