"""Training and test transforms of a clip: one draw of parameters for all frames.

Design choices
- Functions of (clip, generator); all randomness comes from the generator that is passed in.
- Clips stay uint8: that is where torchvision's kernels are fast, and a quarter of the bytes on the way to the device,
  where they are normalised and erased (`normalised`, `erase`). Cropping and normalising are linear, so this equals the
  published order (normalise, then crop) up to rounding to a grey level.
- Noise of an erased box is a function of a seed and of the pixel, the same on each device.
- Resizing does not smooth before it shrinks (antialias off), as in the published code, whose crops are barely shrunk.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ssp.config import Augmentation
from ssp.data.operations import Box
from ssp.data.randaugment import RandAugment, changed

MEAN = (0.485, 0.456, 0.406)  # ImageNet
STD = (0.229, 0.224, 0.225)
_SHIFT = -255 * torch.tensor(MEAN).view(3, 1, 1, 1)
_SCALE = 1 / (255 * torch.tensor(STD).view(3, 1, 1, 1))
NOTHING = (0, 0, 0, 0, 0)  # to erase


class TrainTransform:
    """RandAugment, random resized crop, flip, and what is to be erased: from decoded frames to a clip."""

    def __init__(self, augmentation: Augmentation, size: int) -> None:
        self.options, self.size = augmentation, size
        self.randaugment = RandAugment.parse(augmentation.randaugment) if augmentation.randaugment else None

    def __call__(self, clip: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (T, 3, H, W) to uint8 (3, T, size, size), and what `erase` is to do, int64 (5,)."""
        changes = self.randaugment.draw(rng) if self.randaugment else []
        box = crop_box(*clip.shape[-2:], self.options.scale, self.options.ratio, rng)
        clip = resize(changed(clip, changes, box), self.size, self.size)
        if rng.random() < self.options.flip:
            clip = clip.flip(-1)
        erasing = draw_erasing(self.size, self.size, rng) if rng.random() < self.options.erasing else NOTHING
        return channels_first(clip), torch.tensor(erasing)


def validation_view(clip: torch.Tensor, size: int) -> torch.Tensor:
    """Short side to `size`, centre crop: uint8 (T, 3, H, W) to uint8 (3, T, size, size)."""
    return test_view(clip, size, 0, 1)


def test_view(clip: torch.Tensor, size: int, crop: int, crops: int) -> torch.Tensor:
    """Short side to `size`, then one of `crops` squares spaced equally along the long side; one crop is the centre.

    uint8 (T, 3, H, W) to uint8 (3, T, size, size).
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
    # Here, as it takes 2.5 seconds to import, and most processes resize nothing.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    return functional.resize(clip, [height, width], InterpolationMode.BILINEAR, antialias=False)


def channels_first(clip: torch.Tensor) -> torch.Tensor:
    """(T, 3, H, W) to (3, T, H, W), contiguous."""
    return clip.transpose(0, 1).contiguous()


def normalised(clips: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, T, H, W) to float32, normalised by ImageNet's statistics; on any device."""
    shift, scale = (x.to(clips.device, non_blocking=True) for x in (_SHIFT, _SCALE))
    return clips.to(torch.float32).add_(shift).mul_(scale)


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


def draw_erasing(height: int, width: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Random erasing: top, left, height and width of one box for all frames, and the seed of its noise."""
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 1 / 3)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            box = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
            return *box, int(rng.integers(2**62))
    return NOTHING


def erase(clips: torch.Tensor, erasing: torch.Tensor) -> None:
    """Put fresh normal noise into the boxes of normalised clips (N, 3, T, H, W), in place.

    `erasing` (N, 5), on the CPU, has what `draw_erasing` gave for each.
    """
    for clip, (top, left, height, width, seed) in zip(clips, erasing.tolist(), strict=True):
        if height:
            box = clip[..., top : top + height, left : left + width]
            box.copy_(noise(seed, box.numel(), box.device).view(box.shape))


def noise(seed: int, count: int, device: torch.device | str) -> torch.Tensor:
    """Standard normal numbers (count,), up to float32's rounding the same on each device.

    Numbers 1, 2, ... after the seed, mixed by SplitMix64 (Steele, Lea and Flood, 2014), give two uniform ones of 24
    bits each, and these a normal one (Box and Muller, 1958).
    """
    z = torch.arange(1, count + 1, device=device) * _signed(0x9E3779B97F4A7C15) + seed
    for bits, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ _shifted(z, bits)) * _signed(factor)
    z ^= _shifted(z, 31)
    first, second = (_shifted(z, 40) + 1).to(torch.float32), (z & 0xFFFFFF).to(torch.float32)
    return (-2 * (first / 2**24).log()).sqrt_() * (second * (2 * math.pi / 2**24)).cos_()


def _signed(number: int) -> int:
    """The int64 with the same bits; products of such wrap around."""
    return number - 2**64 if number >= 2**63 else number


def _shifted(z: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift to the right, zeros coming in."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
