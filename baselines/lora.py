"""LoRA: a low-rank matrix added to frozen projections of every mixer.

- W + scale * up @ down; `up` starts at zero, so the start is the frozen backbone. No bias.
- Which projections is an option: in_proj, out_proj, x_proj and dt_proj; the halves of in_proj (x feeds the scan, z
  gates it) and the rows of x_proj (what dt_proj reads, and B and C), MambaPEFT's partial LoRA. Those of x_proj and
  dt_proj are there once a direction. One rank, or one a target.
- What is added is a function of weights, so the mixer's backward written by hand stays in use, and it can be folded in.
- Dropout on the bottleneck (MambaPEFT: 0.1, on in_proj and out_proj only, the others being added to the weights there)
  needs the layer's input: with it the layers are hooked, and autograd goes through them.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. On Mamba: Yoshimura et al., MambaPEFT, ICLR
2025.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.mixer import Mixer
    from ssp.backbone.videomamba import Pass, VideoMamba

Target = Literal[
    "in_proj", "in_proj_x", "in_proj_z", "out_proj", "x_proj", "x_proj_dt", "x_proj_B", "x_proj_C", "dt_proj"
]
WHOLE = ("in_proj", "out_proj", "x_proj", "dt_proj")
ENDS = ("", "_b")  # of parameter names, by direction


class LowRankOptions(Strict):
    """Rank 16 on in_proj has as many parameters as VPT with 80 prompts."""

    rank: PositiveInt = Field(default=16, description="Rank of every added matrix.")
    ranks: dict[Target, PositiveInt] = Field(default={}, description="Other ranks, by target.")
    scale: float = Field(default=0.1, gt=0, description="What the added matrix is multiplied by.")
    targets: list[Target] = Field(
        default=["in_proj"],
        min_length=1,
        description="Projections; _x and _z are the halves of in_proj, _dt, _B and _C the rows of x_proj. A guess.",
    )

    @field_validator("targets")
    @classmethod
    def _disjoint(cls, value: list[Target]) -> list[Target]:
        if len(set(value)) < len(value):
            raise ValueError("names a target twice")
        for target in value:
            whole = next(name for name in WHOLE if target.startswith(name))
            if target != whole and whole in value:
                raise ValueError(f"has {whole} and a part of it, {target}")
        return value


class LowRankAdaptation(TuningMethod):
    """LoRA behind the interface of every method."""

    name = "lora"
    title = "LoRA"
    source = "ICLR 2022; placement on Mamba after sony/MambaPEFT"
    test_configs: ClassVar = [
        {"rank": 2},
        {"rank": 2, "targets": ["in_proj_x", "out_proj"], "ranks": {"out_proj": 3}},
        {"rank": 2, "targets": ["in_proj_z", "x_proj", "dt_proj"]},
        {"rank": 2, "targets": ["x_proj_dt", "x_proj_B", "x_proj_C"]},
        {"rank": 2, "targets": ["in_proj_x", "out_proj", "x_proj_B", "dt_proj"], "dropout": 0.2},
    ]
    identity_at_start = True
    mergeable = True

    class Options(LowRankOptions):
        """Rank 16 on in_proj has as many parameters as VPT with 80 prompts."""

        dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the bottleneck, between both factors.")

    def attach(self, model: VideoMamba) -> None:
        """Register the factors of every block, (rank, in) and (out, rank) for each target and direction."""
        model.lora = low_rank_factors(model, self.options)
        self.hooks = []
        if self.options.dropout:
            for block, factors in zip(model.layers, model.lora, strict=True):
                for key, pair in factors.items():
                    layer, rows = place(block.mixer, key)
                    beside = Beside(pair, self.options.scale, self.options.dropout, rows)
                    self.hooks.append(layer.register_forward_hook(beside.add))

    def expected_parameters(self, model: VideoMamba) -> int:
        """Rank times (in + out) of every target."""
        return low_rank_parameters(model, self.options)

    def sweep_space(self) -> dict[str, Range]:
        """The scale; ranks and targets are a row's, since they say how many parameters there are."""
        return {"scale": Range(low=0.03, high=1.0, log=True)}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning | None:
        """Add the products to the weights of a block, unless its layers are hooked."""
        return None if self.hooks else Added(current.model.lora[index], self.options.scale)

    def merge(self, model: VideoMamba) -> None:
        """Fold the products into the projections; dropout is over."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        super().merge(model)


class Factors(nn.Module):
    """A matrix (out, in) of low rank, zero at the start."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.empty(rank, inputs)), nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self) -> Tensor:
        """The matrix."""
        return self.up @ self.down


