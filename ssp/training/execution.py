"""How a job computes: device, precision, threads, loader processes; and where every stream of randomness starts.

Design choices
- A job uses what its rule declared, no more: a GPU only when `compute.train.gpus` asks for one, and then surely. The
  processes of one training divide its threads and loader processes among them.
- Randomness is a function of names: `derive_seed(seed, "order", epoch)` starts the data order of an epoch, whatever ran
  before. So nothing about random states has to be saved to continue a killed run, and two methods at the same seed
  see the same data in the same order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from ssp.config import Compute
from ssp.errors import ConfigError
from ssp.training.parallel import Group, current
from ssp.training.stopping import ignore_in_worker


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
    def of(cls, compute: Compute, precision: Literal["auto", "float32", "bfloat16"]) -> Execution:
        """What a rule's resources and a recipe's precision mean on this machine. Sets the number of torch's threads.

        Raises:
            ConfigError: a GPU is asked for, and torch sees none.
        """
        torch.set_num_threads(max(1, compute.threads // current().local))
        if compute.gpus and not torch.cuda.is_available():
            raise ConfigError(
                f"compute.train.gpus: {compute.gpus} asked for, but torch sees no GPU here; "
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

    def loader(self, dataset: Dataset, batches: Sequence[Sequence[int]]) -> DataLoader:
        """Iterate over given batches of a data set. A new one is made for every epoch, after `set_epoch`."""
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=min(math.ceil(self.loader_workers / self.group.local), len(batches)),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_in_worker,
            generator=torch.Generator().manual_seed(0),  # the loader draws worker seeds; keep off the global stream
        )
