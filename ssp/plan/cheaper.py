"""Cheaper settings: what each saves, found by planning a changed copy of the config, and the largest plan for a budget.

- Steps stand in the order in which a claim is given up: first what the tables do not need, last whole data sets.
- What makes a comparison honest is never given up: the same budget for every row, and three seeds at least.
- A change is said as lines of YAML for a config that `extends` the one that is planned; nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ssp.config import EXTENDS, Config, parse_config, yaml_text
from ssp.plan.estimate import Estimate, estimate
from ssp.plan.speeds import Speeds

LEAST_SEEDS = 3
Plain = dict[str, Any]
Change = Callable[[Plain, Config], bool]


@dataclass(frozen=True)
class Step:
    """One way to ask for less. `change` changes raw YAML in place and says whether there was anything to change."""

    name: str
    claim: str
    """What it costs in claims."""
    change: Change


@dataclass(frozen=True)
class Saving:
    """What some steps leave, and the lines that make them."""

    steps: list[Step]
    estimate: Estimate
    lines: str


def steps(config: Config) -> list[Step]:
    """All steps for a config, those first that cost least in claims."""
    wide = "wider intervals, so that fewer differences are shown (`ssp power` says which)"
    found = [
        Step("no ablations", "nothing is said about the parts of a method", _no_ablations),
        Step("one study a row", "claims hold for one choice of hyper-parameters, not for choosing anew", _one_study),
        Step("one fold", "choices rest on fewer validation videos, and are noisier", _one_fold),
        Step("halving", "a trial that is late to get good is dropped after a quarter of the epochs", _halving),
        *[Step("one seed less", wide, _one_seed_less)] * (len(config.seeds) - LEAST_SEEDS),
        Step("half the trials", "a less thorough search, alike for all rows", _half_the_trials),
        Step("one test view", "accuracy of one view a video: not to be put beside published ones", _one_view),
        Step("no search", "what is compared are rows at their start, not at their best", _no_search),
    ]
    return found + [
        Step(f"without {column}", f"nothing is said about {column}, and averages are over the rest", _without(column))
        for column in _costliest(config)
    ]


def savings(config: Config, plain: Plain, speeds: Speeds) -> list[Saving]:
    """What each kind of step saves on its own, most first; all seeds that can go go at once.

    Args:
        config: as it is.
        plain: the YAML behind it, resolved (`ssp.config.resolved`).
        speeds: of it.
    """
    kinds: dict[str, list[Step]] = {}
    for step in steps(config):
        kinds.setdefault(step.name, []).append(step)
    found = [saved for kind in kinds.values() if (saved := _apply(config, plain, speeds, kind))]
    return sorted(found, key=lambda saving: saving.estimate.hours().value)


def fit_budget(config: Config, plain: Plain, speeds: Speeds, hours: float) -> tuple[Saving, bool]:
    """The largest plan that fits into some hours, and whether there is one; the smallest honest one if not.

    Steps are taken until the plan fits; then those that turn out not to be needed are taken back, the costliest first.
    """
    whole = Saving([], estimate(config, speeds), "")
    taken: list[Step] = []
    for step in [None, *steps(config)]:
        taken += [step] if step else []
        tried = _apply(config, plain, speeds, taken) or whole
        if tried.estimate.hours().value <= hours:
            break
    else:
        return tried, False
    for place in reversed(range(len(tried.steps) - 1)):
        rest = [*tried.steps[:place], *tried.steps[place + 1 :]]
        without = _apply(config, plain, speeds, rest) or whole
        if without.steps == rest and without.estimate.hours().value <= hours:
            tried = without
    return tried, True


def _apply(config: Config, plain: Plain, speeds: Speeds, taken: list[Step]) -> Saving | None:
    """The plan after some steps, those that change anything; None where none does."""
    changed, now, done = deepcopy(plain), config, []
    for step in taken:
        if step.change(changed, now):
            now = parse_config(changed, str(config.origin)).placed(origin=config.origin, home=config.home)
            done.append(step)
    if not done:
        return None
    lines = {EXTENDS: config.origin.name} | _difference(plain, changed)
    return Saving(done, estimate(now, speeds), yaml_text(lines))


def _difference(old: Plain, new: Plain) -> Plain:
    """What to put over one mapping to get another: null removes a key."""
    found: Plain = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            if inner := _difference(old[key], value):
                found[key] = inner
        elif key not in old or old[key] != value:
            found[key] = value
    return found


# Steps.


def _no_ablations(plain: Plain, config: Config) -> bool:
    return bool(plain.pop("ablations", None))


def _one_study(plain: Plain, config: Config) -> bool:
    there = config.sweep.repeats > 1
    if there:
        plain["sweep"].pop("repeats")
    return there


def _one_fold(plain: Plain, config: Config) -> bool:
    folded = [d for d in plain["datasets"].values() if (d.get("validation") or {}).get("folds", 1) > 1]
    for dataset in folded if _searches(config) else ():
        dataset["validation"] = {key: value for key, value in dataset["validation"].items() if key != "folds"}
    return bool(folded) and _searches(config)


def _halving(plain: Plain, config: Config) -> bool:
    trials = config.sweep.trials or 0
    if config.sweep.fidelity or trials < 2:
        return False
    plain["sweep"] = {key: value for key, value in plain["sweep"].items() if key not in ("trials", "epochs")}
    share = min((config.sweep.epochs or d.recipe.epochs) / d.recipe.epochs for d in config.datasets.values())
    rungs = [{"trials": trials, "epochs": share / 4}, {"trials": max(1, trials // 3), "epochs": share}]
    plain["sweep"]["fidelity"] = rungs
    return True


def _one_seed_less(plain: Plain, config: Config) -> bool:
    if len(config.seeds) <= max(LEAST_SEEDS, config.sweep.repeats):
        return False
    plain["seeds"] = config.seeds[:-1]
    for ablation in (plain.get("ablations") or {}).values():
        if ablation.get("seeds"):
            kept = [seed for seed in ablation["seeds"] if seed in plain["seeds"]]
            ablation["seeds"] = kept or plain["seeds"][:1]
    return True


def _half_the_trials(plain: Plain, config: Config) -> bool:
    if not _searches(config):
        return False
    for section in (plain["sweep"], *plain["datasets"].values()):
        if section.get("fidelity"):
            halved = [rung | {"trials": (rung["trials"] + 1) // 2} for rung in section["fidelity"]]
            section["fidelity"] = [
                rung for before, rung in zip([None, *halved], halved, strict=False) if _fewer(before, rung)
            ]
    if config.sweep.trials:
        plain["sweep"]["trials"] = (config.sweep.trials + 1) // 2
    return True


def _fewer(before: Plain | None, rung: Plain) -> bool:
    return before is None or rung["trials"] < before["trials"]


def _one_view(plain: Plain, config: Config) -> bool:
    there = any(d.clips.test_segments * d.clips.test_crops > 1 for d in config.datasets.values())
    for dataset in plain["datasets"].values():
        clips = dataset["clips"]
        dataset["clips"] = {key: value for key, value in clips.items() if not key.startswith("test_")}
    return there


def _no_search(plain: Plain, config: Config) -> bool:
    if not _searches(config):
        return False
    kept = {key: value for key, value in plain["sweep"].items() if key not in ("fidelity", "epochs", "trials")}
    plain["sweep"] = {"trials": 0} | kept
    for dataset in plain["datasets"].values():
        dataset.pop("fidelity", None)
    return True


def _searches(config: Config) -> bool:
    return any(map(config.rungs, config.datasets))


def _costliest(config: Config) -> Iterator[str]:
    """Columns but the cheapest, costliest first: by the frames that are trained on."""

    def frames(column: str) -> float:
        settings = config.archived[column]
        videos = settings.expected.train if settings.expected else 0
        return videos * settings.recipe.epochs * settings.clips.num_frames

    yield from sorted(config.columns, key=frames, reverse=True)[:-1]


def _without(column: str) -> Change:
    return lambda plain, config: without(plain, column)


def without(plain: Plain, column: str) -> bool:
    """Take a data set out of raw YAML, with all that is said of it elsewhere; whether it was there beside others."""
    if column not in plain["datasets"] or len(plain["datasets"]) == 1:
        return False
    del plain["datasets"][column]
    for row in plain["methods"].values():
        if row and row.get("starts"):
            row["starts"] = {name: start for name, start in row["starts"].items() if name != column}
    for name, ablation in [*(plain.get("ablations") or {}).items()]:
        if ablation.get("datasets"):
            ablation["datasets"] = [other for other in ablation["datasets"] if other != column]
            if not ablation["datasets"]:
                del plain["ablations"][name]
    return True
