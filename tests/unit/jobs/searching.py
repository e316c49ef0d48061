"""What a process does that searches beside others in a test: the real search, whose epochs are drawn out and told."""

import logging
import os
import time
from pathlib import Path

TOLD = "epochs.txt"  # a line for each epoch: process, learning rate, number, "restored" or "trained"


def search(config, method: str, worker: int | None, seconds: float) -> None:
    """Take part as a worker, or choose.

    Args:
        config: of the sweep.
        method: its row.
        worker: number; None: choose.
        seconds: that each epoch lasts longer than it takes.
    """
    import torch

    import ssp.jobs.lease
    import ssp.jobs.sweep
    import ssp.jobs.training

    logging.getLogger("ssp").addHandler(logging.StreamHandler())
    logging.getLogger("ssp").setLevel(logging.INFO)
    torch.set_num_threads(1)
    ssp.jobs.sweep.LOOK_S = ssp.jobs.lease.LOOK_S = 0.1
    real = ssp.jobs.training.fit

    def fit(*arguments, chosen, **named):
        for epoch in real(*arguments, chosen=chosen, **named):
            with Path(TOLD).open("a") as file:
                done = "restored" if epoch.restored else "trained"
                file.write(f"{os.getpid()} {chosen.lr} {epoch.epoch} {done}\n")
            time.sleep(seconds)
            yield epoch

    ssp.jobs.training.fit = fit
    if worker is None:
        ssp.jobs.sweep.run_sweep(config, "ucf101", method)
    else:
        ssp.jobs.sweep.run_worker(config, "ucf101", method, worker)


def told() -> list[list[str]]:
    """All epochs so far, whole lines alone."""
    path = Path(TOLD)
    return [line.split() for line in path.read_text().splitlines() if line.count(" ") == 3] if path.exists() else []
