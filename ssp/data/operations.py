"""The fifteen operations of RandAugment on clips uint8 (T, 3, H, W), each able to make a part of its result only.

- An operation says which part of the frame a part of its result depends on (`reach`): where the crop that follows is
  known beforehand, nothing else is computed (see `ssp.data.randaugment.changed`).
- Frames lie plane by plane. What maps grey levels to grey levels goes through `bytes.translate` or integer arithmetic,
  the rest frame by frame, whose intermediate floats stay in the processor's cache. Geometric operations treat frames
  and colours as channels of one image, so that weights are computed once a clip. benchmarks/data.py has the times.
- Two differences from the published code: geometric operations interpolate bilinearly (its bicubic exists for PIL
  images only), and `Contrast` blends with the mean of each frame as torchvision computes it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import grid_sample

FILL = 128.0
STEPS = 4096  # of a pixel: geometric operations read at whole ones, so that each part of a frame reads the same
_LEVELS = torch.arange(256, dtype=torch.float32)
Size = tuple[int, int]  # height and width of whole frames
Affine = tuple[tuple[float, float, float], tuple[float, float, float]]


class Box(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, clip: torch.Tensor, have: Box) -> torch.Tensor:
        """These pixels of frames of which `clip` holds the part `have`."""
        top, left = self.top - have.top, self.left - have.left
        return clip[..., top : top + self.height, left : left + self.width]


def whole(size: Size) -> Box:
    """All of a frame."""
    return Box(0, 0, *size)


class Operation(ABC):
    """One operation; `level` in 0..1 is the magnitude over 10, `sign` is 1 or -1."""

    def __call__(self, clip: torch.Tensor, level: float, sign: float) -> torch.Tensor:
        """Change whole frames."""
        size = tuple(clip.shape[-2:])
        have = self.reach(whole(size), size, level, sign)
        return self.part(have.of(clip, whole(size)), have, whole(size), size, level, sign)

    @abstractmethod
    def reach(self, want: Box, size: Size, level: float, sign: float) -> Box:
        """The part of a frame that the part `want` of the result depends on."""

    @abstractmethod
    def part(self, clip: torch.Tensor, have: Box, want: Box, size: Size, level: float, sign: float) -> torch.Tensor:
        """The part `want` of the result, from a clip that holds the part `have` = `reach(want)` of frames."""


@dataclass(frozen=True)
class _PerPixel(Operation):
    """Each pixel from itself."""

    change: Callable[[torch.Tensor, float, float], torch.Tensor]

    def reach(self, want: Box, size: Size, level: float, sign: float) -> Box:
        return want

    def part(self, clip: torch.Tensor, have: Box, want: Box, size: Size, level: float, sign: float) -> torch.Tensor:
        return self.change(clip, level, sign)


@dataclass(frozen=True)
class _PerFrame(Operation):
    """Grey levels through tables that depend on all pixels of a frame: uint8 (T, 3 or 1, 256)."""

    tables: Callable[[torch.Tensor, float, float], torch.Tensor]

    def reach(self, want: Box, size: Size, level: float, sign: float) -> Box:
        return whole(size)

    def part(self, clip: torch.Tensor, have: Box, want: Box, size: Size, level: float, sign: float) -> torch.Tensor:
        tables = self.tables(clip, level, sign).expand(*clip.shape[:2], 256)
        clip = want.of(clip, have)
        out = torch.empty(clip.shape, dtype=torch.uint8)
        for plane in np.ndindex(*clip.shape[:2]):
            out[plane] = _mapped(clip[plane], tables[plane])
        return out


@dataclass(frozen=True)
class _Warp(Operation):
    """Each pixel from where an affine map sends it; bilinear, grey outside; a part is exactly that part of the whole.

    `affine(level x sign, size)` is the map: two rows (for x and y) of factors of x and y and a shift, in pixels from
    the middle of the frame.
    """

    affine: Callable[[float, Size], Affine]

    def reach(self, want: Box, size: Size, level: float, sign: float) -> Box:
        rows = np.array([want.top, want.top + want.height - 1])
        columns = np.array([want.left, want.left + want.width - 1])
        left, width = _span(self._source(0, rows, columns, size, level * sign) / STEPS, size[1])
        top, height = _span(self._source(1, rows, columns, size, level * sign) / STEPS, size[0])
        return Box(top, left, height, width)

    def part(self, clip: torch.Tensor, have: Box, want: Box, size: Size, level: float, sign: float) -> torch.Tensor:
        rows, columns = want.top + np.arange(want.height), want.left + np.arange(want.width)
        grid = np.empty((1, want.height, want.width, 2), np.float32)
        image, extents = _framed(clip.flatten(0, 1))
        for axis, (first, last) in enumerate(((have.left, have.width), (have.top, have.height))):
            source = self._source(axis, rows, columns, size, level * sign)
            source -= STEPS * (first - 1)
            np.clip(source, 0, STEPS * (last + 1), out=source)  # beyond, all is grey
            source += STEPS / 2
            source *= 2 / (STEPS * extents[axis])
            np.subtract(source, 1, out=grid[0, ..., axis], casting="same_kind")
        image = grid_sample(image, torch.from_numpy(grid), mode="bilinear", padding_mode="zeros", align_corners=False)
        return _grey_levels(image.round_()).view(*clip.shape[:2], want.height, want.width)

    def _source(self, axis: int, rows: np.ndarray, columns: np.ndarray, size: Size, amount: float) -> np.ndarray:
        """Where pixels come from, x (axis 0) or y (axis 1), in whole STEPS: float64 (rows, columns)."""
        height, width = size
        of_x, of_y, shift = self.affine(amount, size)[axis]
        x, y = columns + (0.5 - width / 2), rows[:, None] + (0.5 - height / 2)
        source = STEPS * of_x * x + STEPS * (of_y * y + (shift + size[1 - axis] / 2 - 0.5))
        return np.rint(source, out=source)


class _Sharpen(Operation):
    """Away from the mean of each pixel and its neighbours; the edge of the frame stays."""

    def reach(self, want: Box, size: Size, level: float, sign: float) -> Box:
        top, left = max(0, want.top - 1), max(0, want.left - 1)
        bottom, right = min(size[0], want.top + want.height + 1), min(size[1], want.left + want.width + 1)
        return Box(top, left, bottom - top, right - left)

    def part(self, clip: torch.Tensor, have: Box, want: Box, size: Size, level: float, sign: float) -> torch.Tensor:
        factor, out = _factor(level, sign), clip.clone()
        for frame, changed in zip(clip.to(torch.int16), out, strict=True):
            centre = frame[:, 1:-1, 1:-1]
            columns = frame[:, :-2] + frame[:, 1:-1] + frame[:, 2:]
            total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
            mean = total.add_(centre, alpha=4).to(torch.float32).mul_(1 / 13).round_()
            changed[:, 1:-1, 1:-1] = _grey_levels(centre.add(mean.sub_(centre), alpha=1 - factor).clamp_(0, 255))
        return want.of(out, have)


def _framed(planes: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Planes uint8 (C, H, W) in a grey frame, as an image (1, C, rows, columns) for `grid_sample`, and (columns, rows).

    Rows and columns are powers of two, for which the places of a grid are exact in float32. To save the time for so
    many pixels the frame has one row and column before the planes and two behind them: beyond, where nothing must be
    read, the image overlaps itself.
    """
    count, height, width = planes.shape
    columns, rows = (1 << (extent + 2).bit_length() for extent in (width, height))
    row, area = width + 3, (height + 3) * (width + 3)
    memory = torch.empty(count * area + rows * row + columns)
    image = memory[: count * area].view(count, height + 3, row)
    image[:, 1:-2, 1:-2] = planes
    for edge in (image[:, 0], image[:, -2:], image[:, :, 0], image[:, :, -2:]):
        edge.fill_(FILL)
    return memory.as_strided((1, count, rows, columns), (0, area, row, 1)), (columns, rows)


