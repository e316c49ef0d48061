"""Signs of life: while a job of the workflow runs, a small file beside its log says where, since when and how far.

A killed job leaves its file: on its own host it is known by its process, on another by a file that nobody touches.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ssp.files import SILENT_S, batch_job, write_json, writer_lives
from ssp.progress import Step, latest

SIGN = ".now"  # ending of the file
EVERY_S = 2.0


class Sign(NamedTuple):
    """What a running job says of itself."""

    host: str
    pid: int
    job: str | None
    """Number of the batch job."""
    began: float
    """Unix time."""
    step: Step | None


@contextmanager
def telling(path: Path, began: float) -> Iterator[None]:
    """Write signs of life while the block runs."""
    about = {"host": socket.gethostname(), "pid": os.getpid(), "job": batch_job(), "began": began}
    over = threading.Event()

    def tell() -> None:
        while True:
            with suppress(Exception):  # a full disk is for the job itself to say
                write_json(path, about | {"step": latest()})
            if over.wait(EVERY_S):
                return

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


def read_sign(path: Path) -> Sign | None:
    """What a job says of itself; None where it does not run."""
    try:
        told = json.loads(path.read_bytes())
        sign = Sign(**told | {"step": Step(*told["step"]) if told["step"] else None})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return sign if writer_lives(path, sign.pid, sign.host, SILENT_S) else None
