"""Renderer of the demo's scenes: sprites that move over a textured, scrolling backdrop, seen by a camera.

- Whole clips at once in float32 numpy: about a millisecond for 16 frames of 32 x 32.
- Everything random comes from the generators the caller passes, so a clip is a pure function of its seeds.
- Scene coordinates are frame heights with (0, 0) in the centre; a `View` turns them into a camera's picture, so that
  several cameras can film one take.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssp.data.synthetic.shapes import SHAPES, rgb

Array = np.ndarray
TILE = 96  # pixels of a backdrop's side; it wraps around


@dataclass(frozen=True)
class Sprite:
    """One object over time. `x`, `y`, `radius` in frame heights, `angle` in radians, `alpha` 0..1, each (T,)."""

    shape: str
    colour: Array
    x: Array
    y: Array
    radius: Array
    angle: Array
    alpha: Array


@dataclass(frozen=True)
class View:
    """A camera: shift (frame heights), zoom, roll (radians), and a gain for each colour channel."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0
    roll: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> View:
        """A random camera; never mirrored, since direction may be the class."""
        x, y, zoom, roll = rng.uniform(-1, 1, 4) * strength
        gain = 1 + 0.15 * strength * rng.uniform(-1, 1) + 0.06 * strength * rng.uniform(-1, 1, 3)
        return cls(0.08 * x, 0.08 * y, float(np.exp(0.18 * zoom)), 0.2 * roll, tuple(gain.tolist()))

    def film(self, sprite: Sprite) -> Sprite:
        """The sprite in this camera's coordinates."""
        cos, sin = self.zoom * np.cos(self.roll), self.zoom * np.sin(self.roll)
        return Sprite(
            sprite.shape,
            sprite.colour,
            cos * sprite.x - sin * sprite.y + self.x,
            sin * sprite.x + cos * sprite.y + self.y,
            self.zoom * sprite.radius,
            sprite.angle + self.roll,
            sprite.alpha,
        )


@lru_cache(maxsize=512)
def backdrop(seed: tuple[int, ...]) -> Array:
    """The texture of a group's scene: muted colours, a few gratings and blotches; (TILE, TILE, 3) float32, wraps."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    rows, columns = np.mgrid[:TILE, :TILE].astype(np.float32) * (2 * np.pi / TILE)
    texture = np.zeros((TILE, TILE), np.float32)
    for _ in range(3):
        fy, fx = rng.integers(-9, 10, 2)
        texture += rng.uniform(0.4, 1) * np.sin(fy * rows + fx * columns + rng.uniform(0, 2 * np.pi))
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE)))
    fy, fx = np.fft.fftfreq(TILE)[:, None] * TILE, np.arange(spectrum.shape[1])[None]
    blotches = np.fft.irfft2(spectrum * np.exp(-((fy**2 + fx**2) / rng.uniform(5, 14) ** 2)), (TILE, TILE))
    texture = 0.5 * texture + blotches.astype(np.float32) / blotches.std()
    dark, light = (
        rgb(rng.uniform(), rng.uniform(0.05, 0.45), value) for value in rng.uniform([0.2, 0.45], [0.45, 0.8])
    )
    mix = 1 / (1 + np.exp(-rng.uniform(0.7, 1.4) * texture))[..., None]
    return (dark + (light - dark) * mix).astype(np.float32)


def render(
    sprites: list[Sprite],
    tile: Array,
    scroll: Array,
    size: tuple[int, int],
    view: View,
    noise: float,
    rng: np.random.Generator,
) -> Array:
    """Draw a clip.

    Args:
        sprites: in painting order, in scene coordinates.
        tile: a `backdrop`.
        scroll: (T, 2) pixels (rows, columns) that the backdrop has moved by.
        size: width and height in pixels.
        view: the camera.
        noise: standard deviation of the sensor's luma noise, grey levels.
        rng: draws the noise.

    Returns:
        uint8 (T, H, W, 3) RGB.
    """
    width, height = size
    frames = _scrolled(tile, scroll, width, height)
    rows = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.5)[None, :, None]
    columns = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height)[None, None, :]
    for sprite in map(view.film, sprites):
        alpha = _coverage(sprite, rows, columns, height)[..., None]
        frames += alpha * (sprite.colour.astype(np.float32) - frames)
    frames *= np.asarray(view.gain, np.float32)
    frames += noise * rng.standard_normal((*frames.shape[:3], 1), dtype=np.float32)
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _scrolled(tile: Array, scroll: Array, width: int, height: int) -> Array:
    """Windows of the tile at fractional offsets (bilinear), (T, height, width, 3) float32."""
    whole = np.floor(scroll).astype(int)
    part = (scroll - whole).astype(np.float32)
    windows = np.empty((len(scroll), height + 1, width + 1, 3), np.float32)
    for window, (row, column) in zip(windows, whole, strict=True):
        picked = tile[np.arange(row, row + height + 1) % TILE]
        window[:] = picked[:, np.arange(column, column + width + 1) % TILE]
    down, right = part[:, 0, None, None, None], part[:, 1, None, None, None]
    windows = windows[:, :-1] + down * (windows[:, 1:] - windows[:, :-1])
    return windows[:, :, :-1] + right * (windows[:, :, 1:] - windows[:, :, :-1])


def _coverage(sprite: Sprite, rows: Array, columns: Array, height: int) -> Array:
    """Share of each pixel that the sprite covers, (T, H, W) float32."""
    x, y, radius, angle, alpha = (
        np.asarray(part, np.float32)[:, None, None]
        for part in (sprite.x, sprite.y, sprite.radius, sprite.angle, sprite.alpha)
    )
    cos, sin = np.cos(angle) / radius, np.sin(angle) / radius
    dx, dy = columns - x, rows - y
    distance = SHAPES[sprite.shape](cos * dx + sin * dy, cos * dy - sin * dx)
    return alpha * np.clip(0.5 - distance * (radius * height), 0, 1)
