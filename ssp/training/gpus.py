"""Which of a machine's GPUs a job computes on, where several jobs run side by side.

Design choices
- A scheduler shows a job the GPUs that it gives it, as many as were asked for (`CUDA_VISIBLE_DEVICES`): nothing is left
  to decide. Where more are visible, as on a machine without a scheduler, jobs share them out: each takes as many as it
  asks for that no other holds, and shows itself and the processes that it starts these alone.
- A GPU is held by a lock of the kernel on a file in the machine's temporary folder, which ends with its holder, however
  that ends. Jobs of other users are not known; what they use is to be left out of `CUDA_VISIBLE_DEVICES`.
- A job never waits here: it may hold what the one that it would wait for needs. It shares a GPU then, and says so.
"""

from __future__ import annotations

import logging
import os
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import IO

import torch

from ssp.files import kernel_lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[IO[str]] | None = None  # locks of the GPUs of this process; None: it has not asked yet
log = logging.getLogger(__name__)


def take_gpus(number: int) -> None:
    """Leave this process, and those that it starts, so many GPUs to see; the first call decides.

    Args:
        number: how many the job asks for; where no more are visible, all are its own. CUDA is not in use yet.
    """
    global _held
    if _held is not None:
        return
    _held, visible, own = [], _visible(), []
    if number >= len(visible):
        return
    try:
        folder = _folder()
        for gpu in visible:
            if len(own) < number and (lock := kernel_lock(folder / f"{gpu.replace('/', '_')}.lock")):
                _held.append(lock)
                own.append(gpu)
    except OSError as error:
        log.warning("%s: GPUs cannot be shared out between jobs; set %s for each", error, VISIBLE)
        return
    if lacking := number - len(own):
        others = [gpu for gpu in visible if gpu not in own][:lacking]
        log.warning("all other GPUs are taken, so other jobs use %s, too; lower --resources gpu=N", ", ".join(others))
        own += others
    os.environ[VISIBLE] = ",".join(own)
    log.info("GPU %s of %d", os.environ[VISIBLE], len(visible))


def _visible() -> list[str]:
    """Names of the GPUs that this process may see, as `CUDA_VISIBLE_DEVICES` has them."""
    if (said := os.environ.get(VISIBLE)) is None:
        return [str(number) for number in range(torch.cuda.device_count())]  # which does not use CUDA yet
    return [*takewhile(lambda name: name not in ("", "-1"), map(str.strip, said.split(",")))]  # as CUDA reads it


def _folder() -> Path:
    """Where the locks are; numbers of GPUs are those of an allocation within one."""
    within = f"-{os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
    folder = Path(tempfile.gettempdir()) / f"ssp-gpus-{os.getuid()}{within}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
