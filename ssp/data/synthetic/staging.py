"""Staging: from a class and random generators to the frames of a clip."""

from __future__ import annotations

import numpy as np

from ssp.data.synthetic.motions import CROSSINGS, MOTIONS
from ssp.data.synthetic.render import Sprite, View, backdrop, render
from ssp.data.synthetic.scenes import (
    BREAKFAST_ORDERS,
    BREAKFAST_STEPS,
    DIFFICULTY,
    EVENT_MOTIONS,
    HMDB51,
    OBJECTS,
    OUTLINES,
    SOURCE,
    SSV2,
    UCF101,
    Action,
    Difficulty,
)
from ssp.data.synthetic.shapes import HUES, SHAPES, rgb

Array = np.ndarray
ACTIONS = {"hmdb51": HMDB51, "ucf101": UCF101, "source": SOURCE}


def stage(
    dataset: str,
    label: int,
    *,
    frames: int,
    fps: float,
    size: tuple[int, int],
    scene: tuple[int, ...],
    take: np.random.Generator,
    camera: np.random.Generator,
    view: View | None = None,
    difficulty: Difficulty | None = None,
) -> Array:
    """Render a clip of a class.

    Args:
        dataset: hmdb51, ucf101, ssv2, breakfast, or source (pre-training).
        label: class number.
        frames: length.
        fps: frames a second.
        size: width and height in pixels.
        scene: seed of the backdrop; the clips of a group share it.
        take: draws what happens. The same take seen by two cameras has the same state of this generator.
        camera: draws passers-by, the backdrop's drift and the sensor's noise.
        view: the camera's view; None draws one.
        difficulty: None takes the data set's own.

    Returns:
        uint8 (frames, height, width, 3) RGB.
    """
    difficulty = difficulty or DIFFICULTY[dataset]
    seconds = np.arange(frames) / fps
    if dataset == "ssv2":
        sprites = _event(SSV2[label // 2].kind, seconds, take, difficulty)
    elif dataset == "breakfast":
        sprites = _order(BREAKFAST_ORDERS[label], seconds, take, difficulty)
    else:
        sprites = [_action(ACTIONS[dataset][label], seconds, take, difficulty)]
    passers_by = [_passer_by(seconds, camera, difficulty) for _ in range(difficulty.distractors)]
    drift = camera.normal(0, 6, 2) * seconds[:, None] + camera.uniform(0, 96, 2)
    view = view or View.draw(camera, difficulty.view)
    clip = render([*passers_by, *sprites], backdrop(scene), drift, size, view, difficulty.noise, camera)
    return clip[::-1] if dataset == "ssv2" and label % 2 else clip


def _sprite(
    look: tuple[str, str], motion: str, phase: Array, rng: np.random.Generator, difficulty: Difficulty
) -> Sprite:
    """One object of a look (hue, shape) that moves by a phase (T,), at a random place, size, tilt and colour."""
    hue, shape = look
    path = MOTIONS[motion](phase)
    x, y = rng.uniform(-difficulty.place, difficulty.place, 2)
    radius = rng.uniform(*difficulty.radius)
    colour = rgb(
        HUES[hue] + rng.uniform(-1, 1) * difficulty.hue_jitter,
        rng.uniform(*difficulty.saturation),
        rng.uniform(0.7, 1.0),
    )
    tilt = rng.uniform(-0.3, 0.3)
    return Sprite(
        shape, colour, x + path.x, y + path.y, radius * np.exp(path.growth), tilt + path.angle, np.ones_like(phase)
    )


def _action(action: Action, seconds: Array, rng: np.random.Generator, difficulty: Difficulty) -> Sprite:
    """One action over the whole clip: a crossing once, anything periodic a few times from a random phase."""
    if action.motion in CROSSINGS:
        phase = _once(seconds, rng)
    else:
        phase = rng.uniform(0, 1) + rng.uniform(*difficulty.cycles) * seconds / max(seconds[-1], 1e-6)
    return _sprite((action.hue, action.shape), action.motion, phase, rng, difficulty)


def _once(seconds: Array, rng: np.random.Generator) -> Array:
    """A phase from near 0 to near 1 over the clip, at a pace that changes a little."""
    progress = (seconds / max(seconds[-1], 1e-6)) ** rng.uniform(0.75, 1.33)
    return rng.uniform(0, 0.15) + progress * rng.uniform(0.7, 0.85)


def _event(kind: str, seconds: Array, rng: np.random.Generator, difficulty: Difficulty) -> list[Sprite]:
    """An SSv2-like event, played forwards once over the clip."""
    phase = _once(seconds, rng)
    hue = str(rng.choice(list(HUES)))
    shape = str(rng.choice(list(OUTLINES) if kind == "replace" else OBJECTS))
    sprite = _sprite((hue, shape), EVENT_MOTIONS[kind], phase, rng, difficulty)
    if kind != "replace":
        return [sprite]
    before = (phase < rng.uniform(0.3, 0.7)).astype(np.float32)
    geometry = (sprite.colour, sprite.x, sprite.y, sprite.radius, sprite.angle)
    return [Sprite(shape, *geometry, before), Sprite(OUTLINES[shape], *geometry, 1 - before)]


def _order(order: tuple[int, ...], seconds: Array, rng: np.random.Generator, difficulty: Difficulty) -> list[Sprite]:
    """A Breakfast-like activity: four actions one after the other, each of its own length."""
    shares = rng.uniform(0.6, 1.4, len(order))
    bounds = np.concatenate([[0], np.cumsum(shares / shares.sum())])
    progress = (np.arange(len(seconds)) + 0.5) / len(seconds)
    sprites = []
    for step, start, end in zip(order, bounds[:-1], bounds[1:], strict=True):
        action = BREAKFAST_STEPS[step]
        during = (progress >= start) & (progress < end)
        phase = np.clip((progress - start) / (end - start), 0, 1)
        sprite = _sprite((action.hue, action.shape), action.motion, phase, rng, difficulty)
        geometry = (sprite.colour, sprite.x, sprite.y, sprite.radius, sprite.angle)
        sprites.append(Sprite(sprite.shape, *geometry, during.astype(np.float32)))
    return sprites


def _passer_by(seconds: Array, rng: np.random.Generator, difficulty: Difficulty) -> Sprite:
    """A small object of any look that crosses the picture in any direction and re-enters."""
    shape, hue = str(rng.choice(list(SHAPES))), rng.uniform()
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
    x, y = ((rng.uniform(0, 1.4) + speed * part(heading) * seconds) % 1.4 - 0.7 for part in (np.cos, np.sin))
    ones = np.ones_like(seconds)
    colour = rgb(hue, rng.uniform(0.3, 0.9), rng.uniform(0.5, 1))
    radius = rng.uniform(*difficulty.distractor_radius)
    return Sprite(shape, colour, x, y, radius * ones, rng.uniform(0, 6.3) * ones, 0.9 * ones)
