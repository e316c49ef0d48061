"""An answer to a signal that needs what the interrupted thread holds."""

import os
import signal
import threading

from ssp.jobs.signals import answer_in_thread


def test_the_answer_may_wait_for_a_lock_of_the_interrupted_thread():
    lock, answered = threading.Lock(), threading.Event()
    missed = []

    def answer(*_: object) -> None:
        if lock.acquire(timeout=5):
            answered.set()
        else:
            missed.append("waited for what it had interrupted")

    before = signal.signal(signal.SIGTERM, answer)
    try:
        answer_in_thread(signal.SIGTERM)
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
        assert answered.wait(10) and not missed
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_nobody_answers_stays_as_it_is():
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        answer_in_thread(signal.SIGUSR2)
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)
