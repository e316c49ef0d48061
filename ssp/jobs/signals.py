"""Signals to Snakemake itself."""

from __future__ import annotations

import signal
import threading


def answer_in_thread(number: signal.Signals) -> None:
    """Have what answers a signal run in a thread.

    Snakemake (9.27) answers SIGTERM with a lock that the main thread holds now and then. Signals interrupt that thread,
    so the answer would wait for ever for what it has interrupted.
    """
    handler = signal.getsignal(number)
    if callable(handler):
        signal.signal(number, lambda *about: threading.Thread(target=handler, args=about).start())
