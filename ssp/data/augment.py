"""Training and test transforms of a clip: one draw of parameters for all frames.

Design choices
- Functions of (clip, generator); all randomness comes from the generator that is passed in.
- Clips stay uint8 (T, 3, H, W) until they are cropped to size: that is where torchvision's kernels are fast. Cropping
  and normalising are linear, so this equals the published order (normalise, then crop) up to rounding to a grey level.
- Resizing does not smooth before it shrinks (antialias off), as in the published code, whose crops are barely shrunk.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ssp.config import Augmentation
from ssp.data.operations import Box
from ssp.data.randaugment import RandAugment, changed

MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)
_SHIFT = -255 * torch.tensor(MEAN).view(3, 1, 1)
_SCALE = 1 / (255 * torch.tensor(STD).view(3, 1, 1))


class TrainTransform:
    """RandAugment, random resized crop, flip, random erasing: from decoded frames to a normalised clip."""

    def __init__(self, augmentation: Augmentation, size: int) -> None:
        self.options, self.size = augmentation, size
        self.randaugment = RandAugment.parse(augmentation.randaugment) if augmentation.randaugment else None

    def __call__(self, clip: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """uint8 (T, 3, H, W) to float32 (3, T, size, size), normalised."""
        changes = self.randaugment.draw(rng) if self.randaugment else []
        box = crop_box(*clip.shape[-2:], self.options.scale, self.options.ratio, rng)
        clip = resize(changed(clip, changes, box), self.size, self.size)
        if rng.random() < self.options.flip:
            clip = clip.flip(-1)
        clip = channels_first(clip)
        if rng.random() < self.options.erasing:
            erase(clip.transpose(0, 1), rng)
        return clip


def validation_view(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Short side to `size`, centre crop: uint8 (T, 3, H, W) to float32 (3, T, size, size)."""
    return test_view(clip, size, 0, 1)


def test_view(clip: torch.Tensor, size: int, crop: int, crops: int) -> torch.Tensor:
    """Short side to `size`, then one of `crops` squares spaced equally along the long side; one crop is the centre.

    uint8 (T, 3, H, W) to float32 (3, T, size, size).
    """
    height, width = clip.shape[-2:]
    if width < height:
        height, width = int(size * height / width), size
    else:
        height, width = size, int(size * width / height)
    clip = resize(clip, height, width)
    starts = [centre_or_spaced(extent - size, crop, crops) for extent in (height, width)]
    clip = clip[..., starts[0] : starts[0] + size, starts[1] : starts[1] + size]
    return channels_first(clip)


def centre_or_spaced(slack: int, crop: int, crops: int) -> int:
    """Where crop number `crop` of `crops` begins when there are `slack` pixels to move in."""
    return round(slack / 2) if crops == 1 else int(crop * (slack / (crops - 1)))


def resize(clip: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear, without smoothing; nothing happens when the size is right."""
    if clip.shape[-2:] == (height, width):
        return clip
    return F.resize(clip, [height, width], InterpolationMode.BILINEAR, antialias=False)


def channels_first(clip: torch.Tensor) -> torch.Tensor:
    """uint8 (T, 3, H, W) to float32 (3, T, H, W), normalised by ImageNet's statistics."""
    frames, colours, height, width = clip.shape
    out = torch.empty(colours, frames, height, width)
    out.copy_(clip.transpose(0, 1))  # by itself: an addition that converts as well takes ten times as long
    return out.add_(_SHIFT[:, None]).mul_(_SCALE[:, None])


def crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A random resized crop: ten tries, then the largest centre crop of a legal ratio."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def erase(clip: torch.Tensor, rng: np.random.Generator) -> None:
    """Random erasing, in place on float (T, 3, H, W): one box for all frames, fresh normal noise in every pixel."""
    frames, channels, height, width = clip.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 1 / 3)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.standard_normal((frames, channels, h, w), dtype=np.float32)
            clip[..., top : top + h, left : left + w] = torch.from_numpy(noise)
            return
