"""LoRA: a low-rank matrix added to frozen projections of every mixer.

- W + scale * up @ down; `up` starts at zero, so the start is the frozen backbone. No dropout, no bias.
- Which projections is an option: in_proj, out_proj, x_proj and dt_proj, and the two halves of in_proj (x feeds the
  scan, z gates it). Those of x_proj and dt_proj are there once a direction.
- What is added is a function of weights, so the mixer's backward written by hand stays in use.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. On Mamba: Yoshimura et al., MambaPEFT, ICLR
2025.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

Target = Literal["in_proj", "in_proj_x", "in_proj_z", "out_proj", "x_proj", "dt_proj"]
PER_DIRECTION = ("x_proj", "dt_proj")


class LowRankAdaptation(TuningMethod):
    """LoRA behind the interface of every method."""

    name = "lora"
    title = "LoRA"
    source = "ICLR 2022; placement on Mamba after sony/MambaPEFT"
    test_configs: ClassVar = [
        {"rank": 2},
        {"rank": 2, "targets": ["in_proj_x", "out_proj"]},
        {"rank": 2, "targets": ["in_proj_z", "x_proj", "dt_proj"]},
    ]
    identity_at_start = True

    class Options(Strict):
        """Rank 16 on in_proj has as many parameters as VPT with 80 prompts."""

        rank: PositiveInt = Field(default=16, description="Rank of every added matrix.")
        scale: float = Field(default=0.1, gt=0, description="What the added matrix is multiplied by.")
        targets: list[Target] = Field(
            default=["in_proj"], min_length=1, description="Projections; _x and _z are the halves of in_proj."
        )

    def attach(self, model: VideoMamba) -> None:
        """Register the factors of every block, (rank, in) and (out, rank) for each target and direction."""
        model.lora = nn.ModuleList(nn.ModuleDict() for _ in model.layers)
        for block, factors in zip(model.layers, model.lora, strict=True):
            for key, weight in _targets(block.mixer.weights(), self.options.targets).items():
                factors[key] = Factors(weight.shape[1], weight.shape[0], self.options.rank)

    def expected_parameters(self, model: VideoMamba) -> int:
        """Rank times (in + out) of every target."""
        dim, rank = model.cls_token.shape[-1], self.options.rank
        inner, states, low = 2 * dim, 16, math.ceil(dim / 16)
        sizes = {
            "in_proj": dim + 2 * inner,
            "in_proj_x": dim + inner,
            "in_proj_z": dim + inner,
            "out_proj": inner + dim,
            "x_proj": 2 * (inner + low + 2 * states),
            "dt_proj": 2 * (low + inner),
        }
        return len(model.layers) * rank * sum(sizes[target] for target in self.options.targets)

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """Add the products to the weights of a block."""
        return Added(current.model.lora[index], self.options.scale)


class Factors(nn.Module):
    """A matrix (out, in) of low rank, zero at the start."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.empty(rank, inputs)), nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """The matrix."""
        return self.up @ self.down


class Added(MixerTuning):
    """Weights with the matrices of one block added."""

    def __init__(self, factors: nn.ModuleDict, scale: float) -> None:
        self.factors, self.scale = factors, scale

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """The frozen weights, and the product of the factors on top."""
        added = {key: self.scale * factors() for key, factors in self.factors.items()}
        halves = list(weights.in_proj.chunk(2))
        for half, key in enumerate(("in_proj_x", "in_proj_z")):
            if key in added:
                halves[half] = halves[half] + added[key]
        in_proj = torch.cat(halves) if {"in_proj_x", "in_proj_z"} & added.keys() else weights.in_proj
        in_proj = in_proj + added["in_proj"] if "in_proj" in added else in_proj
        ways = []
        for way, end in zip(weights.directions, ("", "_b"), strict=True):
            keys = {name: f"{name}{end}" for name in PER_DIRECTION if f"{name}{end}" in added}
            ways.append(way._replace(**{name: getattr(way, name) + added[key] for name, key in keys.items()}))
        out_proj = weights.out_proj + added["out_proj"] if "out_proj" in added else weights.out_proj
        return weights._replace(in_proj=in_proj, out_proj=out_proj, directions=tuple(ways))


def _targets(weights: MixerWeights, targets: list[Target]) -> dict[str, Tensor]:
    """The weights that are targets, (out, in), by the name of their factors."""
    inner = len(weights.out_proj[0])
    forward, backward = weights.directions
    known = {
        "in_proj": {"in_proj": weights.in_proj},
        "in_proj_x": {"in_proj_x": weights.in_proj[:inner]},
        "in_proj_z": {"in_proj_z": weights.in_proj[inner:]},
        "out_proj": {"out_proj": weights.out_proj},
        "x_proj": {"x_proj": forward.x_proj, "x_proj_b": backward.x_proj},
        "dt_proj": {"dt_proj": forward.dt_proj, "dt_proj_b": backward.dt_proj},
    }
    return {key: weight for target in targets for key, weight in known[target].items()}
