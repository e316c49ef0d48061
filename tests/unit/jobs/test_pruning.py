"""Pruning saves epochs and does not cost the chosen trial: simulated searches with the sweep's own pruner.

- A trial's last accuracy depends on its peak learning rate by a curve with one best rate. It is approached as the rates
  of the epochs add up, and a rate above the best one costs accuracy for as long as it is high.
- Validation adds the noise of a hundred videos. Searches with and without pruning see the same trials.
"""

import math

import numpy as np
import optuna
import pytest

from ssp.config import Recipe
from ssp.jobs.study import pruner

EPOCHS, TRIALS, SEARCHES = 20, 12, 60
RECIPE = Recipe(epochs=20, warmup_epochs=5, batch_size=8)
VIDEOS = 100


def curve(rate, best):
    """True accuracy in percent after each epoch, warm-up and cosine."""
    steps = np.arange(1, EPOCHS + 1)
    warm = RECIPE.warmup_epochs
    after = 0.5 * (1 + np.cos(np.pi * (steps - warm) / (EPOCHS - warm)))
    rates = rate * np.where(steps < warm, steps / warm, after)
    reached = 60 - 12 * math.log10(rate / best) ** 2
    learned = 1 - np.exp(-0.4 * np.cumsum(rates) / min(rate, best))
    unsettled = 8 * np.clip(np.log10(np.maximum(rates, 1e-12) / best), 0, None)
    return np.clip(reached * learned - unsettled, 1, 99)


def search(pruning, seed):
    """True last accuracy of the trial that a search chooses, and the epochs that it took."""
    random = np.random.default_rng(seed)
    best = 10 ** random.uniform(-3, -1)
    study = optuna.create_study(direction="maximize", pruner=pruning)
    spent, results = 0, []
    for _ in range(TRIALS):
        true = curve(10 ** random.uniform(-4, 0), best)
        seen = true + random.normal(0, 100 * np.sqrt(0.25 / VIDEOS), EPOCHS)
        trial, pruned = study.ask(), False
        for epoch in range(1, EPOCHS + 1):
            spent += 1
            trial.report(seen[epoch - 1], epoch)
            if epoch < EPOCHS and trial.should_prune():
                pruned = True
                break
        study.tell(trial, None if pruned else seen[-1], state=optuna.trial.TrialState.PRUNED if pruned else None)
        if not pruned:
            results.append((seen[-1], true[-1]))
    return max(results)[1], spent


@pytest.fixture(scope="module", autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def whole(quiet):
    return np.array([search(optuna.pruners.NopPruner(), seed) for seed in range(SEARCHES)])


def test_pruning_costs_less_than_noise_and_saves_epochs(whole):
    cut = np.array([search(pruner(RECIPE, EPOCHS), seed) for seed in range(SEARCHES)])
    lost = whole[:, 0] - cut[:, 0]
    error = lost.std(ddof=1) / np.sqrt(SEARCHES)
    assert lost.mean() + 2 * error < 1  # percentage points; the noise of one validation is 5
    assert cut[:, 1].mean() < 0.75 * whole[:, 1].mean()


def test_from_the_first_epoch_on_it_would(whole):
    at_once = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    cut = np.array([search(at_once, seed)[0] for seed in range(SEARCHES)])
    assert (whole[:, 0] - cut).mean() > 1


@pytest.mark.parametrize(("warmup", "epochs", "first"), [(0, 20, 1), (5, 20, 6), (5, 10, 4), (1, 2, 2)])
def test_starts_with_the_first_whole_epoch_after_warm_up(warmup, epochs, first):
    study = optuna.create_study(
        direction="maximize", pruner=pruner(RECIPE.model_copy(update={"warmup_epochs": warmup}), epochs)
    )
    for value in (50.0, 50.0, 1.0):
        trial = study.ask()
        for epoch in range(1, epochs + 1):
            trial.report(value, epoch)
            if trial.should_prune():
                break
        study.tell(trial, value)
    assert epoch == first
