"""Selective Visual Prompting (SVP): prompts that are functions of the tokens, added to the patches before every block.

- Inner prompts: each block has its own low-rank map, SiLU(up(down(h))), times a learned scale per channel. No
  activation in the middle.
- Cross prompts: SiLU(map(h)) with one full map for `shared_blocks` blocks in a row, times a scale that they share too.
- All scales start at zero: the start is the frozen backbone, and the first step moves nothing but scales.
- Patches alone; the class token is not touched.
- The published code (on Vim, images) adds to what a block is given, before the first block the embedding, later the
  last mixer's branch output, which then passes drop path; `stream` has the sum instead, which is not published.
- It treats the patches before and behind the class token, which Vim has in the middle, one after the other, and takes
  the second half's cross prompt from the first half. That works for two halves of one size alone; here all patches are
  treated alike.
- One group of cross prompts is what meets the published number of parameters; the original shares over 4 to 12 blocks.
- Left out: dropout (0 in the recipe), and the gate on the input, which is on for two of its ten data sets.

Yao et al., Selective Visual Prompting in Vision Mamba, AAAI 2025.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.backbone.layout import Streams
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class SelectiveVisualPrompting(TuningMethod):
    """SVP behind the interface of every method."""

    name = "svp"
    title = "SVP"
    source = "AAAI 2025; zhoujiahuan1991/AAAI2025-SVP"
    test_configs: ClassVar = [{"width": 3}, {"width": 3, "shared_blocks": 2, "stream": "sum"}]
    identity_at_start = True

    class Options(Strict):
        """Width 64 and one cross map for all blocks give the published number of parameters."""

        width: PositiveInt = Field(default=64, description="Width of the inner prompts' bottleneck.")
        shared_blocks: PositiveInt | None = Field(
            default=None, description="How many blocks in a row share a cross map; all if not said. A guess."
        )
        stream: Literal["branch", "sum"] = Field(
            default="branch", description="What is read and added to: the last mixer's output, or the sum. A guess."
        )

    def attach(self, model: VideoMamba) -> None:
        """Register the maps and the scales."""
        dim, groups = model.cls_token.shape[-1], self.groups(model)
        width = self.options.width
        inner = [nn.Sequential(nn.Linear(dim, width), nn.Linear(width, dim), nn.SiLU()) for _ in model.layers]
        model.inner_prompts = nn.ModuleList(inner)
        model.cross_prompts = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.SiLU()) for _ in range(groups))
        model.inner_scales = nn.Parameter(torch.zeros(len(model.layers), dim))
        model.cross_scales = nn.Parameter(torch.zeros(groups, dim))

    def group(self, model: VideoMamba, index: int) -> int:
        """Which cross map a block has."""
        return index // (self.options.shared_blocks or len(model.layers))

    def groups(self, model: VideoMamba) -> int:
        """How many cross maps there are."""
        return self.group(model, len(model.layers) - 1) + 1

    def expected_parameters(self, model: VideoMamba) -> int:
        """A bottleneck and a scale a block, a full map and a scale a group."""
        depth, dim, width = len(model.layers), model.cls_token.shape[-1], self.options.width
        groups = ceil(depth / (self.options.shared_blocks or depth))
        return depth * (2 * dim * width + width + dim + dim) + groups * (dim * dim + dim + dim)

    def before_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Add both prompts to the patches of the branch."""
        if self.options.stream == "sum":
            return streams
        return streams._replace(hidden=self.prompted(current, index, streams.hidden))

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Add both prompts to the patches of the sum."""
        return self.prompted(current, index, total) if self.options.stream == "sum" else total

    def prompted(self, current: Pass, index: int, stream: Tensor) -> Tensor:
        """A stream (B, L, D) with both prompts added to its patches."""
        model, group = current.model, self.group(current.model, index)
        patches = current.layout.split_frames(stream)
        seen = patches.to(model.inner_scales.dtype)
        prompt = model.inner_prompts[index](seen) * model.inner_scales[index]
        prompt = prompt + model.cross_prompts[group](seen) * model.cross_scales[group]
        return current.layout.join_frames(stream, patches + prompt.to(stream.dtype))
