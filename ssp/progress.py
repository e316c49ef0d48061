"""Progress of long work: a bar on a terminal, a plain line a minute in a log file, an answer for whoever asks."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

INTERVAL = 60.0  # seconds between two lines where there is no terminal
log = logging.getLogger(__name__)


class Step(NamedTuple):
    """How far the work is that this process is at."""

    title: str
    done: int
    total: int
    seconds_left: float | None
    """As it went so far; None before there is anything to go by."""


_latest: dict[object, Step] = {}  # of each work that goes on, in the order in which they began
_quiet: list[bool] = []


def be_quiet() -> None:
    """Show no bars in this process: another one shows the work that they share."""
    _quiet.append(True)


def latest() -> Step | None:
    """What was last told of the innermost work that goes on."""
    steps = list(_latest.values())  # at once: other threads ask, too
    return steps[-1] if steps else None


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to be called with (done, total); the bar goes to stderr and vanishes at the end."""
    with _shown(title) as show:
        own, began, first = object(), time.monotonic(), None
        _latest[own] = Step(title, 0, 0, None)

        def update(done: int, total: int) -> None:
            nonlocal first
            first = done if first is None else first  # a killed work goes on, what was done before took no time now
            each = (time.monotonic() - began) / (done - first) if done > first else None
            _latest[own] = Step(title, done, total, each and each * (total - done))
            show(done, total)

        try:
            yield update
        finally:
            del _latest[own]  # which, after an error, may be long after another work has begun


@contextmanager
def _shown(title: str) -> Iterator[Callable[[int, int], None]]:
    if _quiet or not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    both = sys.stdout.isatty()  # or what is printed meanwhile would go where the bar is, and not down the pipe
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=both) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str) -> Callable[[int, int], None]:
    """Log how far it is, at most once an interval."""
    last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            log.info("%s: %d of %d", title, done, total)

    return update
