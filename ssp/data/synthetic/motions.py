"""Motions of the demo's objects, each a function of a phase counted in cycles.

- A phase that runs over several cycles shows an endless motion (a crossing object re-enters on the other side); a phase
  that runs once from 0 to 1 shows it once, which is what the order-of-events data sets use.
- Lengths are in frame heights, x to the right, y downwards; the frame's centre is (0, 0).
- The source classes (pre-training) and the target classes use different motions: `SOURCE_MOTIONS` is the line between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
CROSSING = 1.25  # frame heights from outside one edge to outside the other


@dataclass(frozen=True)
class Path:
    """Displacement, growth and rotation over time, each of shape (T,)."""

    x: Array
    y: Array
    growth: Array
    angle: Array


def _path(
    phase: Array, x: Array | float = 0, y: Array | float = 0, growth: Array | float = 0, angle: Array | float = 0
) -> Path:
    return Path(*(np.broadcast_to(np.asarray(part, np.float32), phase.shape) for part in (x, y, growth, angle)))


def _crossing(phase: Array) -> Array:
    """-1/2 to 1/2 crossings within each cycle. Phase 1 is the end of the first cycle, not the start of the second."""
    return CROSSING * (phase - np.maximum(np.ceil(phase) - 1, 0) - 0.5)


def _dive(p: Array) -> Path:
    return _path(p, x=0.8 * _crossing(p), y=0.8 * _crossing(p))


def _lift(p: Array) -> Path:
    return _path(p, x=-0.8 * _crossing(p), y=-0.8 * _crossing(p))


def _pulse(p: Array) -> Path:
    return _path(p, growth=0.5 * np.sin(2 * np.pi * p))


def _orbit(p: Array) -> Path:
    return _path(p, x=0.24 * np.cos(2 * np.pi * p), y=0.24 * np.sin(2 * np.pi * p))


def _rise(p: Array) -> Path:
    return _path(p, y=-_crossing(p))


def _sink(p: Array) -> Path:
    return _path(p, y=_crossing(p))


def _advance(p: Array) -> Path:
    return _path(p, x=_crossing(p))


def _slide(p: Array) -> Path:
    return _path(p, x=-0.8 * _crossing(p), y=0.8 * _crossing(p))


def _approach(p: Array) -> Path:
    return _path(p, growth=0.9 * (p - np.maximum(np.ceil(p) - 1, 0)) - 0.45)


def _swing(p: Array) -> Path:
    return _path(p, x=0.3 * np.sin(2 * np.pi * p), angle=0.5 * np.sin(2 * np.pi * p))


def _hop(p: Array) -> Path:
    return _path(p, y=0.2 - 0.4 * np.abs(np.sin(np.pi * p)))


def _spin(p: Array) -> Path:
    return _path(p, angle=2 * np.pi * p)


def _rest(p: Array) -> Path:
    return _path(p)


MOTIONS: dict[str, Callable[[Array], Path]] = {
    "dive": _dive,
    "lift": _lift,
    "pulse": _pulse,
    "orbit": _orbit,
    "rise": _rise,
    "sink": _sink,
    "advance": _advance,
    "slide": _slide,
    "approach": _approach,
    "swing": _swing,
    "hop": _hop,
    "spin": _spin,
    "rest": _rest,
}
"""Name -> path as a function of phase (T,)."""

CROSSINGS = ("dive", "lift", "rise", "sink", "advance", "slide", "approach")
"""Have a beginning and an end; the others are periodic."""

SOURCE_MOTIONS = ("dive", "lift", "pulse", "orbit")
"""Seen in pre-training only; mostly directional, because only a direction forces a backbone to learn order in time."""
