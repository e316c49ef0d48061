"""The classes of the demo's data sets and of pre-training, and how a clip of each is staged.

- An *action* is (hue, shape, motion): "a red square rises". HMDB51- and UCF101-like classes are actions, told apart by
  appearance and motion.
- SSv2-like classes are events whose objects vary; classes 2k and 2k + 1 are the same event played forwards and
  backwards (literally: the frames of one are the reversed frames of the other), so only order in time tells them apart.
- Breakfast-like classes are orders of the same four actions; each order has its reverse among the classes. One take is
  filmed by several cameras.
- Source classes (pre-training) share no action, no motion and no pairing of hue and shape with any of these.
- What is not the class (place, size, speed, colour, backdrop, passers-by, camera) is drawn from the same
  distributions for all classes of a data set. How hard the tasks are is set here, by `Difficulty`, and was tuned with
  the linear probe and full fine-tuning alone (benchmarks/demo_difficulty.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Action(NamedTuple):
    """What one object does."""

    hue: str
    shape: str
    motion: str


class Event(NamedTuple):
    """A pair of SSv2-like classes: the templates of an event forwards and backwards."""

    kind: str
    forwards: str
    backwards: str


@dataclass(frozen=True)
class Difficulty:
    """Spread of everything that is not the class. Lengths in frame heights."""

    radius: tuple[float, float] = (0.15, 0.21)
    place: float = 0.14
    hue_jitter: float = 0.025
    saturation: tuple[float, float] = (0.6, 0.95)
    cycles: tuple[float, float] = (1.0, 2.2)  # of a periodic motion, over the clip
    distractors: int = 2
    distractor_radius: tuple[float, float] = (0.06, 0.1)
    view: float = 1.0  # strength of `View.draw`
    noise: float = 7.0  # grey levels


DIFFICULTY = {
    # Easier than the targets: a small backbone learns motion only where it can see it well.
    "source": Difficulty(radius=(0.18, 0.25), place=0.08, distractors=1, view=0.6, noise=4.0),
    "hmdb51": Difficulty(),
    "ucf101": Difficulty(),
    "ssv2": Difficulty(),
    "breakfast": Difficulty(),
}


def _actions(looks: str, motions: str) -> tuple[Action, ...]:
    return tuple(Action(*look.split("-"), motion) for look in looks.split() for motion in motions.split())


SOURCE = _actions("red-ring blue-square green-disc yellow-bar purple-cross orange-triangle", "dive lift pulse orbit")

HMDB51 = _actions("red-square blue-ring green-triangle", "advance slide swing")

UCF101 = _actions("purple-square orange-ring teal-disc yellow-cross pink-frame", "swing slide")

SSV2 = (
    Event("cross", "Moving [something] from left to right", "Moving [something] from right to left"),
    Event("sink", "Moving [something] down", "Moving [something] up"),
    Event("approach", "Moving [something] towards the camera", "Moving [something] away from the camera"),
    Event("replace", "Replacing [something] by its outline", "Filling the outline of [something]"),
)
EVENT_MOTIONS = {"cross": "advance", "sink": "sink", "approach": "approach", "replace": "rest"}
OBJECTS = ("disc", "square", "triangle", "cross", "bar", "pair")
OUTLINES = {"disc": "ring", "square": "frame"}

BREAKFAST_STEPS = (
    Action("red", "disc", "rise"),
    Action("yellow", "triangle", "advance"),
    Action("green", "cross", "spin"),
    Action("purple", "bar", "hop"),
)
# No two orders share both their first and their last step.
BREAKFAST_ORDERS = (
    (0, 1, 2, 3),
    (3, 2, 1, 0),
    (1, 0, 3, 2),
    (2, 3, 0, 1),
    (0, 3, 1, 2),
    (2, 1, 3, 0),
    (1, 2, 0, 3),
    (3, 0, 2, 1),
)

CLASSES = {"hmdb51": len(HMDB51), "ucf101": len(UCF101), "ssv2": 2 * len(SSV2), "breakfast": len(BREAKFAST_ORDERS)}
"""Number of classes of each generated data set."""


def template(label: int) -> str:
    """The SSv2-like class `label` in words, the object as [something]."""
    event = SSV2[label // 2]
    return event.backwards if label % 2 else event.forwards
