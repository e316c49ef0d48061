"""How long clips and jobs take: the assumption, where nothing was measured (`measured`), and what speeds are made of.

What is assumed is one number each way, in proportion to FLOPs, and said to be assumed wherever it is printed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from ssp.config import Config
from ssp.plan.rows import Rows

ASSUMED = (
    "one H100 that takes 18 clips a second forward and backward (10 to 40) and 54 forward (30 to 120) of VideoMamba-M "
    "at 8 x 224 x 224, others in proportion to FLOPs; 20 s (10 to 60) a job besides"
)
TRAINED, FORWARD = (18.0, 40.0, 10.0), (54.0, 120.0, 30.0)  # clips a second: expected, at best, at worst
START = (20.0, 10.0, 60.0)  # seconds of a job besides its clips
FLOPS = 240_471_646_517  # of that clip; a test counts it


class Span(NamedTuple):
    """A number and the interval around it."""

    value: float
    low: float
    high: float

    def __mul__(self, times: float) -> Span:
        return Span(*(times * number for number in self))


def total(spans: Iterable[Span]) -> Span:
    """The sum; ends are added, as what makes one estimate wrong makes the others wrong alike."""
    return Span(*map(sum, zip(Span(0, 0, 0), *spans, strict=True)))


class Speeds(ABC):
    """Seconds of everything in a plan."""

    rows: Rows
    told: str
    """Where they are from, in words."""
    measured: bool
    device: str
    """What the hours are hours of."""
    config: Config
    """What was run when they were measured; of assumed ones what is planned."""

    @abstractmethod
    def trained(self, dataset: str, row: str) -> Span:
        """Seconds of a clip in training."""

    @abstractmethod
    def forward(self, dataset: str, row: str) -> Span:
        """Seconds of a clip without gradients."""

    @abstractmethod
    def start(self, rule: str) -> Span:
        """Seconds of a sweep or a training besides its clips."""

    @abstractmethod
    def training(self) -> Span:
        """Seconds of each training of a sweep besides its clips."""

    @abstractmethod
    def job(self, config: Config, rule: str, job: tuple[str, ...]) -> Span | None:
        """Seconds of a job of any other rule; None: not known."""

    @abstractmethod
    def memory_mb(self, row: str) -> float | None:
        """Memory of the process of a training at its peak, or on a GPU of its allocator; None: not known."""


class AssumedSpeeds(Speeds):
    """Those of `ASSUMED`."""

    measured = False
    device = "one H100"
    told = f"assumed, nothing was measured: {ASSUMED}"

    def __init__(self, rows: Rows) -> None:
        self.rows, self.config = rows, rows.config

    def trained(self, dataset: str, row: str) -> Span:
        """In proportion to FLOPs; a frozen trunk has no backward pass."""
        return self._clip(dataset, row, FORWARD if self.rows.frozen(row) else TRAINED)

    def forward(self, dataset: str, row: str) -> Span:
        """In proportion to FLOPs."""
        return self._clip(dataset, row, FORWARD)

    def _clip(self, dataset: str, row: str, a_second: tuple[float, ...]) -> Span:
        return Span(*(self.rows.flops(dataset, row) / FLOPS / speed for speed in a_second))

    def start(self, rule: str) -> Span:
        """The same for all."""
        return Span(*START)

    def training(self) -> Span:
        """Nothing: it is in what a job takes."""
        return Span(0, 0, 0)

    def job(self, config: Config, rule: str, job: tuple[str, ...]) -> Span | None:
        """Not known, but for what starts as a training does."""
        return Span(*START) if rule == "explain" else None

    def memory_mb(self, row: str) -> float | None:
        """Not known."""
        return None
