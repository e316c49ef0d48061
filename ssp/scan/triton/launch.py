"""What is started on a GPU: a kernel with its arguments. Written down before, so that tests compile what ships."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from triton.runtime import JITFunction


class Launch(NamedTuple):
    """A kernel with all that it is started with."""

    kernel: "JITFunction"
    grid: tuple[int, int, int]
    args: dict[str, Any]
    options: dict[str, Any]

    def run(self) -> None:
        """Start it on the device of its tensors."""
        with torch.cuda.device_of(next(x for x in self.args.values() if isinstance(x, Tensor))):
            self.kernel[self.grid](**self.args, **self.options)
