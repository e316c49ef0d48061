"""What mattered in a search, against trials whose values follow from one hyper-parameter."""

import numpy as np
import pytest

from ssp.config import Range
from ssp.records.choice import Budget, Choice, SweepRun, Trial
from ssp.records.record import Chosen, Epoch
from ssp.report.importance import ENOUGH, importance

SPACE = {
    "lr": Range(low=1e-4, high=1e-1, log=True),
    "drop_path": Range(low=0.0, high=0.4),
    "position": Range(choices=["before", "after"]),
}


def study(value, trials=ENOUGH, seed=0, state="complete", level=0.0):
    """A study of trials drawn from the space, whose value is a function of what was drawn."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(trials):
        params = {
            "lr": float(10 ** draw.uniform(-4, -1)),
            "drop_path": float(draw.uniform(0, 0.4)),
            "position": str(draw.choice(["before", "after"])),
        }
        got = level + value(params) if state == "complete" else None
        chosen = Chosen(lr=params["lr"], weight_decay=0.0, drop_path=params["drop_path"])
        epoch = Epoch(epoch=1, lr=params["lr"], train_loss=1.0, val_loss=1.0, val_top1=1.0)
        made.append(Trial(number=number, state=state, params=params, hyperparameters=chosen, value=got, epochs=[epoch]))
    run = SweepRun(started="", seconds=1, trial_seconds=[], interrupted=0, host="")
    hashes = {"config": {}, "config_hash": "", "manifest_hash": "", "run": run, "trials": made}
    nothing = {"hyperparameters": None, "trial": None, "value": None, "status": "failed"}
    return Choice(dataset="d", method="m", budget=[Budget(trials=trials, epochs=1)], space=SPACE, **hashes, **nothing)


@pytest.mark.parametrize(
    ("value", "first"),
    [
        (lambda params: params["lr"], "lr"),
        (lambda params: -abs(np.log10(params["lr"]) + 2.5), "lr"),  # best within the range
        (lambda params: params["drop_path"], "drop_path"),
        (lambda params: 5 * (params["position"] == "after"), "position"),
    ],
)
def test_what_decides_the_value_is_found(value, first):
    found = importance([study(value, trials=60)])
    assert found[0].name == first and found[0].share > 0.5 and found[0].trials == 60
    assert all(other.share < 0.25 for other in found[1:])


def test_studies_of_other_levels_are_taken_together():
    """Ten trials of an easy data set and ten of a hard one are twenty; which data set it was is no hyper-parameter."""
    half = ENOUGH // 2
    studies = [study(lambda params: params["lr"], half, seed, level=100.0 * seed) for seed in (0, 1)]
    found = importance(studies)
    assert found[0].name == "lr" and found[0].share > 0.4


def test_too_few_trials_and_failed_ones_say_nothing():
    assert importance([study(lambda params: params["lr"], ENOUGH - 1)]) == []
    assert importance([study(lambda params: 0, ENOUGH, state="failed")]) == []
    assert importance([]) == []


def test_what_chance_makes_is_taken_off():
    """Two further parts explain a tenth of twenty ranks that follow from nothing."""
    noise = np.random.default_rng(5)
    found = [importance([study(lambda params: noise.normal(), seed=seed)]) for seed in range(60)]
    shares = [one.share for own in found for one in own if one.name == "drop_path"]
    assert len(shares) == 60 and np.median(shares) < 0.02
