"""ST-Adapter: bottlenecks with a depthwise convolution over time, in some of the blocks.

- Patches go down to `width` channels, through a depthwise convolution over (time, rows, columns), and up again; the
  result is added to them. No activation. The class token is not touched.
- The convolution starts at zero, and so do all biases: the start is the frozen backbone.
- In a transformer it stands in front of a block's attention or MLP, on the residual stream. Here it stands in front of
  the mixer's norm, on the sum, where drop path is over.
- The benchmark says neither which blocks nor how many; the published number of parameters is met by six blocks of the
  original width. The original takes the last blocks, and so does the default; `placement: spread` has them evenly
  spaced, the last block among them, and as many `blocks` as the backbone has means all.

Pan et al., ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning, NeurIPS 2022.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class SpatioTemporalAdapter(TuningMethod):
    """ST-Adapter behind the interface of every method."""

    name = "st_adapter"
    title = "ST-Adapter"
    source = "NeurIPS 2022; linziyi96/st-adapter"
    test_configs: ClassVar = [
        {"width": 4},
        {"width": 4, "blocks": 2, "placement": "spread", "kernel": [3, 3, 1]},
    ]
    identity_at_start = True

    class Options(Strict):
        """Width 384 in six blocks gives the published number of parameters."""

        width: PositiveInt = Field(default=384, description="Channels of the bottleneck.")
        blocks: PositiveInt = Field(default=6, description="How many blocks have one; at most all. A guess.")
        placement: Literal["last", "spread"] = Field(
            default="last", description="The last blocks, or evenly spaced ones and the last. A guess."
        )
        kernel: list[PositiveInt] = Field(
            default=[3, 1, 1], min_length=3, max_length=3, description="Frames, rows, columns; odd numbers."
        )

        @field_validator("kernel")
        @classmethod
        def _odd(cls, value: list[int]) -> list[int]:
            if not all(size % 2 for size in value):
                raise ValueError("must be odd numbers, so that a patch stands in the middle")
            return value

    def attach(self, model: VideoMamba) -> None:
        """Register the adapters under the numbers of their blocks."""
        dim, options = model.cls_token.shape[-1], self.options
        model.st_adapters = nn.ModuleDict(
            {str(index): TemporalBottleneck(dim, options.width, options.kernel) for index in self.chosen(model)}
        )

    def chosen(self, model: VideoMamba) -> list[int]:
        """Which blocks have one."""
        depth = len(model.layers)
        count = min(self.options.blocks, depth)
        if self.options.placement == "last":
            return list(range(depth - count, depth))
        return [(step + 1) * depth // count - 1 for step in range(count)]

    def expected_parameters(self, model: VideoMamba) -> int:
        """Down, convolution and up, with biases, of every chosen block."""
        dim, width = model.cls_token.shape[-1], self.options.width
        each = (dim * width + width) + width * (prod(self.options.kernel) + 1) + (width * dim + dim)
        return min(self.options.blocks, len(model.layers)) * each

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Add the adapter's output to the patches of a chosen block's sum."""
        adapters, layout = current.model.st_adapters, current.layout
        if str(index) not in adapters:
            return total
        patches = layout.split_frames(total)
        return layout.join_frames(total, patches + adapters[str(index)](patches, layout.grid).to(total.dtype))


class TemporalBottleneck(nn.Module):
    """Down, depthwise convolution over time and place, up; zero at the start."""

    def __init__(self, dim: int, width: int, kernel: list[int]) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        self.conv = nn.Conv3d(width, width, tuple(kernel), padding=tuple(size // 2 for size in kernel), groups=width)
        for parameter in (self.down.bias, self.conv.weight, self.conv.bias, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, T, rows * columns, D) to the same shape."""
        narrow = self.down(patches.to(self.down.weight.dtype)).unflatten(2, grid)
        mixed = self.conv(narrow.movedim(-1, 1).contiguous())
        return self.up(torch.movedim(mixed, 1, -1).flatten(2, 3))
