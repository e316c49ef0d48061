"""Work on videos in child processes that can be killed.

Design choices
- A hanging or crashing decoder costs one video, not the job: a child has a time limit for each and is replaced. The
  video gets a second try: a job that was suspended, or short of memory, has broken videos of no fault of theirs.
- Children are started fresh, since decord hangs after a fork; what they import is small so that they start quickly.
- Videos are handed over in batches where the work on one is short; a batch that got no answer is tried again one by
  one, to know whose fault it is.
- Children wait at a pipe that ends with its parent, and at work an alarm ends them soon after their time limit: none
  survives a parent that is killed.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ssp.data.video import Span, VideoError
from ssp.errors import DataError

START_LIMIT_S = 120  # for the child's imports
ALARM_AFTER_S = 2  # behind the time limit, when the parent should have killed the child


class Child:
    """A child process that answers for videos, replaced when it hangs or dies.

    Args:
        work: called with a video in the child; a function of a module, or a partial of one.
        limit_s: seconds for an answer.
    """

    def __init__(self, work: Callable[[Any], Any], limit_s: float) -> None:
        self.limit_s = limit_s
        self._work = work
        self._process: multiprocessing.Process | None = None
        self._pipe: Connection | None = None
        self._killed = False

    def answers(self, paths: list[Span | Path | str]) -> list[Any]:
        """What `work` returns for each video, or the DataError that it raised; a VideoError where no answer came.

        Raises:
            KilledError: by `kill`, before or meanwhile.
        """
        try:
            return self._ask(paths)
        except _NoAnswerError:
            if len(paths) > 1:
                return [answer for path in paths for answer in self.answers([path])]
        try:
            return self._ask(paths)  # the job may have been suspended, or memory short
        except _NoAnswerError as reason:
            return [VideoError(f"{paths[0]}: {reason}")]

    def _ask(self, paths: list[Span | Path | str]) -> list[Any]:
        if self._killed:  # whose missing answer is no reason to try again
            raise KilledError
        if self._process is None or not self._process.is_alive():
            self._stop()
            self._start()
        try:
            self._pipe.send(paths)
            if not self._pipe.poll(self.limit_s):
                self._stop()
                raise _NoAnswerError(f"not decoded within {self.limit_s:g} s; raise frames.timeout_s if it is long")
            return self._pipe.recv()
        except (EOFError, OSError):
            self._stop()
            raise _NoAnswerError("the decoder crashed on it; fetch the file again") from None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        process = context.Process(target=_serve, args=(childs_end, self._work, self.limit_s), daemon=True)
        process.start()
        self._process = process  # not before: what has not started cannot be killed
        childs_end.close()
        if self._killed:  # while it started
            self._stop()
            raise KilledError
        if not self._pipe.poll(START_LIMIT_S):
            self._stop()
            raise DataError(f"the decoding process did not start within {START_LIMIT_S} s; is the machine overloaded?")
        try:
            self._pipe.recv()
        except EOFError:
            self._stop()
            raise DataError("the decoding process ended at its start; its own words are above") from None

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    @property
    def pid(self) -> int | None:
        """Number of the process that answers now; none has been started before the first question."""
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """End the child for good, whatever it does; for another thread than the one that waits for an answer."""
        self._killed = True  # first: who waits looks at it
        if (process := self._process) is not None:
            process.kill()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


class Children:
    """Several children at work at once.

    Args:
        count: child processes.
        work, limit_s: of each, see `Child`.
        batch: videos that are handed over at once; the time limit is for all of them.
    """

    def __init__(self, count: int, work: Callable[[Any], Any], limit_s: float, batch: int = 1) -> None:
        self._count, self._batch = count, batch
        self._children = [Child(work, limit_s) for _ in range(count)]
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(count)  # they wait for the children

    def map(self, paths: Iterable[Span | Path | str]) -> Iterator[Any]:
        """The answer for each video, in order: see `Child.answers`. Two batches a child are under way at most."""
        waiting: deque[Future[list[Any]]] = deque()
        remaining = iter(paths)
        while batch := list(islice(remaining, self._batch)):
            waiting.append(self._threads.submit(self._answers, batch))
            if len(waiting) >= 2 * self._count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def _answers(self, paths: list[Span | Path | str]) -> list[Any]:
        child = self._idle.get()
        try:
            return child.answers(paths)
        finally:
            self._idle.put(child)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for child in self._children:
            child.kill()  # a thread that waits for it ends
        self._threads.shutdown()
        for child in self._children:
            child.__exit__()


class KilledError(Exception):
    """A child was asked that `Child.kill` has ended."""


class _NoAnswerError(Exception):
    """A child that was killed at its time limit, or died; the message is the reason."""


def _serve(pipe: Connection, work: Callable[[Any], Any], limit_s: float) -> None:
    """The child: paths come in, what `work` makes of them goes out."""
    pipe.send("ready")
    while True:
        try:
            paths = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit_s + ALARM_AFTER_S)  # ends the process, also inside of a decoder
        answers = []
        for path in paths:
            try:
                answers.append(work(path))
            except DataError as error:
                answers.append(error)
            except Exception as error:
                answers.append(VideoError(f"{path}: cannot be decoded ({error!r}); fetch the file again"))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answers)