def _span(source: np.ndarray, extent: int) -> tuple[int, int]:
    """The pixels of 0..extent-1 that interpolation at these places reads: first one, and how many (at least one)."""
    first, last = (min(max(math.floor(place), 0), extent - 1) for place in (source.min(), source.max() + 1))
    return first, last - first + 1


def _grey_levels(values: torch.Tensor) -> torch.Tensor:
    """Floats 0..255 to uint8, cut off; by way of int16, because torch takes five times as long for the direct way."""
    return values.to(torch.int16).to(torch.uint8)


def _factor(level: float, sign: float) -> float:
    """By how much colour, contrast, brightness and sharpness are multiplied."""
    return 1 + sign * 0.9 * level


def _mapped(clip: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Grey levels through a table uint8 (256,)."""
    mapped = clip.contiguous().numpy().tobytes().translate(table.numpy().tobytes())
    return torch.frombuffer(bytearray(mapped), dtype=torch.uint8).view(clip.shape)


def _blended(degenerate: torch.Tensor | float, factor: float) -> torch.Tensor:
    """Table of grey levels away from a value: uint8 (..., 256)."""
    return (_LEVELS * factor).add(torch.as_tensor(degenerate), alpha=1 - factor).clamp_(0, 255).to(torch.uint8)


def _grey(frame: torch.Tensor) -> torch.Tensor:
    """Brightness in whole grey levels, float32 (H, W)."""
    red, green, blue = frame.to(torch.float32)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _solarize(clip: torch.Tensor, level: float) -> torch.Tensor:
    pixels = clip.numpy()
    inverted = (pixels >= 256 - int(256 * level)).view(np.uint8)
    return torch.from_numpy(np.negative(inverted) ^ pixels)


def _solarize_add(clip: torch.Tensor, level: float) -> torch.Tensor:
    pixels = clip.numpy()
    return torch.from_numpy((pixels < 128).view(np.uint8) * np.uint8(110 * level) + pixels)


def _saturate(clip: torch.Tensor, factor: float) -> torch.Tensor:
    out = torch.empty_like(clip)
    for frame, changed in zip(clip, out, strict=True):
        changed.copy_(_grey_levels(frame.mul(factor).add_(_grey(frame), alpha=1 - factor).clamp_(0, 255)))
    return out


def _contrast(clip: torch.Tensor, level: float, sign: float) -> torch.Tensor:
    means = torch.stack([_grey(frame).mean() for frame in clip])
    return _blended(means[:, None, None], _factor(level, sign))


def _autocontrast(clip: torch.Tensor, level: float, sign: float) -> torch.Tensor:
    low, high = (bound[..., None].to(torch.float32) for bound in (clip.amin((2, 3)), clip.amax((2, 3))))
    flat = low == high
    scale = (high - low).mul_(1 / 255).masked_fill_(flat, 1)
    return ((_LEVELS - low.masked_fill(flat, 0)) / scale).clamp_(0, 255).to(torch.uint8)


def _equalize(clip: torch.Tensor, level: float, sign: float) -> torch.Tensor:
    planes = clip.contiguous().flatten(0, 1).numpy()
    size = planes.shape[:0:-1]
    counts = np.array([Image.frombuffer("L", size, plane, "raw", "L", 0, 1).histogram() for plane in planes])
    below = np.cumsum(counts, axis=1) - counts
    last = np.array([plane[plane > 0][-1] for plane in counts])
    step = (counts.sum(1) - last) // 255
    tables = np.minimum((below + step[:, None] // 2) // np.maximum(step, 1)[:, None], 255)
    tables[step == 0] = np.arange(256)
    return torch.from_numpy(tables.astype(np.uint8)).view(*clip.shape[:2], 256)


def _turn(amount: float, size: Size) -> Affine:
    cos, sin = math.cos(math.radians(30 * amount)), math.sin(math.radians(30 * amount))
    return (cos, -sin, 0.0), (sin, cos, 0.0)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _PerFrame(_autocontrast),
    "Equalize": _PerFrame(_equalize),
    "Invert": _PerPixel(lambda clip, level, sign: ~clip),
    "Rotate": _Warp(_turn),  # counter-clockwise, up to 30 degrees
    "Posterize": _PerPixel(lambda clip, level, sign: clip & (256 - (16 << int(4 * level)))),
    "Solarize": _PerPixel(lambda clip, level, sign: _solarize(clip, level)),
    "SolarizeAdd": _PerPixel(lambda clip, level, sign: _solarize_add(clip, level)),
    "Color": _PerPixel(lambda clip, level, sign: _saturate(clip, _factor(level, sign))),
    "Contrast": _PerFrame(_contrast),
    "Brightness": _PerPixel(lambda clip, level, sign: _mapped(clip, _blended(0.0, _factor(level, sign)))),
    "Sharpness": _Sharpen(),
    # Rows to the left for each pixel below the top edge, columns up for each pixel right of the left edge.
    "ShearX": _Warp(lambda amount, size: ((1.0, 0.3 * amount, 0.3 * amount * size[0] / 2), (0.0, 1.0, 0.0))),
    "ShearY": _Warp(lambda amount, size: ((1.0, 0.0, 0.0), (0.3 * amount, 1.0, 0.3 * amount * size[1] / 2))),
    # To the right, and down, by up to 45 % of the frame.
    "TranslateX": _Warp(lambda amount, size: ((1.0, 0.0, -0.45 * amount * size[1]), (0.0, 1.0, 0.0))),
    "TranslateY": _Warp(lambda amount, size: ((1.0, 0.0, 0.0), (0.0, 1.0, -0.45 * amount * size[0]))),
}
"""By name, in the order that seeds refer to."""
