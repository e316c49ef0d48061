"""Shapes and hues of the demo's objects.

- A shape is a signed distance (negative inside), so that one line anti-aliases it at any size and rotation.
- Coordinates are the object's own: (0, 0) its centre, 1 its radius. All shapes cover a similar area.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def _box(u: Array, v: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 0.9


def _ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - 0.78) - 0.26


def _square(u: Array, v: Array) -> Array:
    return _box(u, v, 0.8, 0.8)


def _frame(u: Array, v: Array) -> Array:
    return np.abs(_box(u, v, 0.7, 0.7)) - 0.23


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u) * 0.866 - v * 0.5, v) - 0.58


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 0.34, 1.0), _box(u, v, 1.0, 0.34))


def _bar(u: Array, v: Array) -> Array:
    return _box(u, v, 1.15, 0.42)


def _pair(u: Array, v: Array) -> Array:
    mirrored = np.abs(u) - 0.66
    return np.sqrt(mirrored * mirrored + v * v) - 0.52


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "bar": _bar,
    "pair": _pair,
}
"""Name -> signed distance at (u, v), in radii."""

HUES: dict[str, float] = {
    "red": 0.0,
    "orange": 0.085,
    "yellow": 0.16,
    "green": 0.34,
    "teal": 0.49,
    "blue": 0.63,
    "purple": 0.76,
    "pink": 0.90,
}
"""Name -> hue on the colour circle, 0..1."""


def rgb(hue: float, saturation: float, value: float) -> Array:
    """HSV (each 0..1, the hue wraps) as RGB in 0..255, shape (3,), float32."""
    ramp = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return (255 * value * (1 - saturation + saturation * np.clip(ramp, 0, 1))).astype(np.float32)
