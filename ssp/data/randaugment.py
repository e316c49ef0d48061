"""RandAugment in the "increasing" form of the published recipe, read from strings such as rand-m7-n4-mstd0.5-inc1.

- m: magnitude 0..10; n: operations per clip, drawn with replacement; mstd: spread of the magnitude, drawn anew for
  every operation and kept within 0..10; p: probability of each operation (0.5); inc1: larger magnitudes change more.
- One draw of operation and parameters for all frames of a clip.
- It changes whole frames, as published, and a crop follows. Since the crop can be drawn before anything is computed,
  only those pixels are computed that it depends on: on average half of them, and the result is the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ssp.data.operations import OPERATIONS, Box, Operation, whole
from ssp.errors import ConfigError

MAX_LEVEL = 10
_FORMAT = re.compile(
    r"rand-m(?P<m>\d+(?:\.\d+)?)-n(?P<n>\d+)(?:-mstd(?P<mstd>\d+(?:\.\d+)?))?(?:-p(?P<p>[\d.]+))?-inc1"
)


class Change(NamedTuple):
    """An operation with its parameters."""

    operation: Operation
    level: float  # 0..1
    sign: float  # 1 or -1


@dataclass(frozen=True)
class RandAugment:
    """A parsed policy."""

    magnitude: float
    operations: int
    spread: float = 0.0
    probability: float = 0.5

    @classmethod
    def parse(cls, text: str) -> RandAugment:
        """Read a policy string.

        Raises:
            ConfigError: not of the form rand-m<magnitude>-n<operations>[-mstd<spread>][-p<probability>]-inc1.
        """
        match = _FORMAT.fullmatch(text)
        if not match or float(match["m"]) > MAX_LEVEL:
            raise ConfigError(
                f"recipe.augmentation.randaugment: '{text}' is not of the form rand-m7-n4-mstd0.5-inc1 (m up to 10)"
            )
        return cls(float(match["m"]), int(match["n"]), float(match["mstd"] or 0), float(match["p"] or 0.5))

    def draw(self, rng: np.random.Generator) -> list[Change]:
        """What happens to a clip, in order."""
        choices, drawn = list(OPERATIONS.values()), []
        for choice in rng.integers(len(choices), size=self.operations):
            if rng.random() >= self.probability:
                continue
            level = min(max(rng.normal(self.magnitude, self.spread), 0), MAX_LEVEL) / MAX_LEVEL
            drawn.append(Change(choices[choice], level, 1.0 if rng.random() < 0.5 else -1.0))
        return drawn


def changed(clip: torch.Tensor, changes: list[Change], want: Box | None = None) -> torch.Tensor:
    """The part `want` (default: all) of the changed frames.

    Args:
        clip: uint8 (T, 3, H, W), whole frames.
        changes: applied in order, the same to all frames.
        want: which pixels to return; nothing is computed that they do not depend on.

    Returns:
        uint8 (T, 3, want.height, want.width).
    """
    size = tuple(clip.shape[-2:])
    parts = [want or whole(size)]
    for operation, level, sign in reversed(changes):
        parts.insert(0, operation.reach(parts[0], size, level, sign))
    clip = parts[0].of(clip, whole(size))
    if changes:
        clip = clip.contiguous()  # plane by plane
    for change, have, part in zip(changes, parts[:-1], parts[1:], strict=True):
        clip = change.operation.part(clip, have, part, size, change.level, change.sign)
    return clip