class Beside(nn.Module):
    """A low-rank path beside a layer, with dropout in its middle; not registered anywhere, its factors are."""

    def __init__(self, factors: Factors, scale: float, dropout: float, rows: slice) -> None:
        super().__init__()
        self.factors, self.scale, self.dropout, self.rows = factors, scale, dropout, rows

    def add(self, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """The layer's output (..., out) with the path's added to the rows that are its."""
        middle = F.dropout(F.linear(given[0], self.factors.down), self.dropout, self.factors.training)
        extra = self.scale * F.linear(middle, self.factors.up)
        start, stop, _ = self.rows.indices(out.shape[-1])
        return out + F.pad(extra, (start, out.shape[-1] - stop))


class Added(MixerTuning):
    """Weights with the matrices of one block added."""

    def __init__(self, factors: nn.ModuleDict, scale: float) -> None:
        self.factors, self.scale = factors, scale

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """The frozen weights, and the product of the factors on top."""
        frozen = parts(weights, self.factors)
        return replace_parts(
            weights, {key: frozen[key] + self.scale * factors() for key, factors in self.factors.items()}
        )


# Parts of a mixer's weights, by key: a target, and the direction's end for what is there once a direction.


def keys_of(target: Target) -> list[str]:
    """The keys of a target: one, or one a direction."""
    return [target] if target.startswith(("in_proj", "out_proj")) else [f"{target}{end}" for end in ENDS]


def place(mixer: Mixer, key: str) -> tuple[nn.Module, slice]:
    """The layer that a key is about, and which rows of its weight."""
    end = "_b" if key.endswith("_b") else ""
    target = key.removesuffix("_b")
    whole = next(name for name in WHOLE if target.startswith(name))
    inner, low, states = mixer.out_proj.in_features, mixer.dt_rank, mixer.d_state
    rows = {
        "in_proj_x": slice(0, inner),
        "in_proj_z": slice(inner, 2 * inner),
        "x_proj_dt": slice(0, low),
        "x_proj_B": slice(low, low + states),
        "x_proj_C": slice(low + states, low + 2 * states),
    }
    return mixer.get_submodule(f"{whole}{end}"), rows.get(target, slice(None))


def parts(weights: MixerWeights, keys: object) -> dict[str, Tensor]:
    """The parts (out, in) of these keys."""
    known = {"in_proj": weights.in_proj, "out_proj": weights.out_proj}
    known["in_proj_x"], known["in_proj_z"] = weights.in_proj.chunk(2)
    for way, end in zip(weights.directions, ENDS, strict=True):
        known[f"x_proj{end}"], known[f"dt_proj{end}"] = way.x_proj, way.dt_proj
        rows = way.x_proj.split([way.dt_proj.shape[1], way.A.shape[1], way.A.shape[1]])
        known |= {f"x_proj_{name}{end}": part for name, part in zip(("dt", "B", "C"), rows, strict=True)}
    return {key: known[key] for key in keys}


def replace_parts(weights: MixerWeights, new: dict[str, Tensor]) -> MixerWeights:
    """The weights with these parts in the place of their own."""

    def whole(name: str, end: str, of: tuple[str, ...]) -> Tensor:
        keys = [f"{name}_{part}{end}" for part in of]
        if not new.keys() & set(keys):
            return new.get(f"{name}{end}", own[f"{name}{end}"])
        return torch.cat([new.get(key, own[key]) for key in keys])

    x_rows = ("dt", "B", "C")
    names = [*WHOLE, "in_proj_x", "in_proj_z", "x_proj_b", "dt_proj_b"]
    own = parts(weights, [*names, *(f"x_proj_{part}{end}" for part in x_rows for end in ENDS)])
    return weights._replace(
        in_proj=whole("in_proj", "", ("x", "z")),
        out_proj=whole("out_proj", "", ()),
        directions=tuple(
            way._replace(x_proj=whole("x_proj", end, x_rows), dt_proj=whole("dt_proj", end, ()))
            for way, end in zip(weights.directions, ENDS, strict=True)
        ),
    )


def low_rank_factors(model: VideoMamba, options: LowRankOptions) -> nn.ModuleList:
    """The factors of every block, by key."""
    found = nn.ModuleList(nn.ModuleDict() for _ in model.layers)
    for block, factors in zip(model.layers, found, strict=True):
        for target in options.targets:
            for key in keys_of(target):
                outputs, inputs = parts(block.mixer.weights(), [key])[key].shape
                factors[key] = Factors(inputs, outputs, options.ranks.get(target, options.rank))
    return found


def low_rank_parameters(model: VideoMamba, options: LowRankOptions) -> int:
    """Rank times (in + out) of every target."""
    sizes = target_sizes(model)
    return len(model.layers) * sum(
        options.ranks.get(target, options.rank) * len(keys_of(target)) * sum(sizes[target])
        for target in options.targets
    )


def target_sizes(model: VideoMamba) -> dict[Target, tuple[int, int]]:
    """Outputs and inputs of every target, in one direction."""
    dim = model.cls_token.shape[-1]
    inner, states, low = 2 * dim, 16, math.ceil(dim / 16)
    return {
        "in_proj": (2 * inner, dim),
        "in_proj_x": (inner, dim),
        "in_proj_z": (inner, dim),
        "out_proj": (dim, inner),
        "x_proj": (low + 2 * states, inner),
        "x_proj_dt": (low, inner),
        "x_proj_B": (states, inner),
        "x_proj_C": (states, inner),
        "dt_proj": (inner, low),
    }
