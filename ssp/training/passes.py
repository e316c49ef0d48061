"""How a training step is cut into passes through the model, and what chance decides in each.

- A clip's draws (drop path) are its own, whatever clips it shares a pass with: no cut of a batch into micro-batches,
  passes or processes changes a result. Dropout, an option of LoRA alone, is the exception: its masks are as large as
  what they act on, and torch draws them by the micro-batch.
- A micro-batch is one pass, until memory runs out. Then passes become half as large, for the rest of the training, and
  the step is taken again from its first micro-batch on: what mixes is mixed before it is cut, so its gradient is the
  same. A pass of one video that does not fit ends the training.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssp.backbone.videomamba import DropPath
from ssp.training.execution import derive_seed
from ssp.training.failure import OutOfMemory, failures

log = logging.getLogger(__name__)


class MicroBatch(NamedTuple):
    """A part of a step's batch, as it is loaded."""

    first: int  # its first video's place in the batch
    clips: Tensor  # uint8 (B, R, 3, T, H, W): R augmentations of B videos; or their features (B, R, D)
    labels: Tensor  # (B,)
    erasing: Tensor | None = None  # (B, R, 5): what is to be erased of them


class Passes:
    """The passes of a training, step after step.

    Args:
        model: its drop path draws by clip.
        videos: of a micro-batch, and so of a pass at first. None: whatever a micro-batch has, and torch's own draws; a
            pass that is too large is an error.
    """

    def __init__(self, model: nn.Module | None = None, videos: int | None = None) -> None:
        self._asked, self._size, self._reason = videos, videos, ""
        self._paths = [path for path in model.modules() if isinstance(path, DropPath) and path.rate] if model else []
        self._place: tuple[int | str, ...] | None = None
        self._uniform = torch.empty(0)

    @property
    def largest(self) -> int | None:
        """Videos of a pass, where memory did not hold a micro-batch."""
        return self._size if self._size != self._asked else None

    def step(self, *place: int | str, videos: int, repeats: int) -> None:
        """A step of so many videos and augmentations of each begins; its draws are functions of `place`."""
        self._place = place
        generator = torch.Generator().manual_seed(derive_seed(*place))
        self._uniform = torch.rand(videos, repeats, len(self._paths), generator=generator)

    def of(self, part: MicroBatch) -> Iterator[slice]:
        """The videos of each pass of a micro-batch, whose turn it is when it is given."""
        videos = len(part.labels)
        if self._place is not None:
            torch.manual_seed(derive_seed(*self._place, part.first))
        for start in range(0, videos, self._size or videos):
            own = slice(start, min(start + (self._size or videos), videos))
            uniform = self._uniform[part.first + own.start : part.first + own.stop]
            self._use(uniform.flatten(0, 1).t().to(part.labels.device) if self._paths else [])
            yield own
        self._use([None] * len(self._paths))

    def _use(self, draws: Sequence[Tensor | None]) -> None:
        for path, own in zip(self._paths, draws, strict=True):
            path.uniform = own

    @contextmanager
    def too_large(self) -> Iterator[None]:
        """A block of passes that is left when memory runs out; `halve` comes next."""
        try:
            with failures():
                yield
        except OutOfMemory as error:
            if self._size is None:
                raise
            self._reason = str(error)

    def halve(self) -> None:
        """From now on, passes are half as large.

        Raises:
            OutOfMemory: they have one video already.
        """
        reason = self._reason or "out of memory in another process"
        if self._size == 1:
            raise OutOfMemory(f"{reason} (one video a pass)")
        log.warning("%s, with passes of %d videos; going on with %d", reason, self._size, math.ceil(self._size / 2))
        self._size = math.ceil(self._size / 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
