"""Section: how hyper-parameters were found. The budget of every study, what it chose, and every trial."""

from __future__ import annotations

from typing import Any

from ssp.config import search_words
from ssp.records.choice import Choice, Trial, last_rung
from ssp.report import svg
from ssp.report.results import Results, anchor


def content(results: Results) -> dict[str, Any]:
    """One row per study, one panel per study (learning rate and validation accuracy), one row per trial."""
    studies = [_study(results, choice) for choice in results.choices.values()]
    trials = [_trial(choice, trial, i) for choice in results.choices.values() for i, trial in enumerate(choice.trials)]
    return {
        "studies": studies,
        "budget": search_words(results.config),
        "rungs": any(len(choice.budget) > 1 for choice in results.choices.values()),
        "datasets": [{"name": name, "panels": _panels(results, name)} for name in results.config.datasets],
        "trials": trials,
    }


def _study(results: Results, choice: Choice) -> dict[str, Any]:
    values = sorted(trial.value for trial in last_rung(choice.trials) if trial.value is not None)
    return {
        "choice": choice,
        "name": _name(choice),
        "link": results.link(results.paths.choice(choice.dataset, choice.method, choice.study)),
        "anchor": anchor(choice.dataset, choice.method),
        "spread": f"{values[0]:.1f}–{values[-1]:.1f}" if values else "–",
        "summary": choice.summary(),
        "epochs": sum(len(trial.epochs) for trial in choice.trials),
    }


def _name(choice: Choice) -> str:
    return choice.method if choice.study is None else f"{choice.method} (study {choice.study})"


def _trial(choice: Choice, trial: Trial, place: int) -> dict[str, Any]:
    seconds = choice.run.trial_seconds
    return {
        "dataset": choice.dataset,
        "method": _name(choice),
        "trial": trial,
        "chosen": trial.number == choice.trial,
        "seconds": seconds[place] if place < len(seconds) else None,
    }


def _panels(results: Results, dataset: str) -> list[dict[str, Any]]:
    """Trials over their learning rates; all panels of a data set on the same axes."""
    choices = [choice for choice in results.choices.values() if choice.dataset == dataset]
    rates = [trial.hyperparameters.lr for choice in choices for trial in choice.trials]
    if not rates:
        return []
    return [
        {"method": _name(choice), "chart": svg.dots(map(_dot(choice), choice.trials), min(rates), max(rates), 0, 100)}
        for choice in choices
    ]


def _dot(choice: Choice):  # noqa: ANN202 - a function of one trial
    """A trial as a dot: at its value, a pruned one at its last epoch's, one without any at the bottom."""

    def dot(trial: Trial) -> svg.Dot:
        value = trial.value
        if value is None and trial.epochs:
            value = trial.epochs[-1].val_top1
        look = "chosen" if trial.number == choice.trial else trial.state
        rung = f" of rung {trial.rung}" if len(choice.budget) > 1 else ""
        told = f"trial {trial.number}{rung}, {look}: learning rate {trial.hyperparameters.lr:.3g}"
        return svg.Dot(trial.hyperparameters.lr, value or 0, look, told + ("" if value is None else f", {value:.1f} %"))

    return dot
