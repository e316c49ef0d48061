"""How a job computes: device, precision, threads, loader processes; and where every stream of randomness starts.

Design choices
- A job uses what its rule declared, no more: a GPU only when `compute.*.gpus` asks for one, and then surely. The
  processes of one training divide its threads and loader processes among them.
- Randomness is a function of names: `derive_seed(seed, "order", epoch)` starts the data order of an epoch, whatever ran
  before. So nothing about random states has to be saved to continue a killed run, and two methods at the same seed
  see the same data in the same order.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssp.config import ComputePlan, Precision
from ssp.data.augment import erase, normalised
from ssp.errors import ConfigError
from ssp.processes import keep_freed_memory
from ssp.training.gpus import take_gpus
from ssp.training.parallel import Group, current
from ssp.training.stopping import ignore_in_worker

SHARED_MEMORY = Path("/dev/shm")  # where loader processes put their clips, on Linux
log = logging.getLogger(__name__)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all parts and on nothing else, the same in every process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Execution:
    """Device, autocast precision and loader processes of a job."""

    device: torch.device
    bfloat16: bool = False
    loader_workers: int = 0

    @classmethod
    def of(cls, plan: ComputePlan, kind: Literal["pretrain", "train", "sweep"], precision: Precision) -> Execution:
        """What a rule's resources and a recipe's precision mean on this machine.

        Sets the process up: the number of torch's threads, and memory that is kept for the next step.

        Raises:
            ConfigError: a GPU is asked for, and torch sees none.
        """
        compute = getattr(plan, kind)
        torch.set_num_threads(max(1, compute.threads // current().local))
        keep_freed_memory()
        if compute.gpus and current().size == 1:
            take_gpus(1)  # those of several processes are taken where these are started
        if compute.gpus and not torch.cuda.is_available():
            # A sweep has it from there, unless told.
            said = "train" if kind == "sweep" and compute.gpus == plan.train.gpus else kind
            raise ConfigError(
                f"compute.{said}.gpus: {compute.gpus} asked for, but torch sees no GPU here; "
                "set it to 0 to compute on the CPU, or install the environment with CUDA"
            )
        device = torch.device("cuda" if compute.gpus else "cpu")
        bfloat16 = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        return cls(device, bfloat16, compute.loader_workers)

    @property
    def name(self) -> str:
        """The device in words, as records name it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    @property
    def group(self) -> Group:
        """The processes that train together."""
        return current()

    def autocast(self) -> AbstractContextManager:
        """Context in which forward passes run."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def clips(self, clips: Tensor, erasing: Tensor | None = None) -> Tensor:
        """What a model takes, on the device: clips are normalised and erased (B, R, 5) there, features left alone."""
        clips = clips.to(self.device, non_blocking=True)
        if clips.dtype != torch.uint8:
            return clips
        clips = normalised(clips)
        if erasing is not None:
            erase(clips.flatten(0, 1), erasing.flatten(0, 1))
        return clips

    def loader(self, dataset: Dataset, batches: Sequence[Sequence[int]]) -> DataLoader:
        """Iterate over given batches of a data set. A new one is made for every epoch, after `set_epoch`."""
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self._workers(dataset, batches),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_in_worker,
            generator=torch.Generator().manual_seed(0),  # the loader draws worker seeds; keep off the global stream
        )

    def _workers(self, dataset: Dataset, batches: Sequence[Sequence[int]]) -> int:
        """Loader processes: as many as are asked for, unless what they hand over does not fit into shared memory."""
        asked = min(math.ceil(self.loader_workers / self.group.local), len(batches))
        if not (asked and hasattr(dataset, "clip_bytes") and SHARED_MEMORY.exists()):
            return asked
        batch = dataset.clip_bytes * max(map(len, batches))
        free = shutil.disk_usage(SHARED_MEMORY).free // self.group.local
        # Each has two batches on the way, and one more is with the training.
        fit = max(0, min(asked, (free // batch - 1) // 2))
        if fit < asked:
            log.warning(
                "%s has %.0f MB free, and a batch of clips takes %.0f: %d loader processes instead of %d. Give a "
                "container more (docker run --shm-size=8g), or lower recipe.micro_batch",
                *(SHARED_MEMORY, free / 2**20, batch / 2**20, fit, asked),
            )
        return fit
