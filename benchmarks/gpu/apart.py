"""A stage in a process of its own: what it has found is here row by row, whatever becomes of it.

- Forked from a process that has imported everything and has not touched the GPU: quick to start, and each has the GPU
  as if it were alone with it. A kernel that reads outside its memory spoils its own process and no other.
- It is ended with all its children when its time is over, and when the process that started it ends.
"""

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import connection, get_context

FORK = get_context("fork")
PR_SET_PDEATHSIG = 1  # of Linux's prctl
OURS = ("ssp", "baselines", "benchmarks", "tests")


def missing(error: Exception) -> str | None:
    """The package whose absence the error is about."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    return name if isinstance(error, ModuleNotFoundError) and name and name not in OURS else None


def _work(work: Callable[[], Iterable[dict]], sender: connection.Connection) -> None:
    os.setpgid(0, 0)  # to be ended together with its own children
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    said = None
    try:
        for row in work():
            sender.send(("row", row))
    except Exception as error:
        if package := missing(error):
            said = f"left out: the package {package} is not installed"
        else:
            traceback.print_exc()
            said = f"failed: {type(error).__name__}: {error}".splitlines()[0]
    sender.send(("end", said))


def run(work: Callable[[], Iterable[dict]], seconds: float, got: Callable[[dict], None]) -> str | None:
    """Give each row of the work to `got` as it comes.

    Returns:
        What was wrong: "left out: ...", "failed: ..." or "stopped ..."; None where nothing was.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_work, args=(work, sender))
    process.start()
    sender.close()
    end = time.monotonic() + seconds
    try:
        while True:
            ready = connection.wait([receiver, process.sentinel], max(0.0, end - time.monotonic()))
            if not ready:
                return f"stopped after {seconds:.0f} s"
            if receiver not in ready and not receiver.poll():
                process.join()
                return f"failed: its process ended with exit code {process.exitcode}"
            try:
                kind, value = receiver.recv()
            except EOFError:
                process.join()
                return f"failed: its process ended with exit code {process.exitcode}"
            if kind == "end":
                return value
            got(value)
    finally:
        with suppress(ProcessLookupError):  # it has ended, and all of its group
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
