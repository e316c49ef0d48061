"""RandAugment in the "increasing" form of the published recipe, read from strings such as rand-m7-n4-mstd0.5-inc1.

- m: magnitude 0..10; n: operations per clip, drawn with replacement; mstd: spread of the magnitude, drawn anew for
  every operation and kept within 0..10; p: probability of each operation (0.5); inc1: larger magnitudes change more.
- One draw of operation and parameters for all frames of a clip.
- Two differences from the published code: geometric operations interpolate bilinearly (its bicubic exists for PIL
  images only), and `Contrast` blends with the mean of each frame as torchvision computes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ssp.errors import ConfigError

MAX_LEVEL = 10
FILL = [128.0, 128.0, 128.0]
_FORMAT = re.compile(
    r"rand-m(?P<m>\d+(?:\.\d+)?)-n(?P<n>\d+)(?:-mstd(?P<mstd>\d+(?:\.\d+)?))?(?:-p(?P<p>[\d.]+))?-inc1"
)
Operation = Callable[[torch.Tensor, float, float], torch.Tensor]  # clip, level 0..1, sign


@dataclass(frozen=True)
class RandAugment:
    """A parsed policy; call it on uint8 (T, 3, H, W)."""

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

    def __call__(self, clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Apply a draw of operations, the same to all frames."""
        names = list(OPERATIONS)
        for choice in rng.integers(len(names), size=self.operations):
            if rng.random() >= self.probability:
                continue
            level = min(max(rng.normal(self.magnitude, self.spread), 0), MAX_LEVEL) / MAX_LEVEL
            sign = 1.0 if rng.random() < 0.5 else -1.0
            clip = OPERATIONS[names[choice]](clip, level, sign)
        return clip


def _affine(
    clip: torch.Tensor, x: float = 0.0, y: float = 0.0, shear_x: float = 0.0, shear_y: float = 0.0
) -> torch.Tensor:
    """Translate by pixels, shear by degrees about the top left corner."""
    return F.affine(
        clip,
        angle=0.0,
        translate=[x, y],
        scale=1.0,
        shear=[shear_x, shear_y],
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL,
        center=[0.0, 0.0],
    )


def _solarize_add(clip: torch.Tensor, level: float, _: float) -> torch.Tensor:
    brighter = (clip.to(torch.int16) + int(level * 110)).clamp_(max=255).to(torch.uint8)
    return torch.where(clip < 128, brighter, clip)


def _degrees(slope: float) -> float:
    return float(np.degrees(np.arctan(slope)))


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda clip, level, sign: F.autocontrast(clip),
    "Equalize": lambda clip, level, sign: F.equalize(clip),
    "Invert": lambda clip, level, sign: F.invert(clip),
    "Rotate": lambda clip, level, sign: F.rotate(clip, sign * 30 * level, InterpolationMode.BILINEAR, fill=FILL),
    "Posterize": lambda clip, level, sign: F.posterize(clip, 4 - int(4 * level)),
    "Solarize": lambda clip, level, sign: F.solarize(clip, min(255, 256 - int(256 * level))),
    "SolarizeAdd": _solarize_add,
    "Color": lambda clip, level, sign: F.adjust_saturation(clip, 1 + sign * 0.9 * level),
    "Contrast": lambda clip, level, sign: F.adjust_contrast(clip, 1 + sign * 0.9 * level),
    "Brightness": lambda clip, level, sign: F.adjust_brightness(clip, 1 + sign * 0.9 * level),
    "Sharpness": lambda clip, level, sign: F.adjust_sharpness(clip, 1 + sign * 0.9 * level),
    "ShearX": lambda clip, level, sign: _affine(clip, shear_x=_degrees(sign * 0.3 * level)),
    "ShearY": lambda clip, level, sign: _affine(clip, shear_y=_degrees(sign * 0.3 * level)),
    "TranslateX": lambda clip, level, sign: _affine(clip, x=sign * 0.45 * level * clip.shape[-1]),
    "TranslateY": lambda clip, level, sign: _affine(clip, y=sign * 0.45 * level * clip.shape[-2]),
}
"""The fifteen operations; `level` in 0..1 is the magnitude over 10."""
