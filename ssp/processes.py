"""What a process sets up for itself."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Have this process end when its parent has, however that ended; it would wait for work for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, up to 1 GiB; does nothing where that is not glibc.

    By itself it hands back whatever lies free at the end of its heap, after each operation of a small model, and the
    system clears the same pages for the next one: a fifth to a third of a step. Environment variables would come too
    late for a process that runs.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)  # the most that there is
        mallopt(trim_threshold, 1 << 30)
