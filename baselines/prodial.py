"""ProDiaL: the two projectors of every mixer change by a matrix near the identity, and a low-rank one on top.

- W' = diag(s) W M + scale * up @ down, for in_proj and out_proj. M is block-diagonal over the inputs, the identity at
  the start; s has a number for each output, one at the start; `up` is zero. So the start is the frozen backbone.
- M has `blocks` equal blocks (published for ARC: 64 on both projectors; for HellaSwag as many as there are inputs, so
  that M is diagonal). If the width does not divide, as many as divide both.
- `diagonal`: the published code has 1 - relu(r) on M's diagonal, with r from zero, where that function's derivative is
  zero in PyTorch: the diagonal never moves, and with blocks of one input nothing of M does. `plain` has 1 + r, which
  is what the name of the method says. A guess.
- The published code's library scales the low-rank matrix by 8 / rank (1 at its rank 8, 0.5 at 16) and has dropout 0.1
  in its middle; here it is a number, and no dropout.

Ham et al., Parameter Efficient Mamba Tuning via Projector-targeted Diagonal-centric Linear Transformation, CVPR 2025.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from baselines.lora import Factors
from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

PROJECTORS = ("in_proj", "out_proj")


class DiagonalCentricTuning(TuningMethod):
    """ProDiaL behind the interface of every method."""

    name = "prodial"
    title = "ProDiaL"
    source = "CVPR 2025; SeokilHam/ProDiaL"
    test_configs: ClassVar = [
        {"blocks": 4, "rank": 2},
        {"blocks": 8, "rank": 2, "diagonal": "published"},
        {"blocks": 64, "rank": 0},
    ]
    identity_at_start = True
    mergeable = True

    class Options(Strict):
        """64 blocks and rank 8, published for ARC."""

        blocks: PositiveInt = Field(default=64, description="Blocks of M, or as many as divide a projector's inputs.")
        diagonal: Literal["plain", "published"] = Field(
            default="plain", description="M's diagonal: 1 + r, or 1 - relu(r), which cannot move from where it starts."
        )
        rank: NonNegativeInt = Field(default=8, description="Rank of the matrix on top; 0: none.")
        scale: float = Field(default=1.0, gt=0, description="What that matrix is multiplied by.")

    def attach(self, model: VideoMamba) -> None:
        """Register blocks, scales and factors of both projectors of every block."""
        model.prodial = nn.ModuleList(
            nn.ModuleDict({name: Transformed(*size, self.options) for name, size in self._sizes(model).items()})
            for _ in model.layers
        )

    @staticmethod
    def _sizes(model: VideoMamba) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each projector."""
        dim = model.cls_token.shape[-1]
        return {"in_proj": (dim, 4 * dim), "out_proj": (2 * dim, dim)}

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """M, where it is a diagonal of 1 - relu(0)."""
        if self.options.diagonal == "plain":
            return {}
        reason = "with blocks of one input M is 1 - relu(r), whose derivative at r = 0, where it starts, is 0"
        return {
            f"prodial.{index}.{name}.blocks": reason
            for index in range(len(model.layers))
            for name, (inputs, _) in self._sizes(model).items()
            if math.gcd(self.options.blocks, inputs) == inputs
        }

    def expected_parameters(self, model: VideoMamba) -> int:
        """Square blocks, a scale an output, rank times (in + out), for both projectors."""
        blocks, rank, each = self.options.blocks, self.options.rank, 0
        for inputs, outputs in self._sizes(model).values():
            each += inputs**2 // math.gcd(blocks, inputs) + outputs + rank * (inputs + outputs)
        return len(model.layers) * each

    def sweep_space(self) -> dict[str, Range]:
        """The scale of the low-rank matrix."""
        return {"scale": Range(choices=[0.1, 0.5, 1.0])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """Transform the projectors of a block."""
        return Projectors(current.model.prodial[index])


class Transformed(nn.Module):
    """What is learned for one projector."""

    def __init__(self, inputs: int, outputs: int, options: DiagonalCentricTuning.Options) -> None:
        super().__init__()
        count = math.gcd(options.blocks, inputs)
        self.blocks = nn.Parameter(torch.zeros(count, inputs // count, inputs // count))
        self.scales = nn.Parameter(torch.ones(outputs))
        self.diagonal, self.scale = options.diagonal, options.scale
        if options.rank:
            self.low_rank = Factors(inputs, outputs, options.rank)

    def forward(self, weight: Tensor) -> Tensor:
        """The projector's weight (out, in) in place of the frozen one."""
        count, size, _ = self.blocks.shape
        eye = torch.eye(size, dtype=self.blocks.dtype, device=self.blocks.device)
        if self.diagonal == "published":
            blocks = self.blocks * (1 - eye) + eye - torch.relu(self.blocks * eye)
        else:
            blocks = self.blocks + eye
        # W M, block by block: M's columns of one block see that block's inputs alone.
        changed = torch.einsum("onj,njk->onk", weight.unflatten(1, (count, size)), blocks).flatten(1)
        changed = self.scales[:, None] * changed
        return changed + self.scale * self.low_rank() if hasattr(self, "low_rank") else changed


class Projectors(MixerTuning):
    """Weights of one block with both projectors transformed."""

    def __init__(self, learned: nn.ModuleDict) -> None:
        self.learned = learned

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """in_proj and out_proj; all else is frozen."""
        return weights._replace(**{name: self.learned[name](getattr(weights, name)) for name in PROJECTORS})
