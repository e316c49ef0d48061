"""DoRA: the direction of each column of a projection changes by a low-rank matrix, its length by a number of its own.

- W' = m * V / |V| with V = W + scale * up @ down and |V| the norms of its columns: a column is what one input gives to
  all outputs, so m has as many numbers as the projection has inputs (as in the paper and in MambaPEFT; the widely used
  library takes rows, which `magnitude: output` gives).
- m starts as the norm of the frozen column. What is learned is the difference to it: the same function and gradient,
  exactly the frozen backbone at the start in any precision, and nothing to copy when weights are loaded.
- The norm |V| counts as a constant for the gradient, as published; `through_norm` lets the gradient pass.
- Targets, ranks and scale are those of LoRA; MambaPEFT uses it on the x half of in_proj with rank 64.

Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, ICML 2024. On Mamba: Yoshimura et al., MambaPEFT, ICLR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from baselines.lora import (
    LowRankOptions,
    Target,
    keys_of,
    low_rank_factors,
    low_rank_parameters,
    parts,
    replace_parts,
    target_sizes,
)
from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Range
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class WeightDecomposedAdaptation(TuningMethod):
    """DoRA behind the interface of every method."""

    name = "dora"
    title = "DoRA"
    source = "ICML 2024; placement on Mamba after sony/MambaPEFT"
    test_configs: ClassVar = [
        {"rank": 2},
        {"rank": 2, "targets": ["in_proj_z", "out_proj", "dt_proj"], "magnitude": "output"},
        {"rank": 2, "targets": ["in_proj", "x_proj_B", "x_proj_C"], "through_norm": True},
    ]
    identity_at_start = True
    mergeable = True

    class Options(LowRankOptions):
        """Rank 64 on the x half of in_proj, as published for Mamba; halve it for the budget of the paper's table."""

        rank: int = Field(default=64, gt=0, description="Rank of every added matrix.")
        targets: list[Target] = Field(
            default=["in_proj_x"], min_length=1, description="Projections and parts of them, as for LoRA. A guess."
        )
        magnitude: Literal["input", "output"] = Field(
            default="input", description="One length for each input (a column), or for each output (a row)."
        )
        through_norm: bool = Field(default=False, description="Let the gradient pass through the norms.")

    def attach(self, model: VideoMamba) -> None:
        """Register the factors, and what is added to each column's length."""
        model.dora = low_rank_factors(model, self.options)
        model.dora_magnitude = nn.ModuleList(nn.ParameterDict() for _ in model.layers)
        for factors, lengths in zip(model.dora, model.dora_magnitude, strict=True):
            for key, pair in factors.items():
                count = pair.down.shape[1] if self.options.magnitude == "input" else len(pair.up)
                lengths[key] = nn.Parameter(torch.zeros(count))

    def expected_parameters(self, model: VideoMamba) -> int:
        """LoRA's, and the lengths."""
        sizes, side = target_sizes(model), 1 if self.options.magnitude == "input" else 0
        lengths = sum(len(keys_of(target)) * sizes[target][side] for target in self.options.targets)
        return low_rank_parameters(model, self.options) + len(model.layers) * lengths

    def sweep_space(self) -> dict[str, Range]:
        """The scale, as for LoRA."""
        return {"scale": Range(low=0.03, high=1.0, log=True)}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """Directions and lengths of a block's weights."""
        return Decomposed(current.model.dora[index], current.model.dora_magnitude[index], self.options)


class Decomposed(MixerTuning):
    """Weights of one block with changed directions and lengths."""

    def __init__(
        self, factors: nn.ModuleDict, lengths: nn.ParameterDict, options: WeightDecomposedAdaptation.Options
    ) -> None:
        self.factors, self.lengths, self.options = factors, lengths, options

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """Columns of other directions, as long as the frozen ones and what was learned."""
        over, new = 0 if self.options.magnitude == "input" else 1, {}
        for key, frozen in parts(weights, self.factors).items():
            changed = frozen + self.options.scale * self.factors[key]()
            norm = changed.norm(dim=over, keepdim=True)
            norm = norm if self.options.through_norm else norm.detach()
            length = frozen.norm(dim=over, keepdim=True) + self.lengths[key].unsqueeze(over)
            new[key] = changed * (length / norm)
        return replace_parts(weights, new)
