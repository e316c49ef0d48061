"""What the stages run on, and how large: a GPU at real sizes, or the CPU with Triton's interpreter at tiny ones.

The stages do not know which it is: clock, memory and the profiler's kind of event are asked for here alone.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import DeviceType

from ssp.scan import triton
from ssp.scan.dispatch import VARIABLE

HALF = torch.bfloat16


@dataclass(frozen=True)
class Sizes:
    """What is measured; as it stands, what the targets are about."""

    channels: int = 1152  # of a mixer of VideoMamba-Middle
    states: int = 16
    # Clips and tokens: 8 frames, 32 frames (SSP's prompts included); what PyTorch's own operators can bear.
    scans: tuple[tuple[int, int], ...] = ((16, 1593), (4, 6369), (1, 1593))
    parity: tuple[tuple[int, int, int, torch.dtype], ...] = (
        (2, 1593, 16, torch.float32),
        (2, 1593, 16, HALF),
        (1, 1575, 22, torch.float32),
        (1, 1575, 22, HALF),
        (1, 6369, 16, torch.float32),
    )
    copied: int = 2**28  # float32 numbers
    product: int = 8192  # rows of square matrices
    exponentials: int = 2000  # in a row
    rounds: int = 10
    backbone: str | Mapping[str, int] = "videomamba_middle"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of methods; else their defaults
    frames: int = 8
    image: int = 224
    clips: int = 16  # of a step
    few: int = 4  # clips of what a CPU, too, computes
    stored: tuple[int, int, int, int] = (8, 40, 256, 340)  # videos of the store, their frames, height, width
    loaders: int = 10
    fed: tuple[int, int] = (80, 20)  # steps, and after which of them the clock starts: as many are loaded ahead
    resumed: tuple[int, int] = (8, 5)  # steps, and in which of them the training is killed


TINY = Sizes(
    channels=8,
    states=4,
    scans=((1, 5), (1, 6)),
    parity=((1, 5, 4, torch.float32), (1, 5, 4, HALF)),
    copied=2**10,
    product=8,
    exponentials=2,
    rounds=1,
    backbone={"embed_dim": 16, "depth": 1, "patch_size": 8},
    options={"ssp": {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}, "vpt": {"num_prompts": 1}},
    frames=2,
    image=16,
    clips=2,
    few=2,
    stored=(2, 9, 24, 32),
    loaders=2,
    fed=(2, 1),
    resumed=(2, 2),
)


class Device:
    """A GPU, or what stands in for one."""

    def __init__(self, dry: bool) -> None:
        self.dry, self.sizes = dry, TINY if dry else Sizes()
        self.torch = torch.device("cpu" if dry else "cuda")

    def set_up(self) -> None:
        """In the process of a stage: the Triton kernels, or an error; the interpreter gets chunks of few tokens."""
        os.environ[VARIABLE] = "triton"
        if reason := triton.unavailable():
            raise RuntimeError(reason)
        if self.dry:
            torch.set_num_threads(1)
            triton.EVERY, triton.TOKENS = 4, {"forward": 2, "backward": 2}

    def generator(self, seed: int) -> torch.Generator:
        """Of random numbers."""
        return torch.Generator(self.torch).manual_seed(seed)

    def wait(self) -> None:
        """For all that was started."""
        if not self.dry:
            torch.cuda.synchronize()

    def milliseconds(self, contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Median time of each; they take turns, and the first turn, which compiles, does not count."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(rounds + 1):
            for name, work in contenders.items():
                took = self._clocked(work)
                if turn:
                    times[name].append(took)
        return {name: statistics.median(row) for name, row in times.items()}

    def _clocked(self, work: Callable[[], object]) -> float:
        if self.dry:
            start = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - start)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end)

    def forget_peak(self) -> None:
        """From now on, `peak_gb` counts."""
        if not self.dry:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """The most memory that tensors took; None: not measured."""
        return None if self.dry else torch.cuda.max_memory_allocated() / 2**30

    def about(self) -> dict[str, Any]:
        """Its name, and what there is of it."""
        if self.dry:
            return {"gpu": "none: Triton's interpreter", "multiprocessors": 1, "memory_gb": None, "capability": None}
        about = torch.cuda.get_device_properties(0)
        return {
            **{"gpu": about.name, "multiprocessors": about.multi_processor_count},
            **{"memory_gb": about.total_memory / 2**30, "capability": f"{about.major}.{about.minor}"},
        }

    @property
    def events(self) -> DeviceType:
        """The profiler's events that are its work."""
        return DeviceType.CPU if self.dry else DeviceType.CUDA
