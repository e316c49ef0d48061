"""What a config asks for, in clips: the one count that every estimate of time rests on.

- Clips are counted where a model sees them: forward and backward in training, forward alone in validation and test.
- A row that trains its readout alone has no backward pass through the trunk. Trials of its study share features, so
  that few of them see clips at all (`ssp.training.features`).
- Pruning is not counted: it makes searches without folds cheaper, by how much nobody knows before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ssp.config import Budget, Config
from ssp.data.manifest import read_manifest
from ssp.methods.space import search_space
from ssp.paths import Paths


@dataclass(frozen=True)
class Clips:
    """Clips that go through a model, and the trainings that they are part of."""

    trained: float = 0
    """Forward and backward; forward alone where the trunk is frozen."""
    viewed: float = 0
    """Forward alone, in validation."""
    tested: float = 0
    """Forward alone: views of test videos."""
    trainings: float = 0

    def __add__(self, other: Clips) -> Clips:
        return Clips(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Clips)))

    def __rmul__(self, times: float) -> Clips:
        return Clips(*(times * getattr(self, field.name) for field in fields(Clips)))


def videos(config: Config, dataset: str) -> tuple[int, int]:
    """Training videos (those that validation is carved from included) and test videos of a data set.

    Raises:
        DataError: own videos are counted by their manifest, and there is none yet.
    """
    if expected := config.datasets[dataset].expected:
        return expected.train, expected.test
    split = read_manifest(Paths.of(config).manifest(dataset))["split"]
    return int(split.isin(("train", "val")).sum()), int((split == "test").sum())


def held_out(config: Config, dataset: str) -> int:
    """Validation videos, of one fold where there are several."""
    return round(videos(config, dataset)[0] * config.datasets[dataset].validation.fraction)


def epoch(config: Config, dataset: str, of: int) -> int:
    """Clips of one pass over `of` training videos: full batches alone, or one of all where there are too few."""
    recipe = config.datasets[dataset].recipe
    return max(min(of, recipe.batch_size), of - of % recipe.batch_size) * recipe.augmentation.repeats


def trial(config: Config, dataset: str, budget: Budget, frozen: bool, epochs: int | None = None) -> Clips:
    """One trial of a rung on its own, all folds; `epochs` where it was pruned after fewer."""
    settings, epochs = config.datasets[dataset], budget.epochs if epochs is None else epochs
    part = max(1, round(budget.videos * (videos(config, dataset)[0] - held_out(config, dataset))))
    looks = 1 if frozen and not settings.recipe.co_batched else epochs  # features of validation are kept
    clips = Clips(epochs * epoch(config, dataset, part), looks * held_out(config, dataset), 0, 1)
    return settings.validation.folds * clips


def study(config: Config, dataset: str, row: str, frozen: bool) -> Clips:
    """All trials of a study."""
    rungs, streams = config.rungs(dataset), _streams(config, row)
    if not (frozen and config.sweep.workers == 1 and streams and sum(rung.trials for rung in rungs) > 1):
        return sum((rung.trials * trial(config, dataset, rung, frozen) for rung in rungs), Clips())
    settings, found, kept = config.datasets[dataset], Clips(), {}
    for rung in rungs:
        one = trial(config, dataset, rung, frozen)
        new = max(0, rung.epochs - kept.get(rung.videos, 0)) / rung.epochs
        kept[rung.videos] = max(rung.epochs, kept.get(rung.videos, 0))
        viewed = rung.trials * one.viewed if settings.recipe.co_batched else 0
        trained = min(rung.trials, streams) * new * one.trained
        found += Clips(trained, viewed, 0, rung.trials * one.trainings)
    once = 0 if settings.recipe.co_batched else settings.validation.folds * held_out(config, dataset)
    return found + Clips(viewed=once)


def run(config: Config, dataset: str, frozen: bool) -> Clips:
    """One final training, and the test."""
    settings, (train, test) = config.datasets[dataset], videos(config, dataset)
    epochs, out = settings.recipe.epochs, 0 if config.refit else held_out(config, dataset)
    looks = 1 if frozen and not settings.recipe.co_batched else epochs
    # The quirk of choosing the epoch on test reads it after each, one view a video.
    viewed = looks * (test if config.quirk("best_epoch") == "published" else out)
    views = test * settings.clips.test_segments * settings.clips.test_crops
    return Clips(epochs * epoch(config, dataset, train - out), viewed, views, 1)


def _streams(config: Config, row: str) -> int | None:
    """How many streams of features the trials of a study can have; None: each may have its own."""
    space = search_space(config, row)
    drawn = [r.choices for name, r in space.items() if name not in ("lr", "weight_decay")]
    return None if any(choices is None for choices in drawn) else math.prod(map(len, drawn))
