"""RandAugment in the "increasing" form of the published recipe, read from strings such as rand-m7-n4-mstd0.5-inc1.

- m: magnitude 0..10; n: operations per clip, drawn with replacement; mstd: spread of the magnitude, drawn anew for
  every operation and kept within 0..10; p: probability of each operation (0.5); inc1: larger magnitudes change more.
- One draw of operation and parameters for all frames of a clip.
- Frames lie plane by plane here, where torchvision's kernels are two to six times as fast (but for sharpening).
  Geometric operations treat frames and colours as channels of one image, so that weights are computed once a clip;
  tables of 256 grey levels go through `bytes.translate`. benchmarks/data.py says where the time goes.
- Two differences from the published code: geometric operations interpolate bilinearly (its bicubic exists for PIL
  images only), and `Contrast` blends with the mean of each frame as torchvision computes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms.v2 import functional as F

from ssp.errors import ConfigError

MAX_LEVEL = 10
FILL = 128.0
_GREYS = np.arange(256)
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
        names, clip = list(OPERATIONS), clip.contiguous()
        for choice in rng.integers(len(names), size=self.operations):
            if rng.random() >= self.probability:
                continue
            level = min(max(rng.normal(self.magnitude, self.spread), 0), MAX_LEVEL) / MAX_LEVEL
            sign = 1.0 if rng.random() < 0.5 else -1.0
            clip = OPERATIONS[names[choice]](clip, level, sign)
        return clip


def _warp(clip: torch.Tensor, matrix: list[list[float]], offset: list[float]) -> torch.Tensor:
    """Each pixel from where `matrix` and `offset` (x, y; pixels, from the centre) send it; bilinear, grey outside."""
    frames, colours, height, width = clip.shape
    ratio = height / width
    theta = torch.tensor(
        [
            [matrix[0][0], matrix[0][1] * ratio, 2 * offset[0] / width],
            [matrix[1][0] / ratio, matrix[1][1], 2 * offset[1] / height],
        ]
    )
    grid = affine_grid(theta[None], [1, 1, height, width], align_corners=False)
    image = clip.reshape(1, frames * colours, height, width).to(torch.float32).sub_(FILL)  # outside is zero
    image = grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return image.add_(FILL).round_().to(torch.uint8).view(clip.shape)


def _rotate(clip: torch.Tensor, degrees: float) -> torch.Tensor:
    """Counter-clockwise about the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(clip, [[cos, -sin], [sin, cos]], [0, 0])


def _shear_x(clip: torch.Tensor, slope: float) -> torch.Tensor:
    """Rows to the left by `slope` pixels for each pixel below the top edge."""
    return _warp(clip, [[1, slope], [0, 1]], [slope * clip.shape[-2] / 2, 0])


def _shear_y(clip: torch.Tensor, slope: float) -> torch.Tensor:
    """Columns up by `slope` pixels for each pixel right of the left edge."""
    return _warp(clip, [[1, 0], [slope, 1]], [0, slope * clip.shape[-1] / 2])


def _translate(clip: torch.Tensor, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    """By pixels, to the right and down."""
    return _warp(clip, [[1, 0], [0, 1]], [-x, -y])


def _mapped(clip: torch.Tensor, table: np.ndarray) -> torch.Tensor:
    """Grey levels through a table of 256."""
    mapped = clip.contiguous().numpy().tobytes().translate(table.astype(np.uint8).tobytes())
    return torch.from_numpy(np.frombuffer(bytearray(mapped), np.uint8).reshape(clip.shape))


def _solarize(clip: torch.Tensor, level: float) -> torch.Tensor:
    return _mapped(clip, np.where(min(255, 256 - int(256 * level)) <= _GREYS, 255 - _GREYS, _GREYS))


def _solarize_add(clip: torch.Tensor, level: float) -> torch.Tensor:
    return _mapped(clip, np.where(_GREYS < 128, np.minimum(_GREYS + int(110 * level), 255), _GREYS))


def _sharpen(clip: torch.Tensor, factor: float) -> torch.Tensor:
    """Its convolution is fast pixel by pixel only."""
    return F.adjust_sharpness(clip.contiguous(memory_format=torch.channels_last), factor).contiguous()


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda clip, level, sign: F.autocontrast(clip),
    "Equalize": lambda clip, level, sign: F.equalize(clip),
    "Invert": lambda clip, level, sign: F.invert(clip),
    "Rotate": lambda clip, level, sign: _rotate(clip, sign * 30 * level),
    "Posterize": lambda clip, level, sign: F.posterize(clip, 4 - int(4 * level)),
    "Solarize": lambda clip, level, sign: _solarize(clip, level),
    "SolarizeAdd": lambda clip, level, sign: _solarize_add(clip, level),
    "Color": lambda clip, level, sign: F.adjust_saturation(clip, 1 + sign * 0.9 * level),
    "Contrast": lambda clip, level, sign: F.adjust_contrast(clip, 1 + sign * 0.9 * level),
    "Brightness": lambda clip, level, sign: F.adjust_brightness(clip, 1 + sign * 0.9 * level),
    "Sharpness": lambda clip, level, sign: _sharpen(clip, 1 + sign * 0.9 * level),
    "ShearX": lambda clip, level, sign: _shear_x(clip, sign * 0.3 * level),
    "ShearY": lambda clip, level, sign: _shear_y(clip, sign * 0.3 * level),
    "TranslateX": lambda clip, level, sign: _translate(clip, x=sign * 0.45 * level * clip.shape[-1]),
    "TranslateY": lambda clip, level, sign: _translate(clip, y=sign * 0.45 * level * clip.shape[-2]),
}
"""The fifteen operations; `level` in 0..1 is the magnitude over 10."""
