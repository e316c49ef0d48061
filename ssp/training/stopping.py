"""Being asked to stop: a training saves after the step that it is in, and the same command goes on from there.

SIGTERM is how a batch system takes a node back, SIGUSR1 how it warns before the time is over (`--signal`), and Ctrl-C
how a person does. The first of them asks; the next one ends the process as it would have anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
CONTINUE = 75  # exit code of a command that is to be run again: EX_TEMPFAIL of sysexits.h
_asked: list[signal.Signals] = []


class Interrupted(Exception):
    """A job was asked to stop, and has saved how far it was."""

    def __init__(self) -> None:
        super().__init__(f"interrupted ({', '.join(number.name for number in _asked)}); run the same command again")


class ProcessLost(Exception):
    """One of several processes that train together has ended before the training has."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, signals ask instead of ending the process. Only the main thread can have them do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}

    def ask(number: int, _: FrameType | None) -> None:
        _asked.append(signal.Signals(number))
        signal.signal(number, before[number])

    for number in ASKING:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def asked_to_stop() -> bool:
    """Whether a signal has come."""
    return bool(_asked)


def stop_if_asked() -> None:
    """Between two steps after which nothing has to be saved.

    Raises:
        Interrupted: a signal has come.
    """
    if _asked:
        raise Interrupted


def ignore_in_worker(_: int) -> None:
    """Have a loader's process leave signals, which a batch system sends to all processes, to the one that trains."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)
