"""AdaptFormer: a small bottleneck beside every mixer, whose output is added to the mixer's.

- Down to `rank`, ReLU, up again, times 0.1; the up-projection starts at zero, so the start is the frozen backbone.
- In a transformer it stands beside the MLP and reads the residual stream, not normalised; what it gives is added after
  the MLP's drop path. VideoMamba has no MLP, and the benchmarked papers do not say where they put it. Here it stands
  beside the mixer and reads the sum that the mixer's norm is given.
- `reads` has the other places: what the norm gives, or the mixer's own output (one after the other).
- `joins`: a block's output passes drop path in the next block. Added to the branch, the bottleneck's output passes with
  it; added to the sum, it is never dropped, as in the original.
- Dropout inside the bottleneck, off in the published recipe, is left out.

Chen et al., AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition, NeurIPS 2022.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.backbone.layout import Streams
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class Adapter(TuningMethod):
    """AdaptFormer behind the interface of every method."""

    name = "adapter"
    title = "Adapter"
    source = "NeurIPS 2022; ShoufaChen/AdaptFormer"
    test_configs: ClassVar = [
        {"rank": 3},
        {"rank": 3, "reads": "normed"},
        {"rank": 3, "reads": "branch", "joins": "sum"},
    ]
    identity_at_start = True

    class Options(Strict):
        """Rank 64 gives the published number of parameters."""

        rank: PositiveInt = Field(default=64, description="Width of the bottleneck.")
        scale: float = Field(default=0.1, gt=0, description="What the bottleneck's output is multiplied by.")
        reads: Literal["sum", "normed", "branch"] = Field(
            default="sum",
            description="The residual sum as it is, or as the mixer gets it, or what the mixer gives. A guess.",
        )
        joins: Literal["branch", "sum"] = Field(
            default="branch",
            description="Where its output goes: with the mixer's, through drop path, or to the sum. A guess.",
        )

    def attach(self, model: VideoMamba) -> None:
        """Register one bottleneck a block."""
        dim = model.cls_token.shape[-1]
        model.adapters = nn.ModuleList(Bottleneck(dim, self.options.rank) for _ in model.layers)

    def expected_parameters(self, model: VideoMamba) -> int:
        """Two maps with biases a block."""
        dim, rank = model.cls_token.shape[-1], self.options.rank
        return len(model.layers) * (2 * dim * rank + rank + dim)

    def after_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Add the bottleneck's output."""
        hidden, total = streams
        if self.options.reads == "branch":
            seen = hidden
        else:
            seen = current.model.layers[index].norm(total) if self.options.reads == "normed" else total
        extra = current.model.adapters[index](seen.to(hidden.dtype)) * self.options.scale
        if self.options.joins == "sum":
            return Streams(hidden, total + extra.to(total.dtype))
        return Streams(hidden + extra.to(hidden.dtype), total)


class Bottleneck(nn.Module):
    """Down, ReLU, up; zero at the start."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, rank), nn.Linear(rank, dim)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        return self.up(self.down(x).relu())
