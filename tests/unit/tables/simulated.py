"""Benchmarks whose truth is known: hits drawn from a model of methods, seeds, groups and videos.

The logit of a hit is the sum of how hard the video and its group are for every method, and for this one; how good the
seed is; and what this seed makes of this video and this group. A seed may share the effect of a study's choice with the
other seeds of that study. All but the seed's effect are normal. The mean is set so
that the accuracy over all of these draws is the wanted one, and the seeds' effect so that the standard deviation of a
seed's accuracy, over endless test videos, is the wanted one.

Used by the tests and by benchmarks/null_simulation.py.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from ssp.tables.stats import Tally

VIDEO, GROUP, OWN_VIDEO, OWN_GROUP, NEW_VIDEO, NEW_GROUP = 2.0, 0.7, 1.0, 0.3, 0.7, 0.15  # sds on the logit scale
REST = float(np.linalg.norm([VIDEO, GROUP, OWN_VIDEO, OWN_GROUP, NEW_VIDEO, NEW_GROUP]))
SHAPES = {
    "normal": lambda rng: rng.standard_normal(),
    "skewed": lambda rng: 1 - rng.exponential(),  # now and then much worse
    "heavy": lambda rng: rng.standard_t(3) / np.sqrt(3),
}
HMDB51_FILMS = {1: 133, 3: 95, 2: 85, 5: 28, 4: 28, 6: 17, 8: 11, 11: 6, 10: 6, 9: 6, 7: 6, 14: 5, 12: 3, 15: 2} | {
    size: 1 for size in (13, 16, 17, 18, 21, 28, 29)
}  # clips of a film -> films, in test split 1
SIZES = {
    "HMDB51": np.repeat([*HMDB51_FILMS], [*HMDB51_FILMS.values()]),
    "UCF101": np.repeat([6, 5], [248, 459]),
    "SSv2": np.ones(24_777, dtype=int),
    "Breakfast": np.array([48, 46, 46, 45, 44, 43, 42, 41]),
    "demo HMDB51": np.full(270, 5),
    "demo UCF101": np.full(200, 6),
    "demo SSv2": np.ones(800, dtype=int),
    "demo Breakfast": np.full(8, 192),
}  # test videos of each group


@dataclass(frozen=True)
class Setting:
    """A data set's test groups, and methods on it: their accuracies in percent, the seeds' sd in percentage points."""

    data: str
    accuracies: tuple[float, ...]
    seed_sd: float
    shape: str = "normal"
    choosing: float = 0.0
    """How many times as large the effect of a study's choice is as a seed's."""

    def draw(self, rng: np.random.Generator, seeds: int, studies: int = 1) -> list[Tally]:
        """Hits of each method on one test set that all of them share; seed i trains from study i modulo `studies`."""
        sizes = SIZES[self.data]
        of_group, starts = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes) - sizes

        def effects(video: float, group: float) -> np.ndarray:
            found = rng.standard_normal(len(of_group), dtype=np.float32) * np.float32(video)
            found += (rng.standard_normal(len(sizes), dtype=np.float32) * np.float32(group))[of_group]
            return found

        def hits(logit: np.ndarray) -> np.ndarray:
            right = rng.random(len(of_group), dtype=np.float32) < expit(logit)
            return np.add.reduceat(right, starts, dtype=np.int64)

        shared, found = effects(VIDEO, GROUP), []
        for accuracy in self.accuracies:
            mean, spread = _calibrated(accuracy, self.seed_sd)
            own = shared + effects(OWN_VIDEO, OWN_GROUP) + np.float32(mean)
            chosen = np.zeros(studies)
            if self.choosing:
                chosen = self.choosing * rng.standard_normal(studies)
            draws = [np.float32(spread * (chosen[k % studies] + SHAPES[self.shape](rng))) for k in range(seeds)]
            hits_of = {k: hits(own + draw + effects(NEW_VIDEO, NEW_GROUP)) for k, draw in enumerate(draws)}
            found.append(Tally(hits_of, sizes, _videos(self.data), studies))
        return found


@cache
def _videos(data: str) -> pd.DataFrame:
    """As many as the data set has; nothing is read from them."""
    return pd.DataFrame(index=range(SIZES[data].sum()))


@cache
def _calibrated(accuracy: float, seed_sd: float) -> tuple[float, float]:
    """Mean of the logit, and sd of the seeds' effect on it (the normal shape's; others have the same variance)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def mean(logit: np.ndarray, sd: float) -> np.ndarray:
        return expit(np.asarray(logit)[..., None] + sd * nodes) @ weights

    def centre(spread: float) -> float:
        return brentq(lambda logit: 100 * float(mean(logit, np.hypot(REST, spread))) - accuracy, -30, 30)

    def sd(spread: float) -> float:
        of_seeds = mean(centre(spread) + spread * nodes, REST)
        return 100 * float(np.sqrt((of_seeds - accuracy / 100) ** 2 @ weights))

    spread = brentq(lambda spread: sd(spread) - seed_sd, 0, 5) if seed_sd else 0.0
    return centre(spread), spread
