"""AdaptFormer: a small bottleneck beside every mixer, whose output is added to the mixer's.

- Down to `rank`, ReLU, up again, times 0.1; the up-projection starts at zero, so the start is the frozen backbone.
- In a transformer it stands beside the MLP, on the residual stream that is not normalised. VideoMamba has no MLP, and
  the benchmarked papers do not say where they put it: here it stands beside the mixer and by default reads the sum that
  the mixer's norm is given (`reads`).
- What it gives is added to the branch, so it passes drop path with it.

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
    test_configs: ClassVar = [{"rank": 3}, {"rank": 3, "reads": "normed"}]
    identity_at_start = True

    class Options(Strict):
        """Rank 64 gives the published number of parameters."""

        rank: PositiveInt = Field(default=64, description="Width of the bottleneck.")
        scale: float = Field(default=0.1, gt=0, description="What the bottleneck's output is multiplied by.")
        reads: Literal["sum", "normed"] = Field(
            default="sum", description="The residual sum as it is, or as the mixer gets it. Public code leaves it open."
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
        """Add the bottleneck's output to the branch."""
        block = current.model.layers[index]
        seen = block.norm(streams.residual) if self.options.reads == "normed" else streams.residual
        extra = current.model.adapters[index](seen.to(streams.hidden.dtype)) * self.options.scale
        return streams._replace(hidden=streams.hidden + extra.to(streams.hidden.dtype))


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
