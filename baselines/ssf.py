"""SSF: what layers give is scaled and shifted, channel by channel; afterwards it folds into their weights.

- Each layer's output y becomes scale * y + shift. Which layers is an option: a block's norm, in_proj and out_proj, and
  of each direction the convolution (before its SiLU), x_proj and dt_proj (with its bias, before softplus). The patch
  embedding is left as it is, and the final norm trains in every method.
- All of it is other weights and biases of the mixer, the norm's too: they fold into in_proj, which reads the norm. So
  nothing is wrapped, and the mixer's backward written by hand stays in use.
- Scales start at normal(1, 0.02), shifts at normal(0, 0.02), so published, which is not the frozen backbone;
  `start: identity` has 1 and 0.

Lian et al., Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning, NeurIPS 2022. On
Mamba: a guess.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import Direction, MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

Layer = Literal["norm", "in_proj", "out_proj", "conv1d", "x_proj", "dt_proj"]
PER_DIRECTION = ("conv1d", "x_proj", "dt_proj")


class ScaleAndShift(TuningMethod):
    """SSF behind the interface of every method."""

    name = "ssf"
    title = "SSF"
    source = "NeurIPS 2022; dongzelian/SSF, placement on Mamba ours"
    test_configs: ClassVar = [
        {},
        {"layers": ["norm", "in_proj", "out_proj", "conv1d", "x_proj", "dt_proj"], "start": "identity"},
        {"layers": ["in_proj", "dt_proj"]},
    ]
    mergeable = True

    class Options(Strict):
        """The layers that both directions share."""

        layers: list[Layer] = Field(
            default=["norm", "in_proj", "out_proj"], min_length=1, description="Behind which layers. A guess."
        )
        start: Literal["published", "identity"] = Field(
            default="published", description="Scales and shifts drawn around 1 and 0, or exactly those."
        )

    @property
    def identity_at_start(self) -> bool:
        """As its start says."""
        return self.options.start == "identity"

    def attach(self, model: VideoMamba) -> None:
        """Register scale and shift of every layer."""
        std = 0.02 if self.options.start == "published" else 0.0
        model.ssf = nn.ModuleList(
            nn.ModuleDict({key: Affine(width, std) for key, width in self._widths(model).items()}) for _ in model.layers
        )

    def expected_parameters(self, model: VideoMamba) -> int:
        """Two numbers for every channel of a layer's output."""
        return len(model.layers) * 2 * sum(self._widths(model).values())

    def _widths(self, model: VideoMamba) -> dict[str, int]:
        """Channels of each layer's output, of layers in both directions by "name" and "name_b"."""
        dim = model.cls_token.shape[-1]
        widths = {"norm": dim, "in_proj": 4 * dim, "out_proj": dim}
        widths |= {"conv1d": 2 * dim, "x_proj": math.ceil(dim / 16) + 32, "dt_proj": 2 * dim}
        ends = {layer: ("", "_b") if layer in PER_DIRECTION else ("",) for layer in widths}
        return {f"{layer}{end}": widths[layer] for layer in sorted(set(self.options.layers)) for end in ends[layer]}

    def sweep_space(self) -> dict[str, Range]:
        """How scales and shifts start."""
        return {"start": Range(choices=["published", "identity"])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """Scales and shifts of a block."""
        return Scaled(current.model.ssf[index])


class Affine(nn.Module):
    """Scale and shift of one layer's output."""

    def __init__(self, width: int, std: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(nn.init.normal_(torch.empty(width), 1.0, std))
        self.shift = nn.Parameter(nn.init.normal_(torch.empty(width), 0.0, std))

    def behind(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight (out, ...) and bias of a layer that scales and shifts what it gives."""
        scaled = weight * self.scale.view(-1, *(1,) * (weight.dim() - 1))
        return scaled, self.shift if bias is None else bias * self.scale + self.shift


class Scaled(MixerTuning):
    """Weights of one block with scales and shifts folded in."""

    def __init__(self, learned: nn.ModuleDict) -> None:
        self.learned = learned

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """Weights and biases of all layers."""
        in_proj, in_bias = weights.in_proj, weights.in_proj_bias
        if "norm" in self.learned:
            norm = self.learned["norm"]
            shifted = in_proj @ norm.shift
            in_proj, in_bias = in_proj * norm.scale, shifted if in_bias is None else in_bias + shifted
        in_proj, in_bias = self._behind("in_proj", in_proj, in_bias)
        out_proj, out_bias = self._behind("out_proj", weights.out_proj, weights.out_proj_bias)
        first, second = weights.directions
        return MixerWeights(
            in_proj, in_bias, out_proj, out_bias, (self._direction(first, ""), self._direction(second, "_b"))
        )

    def _direction(self, way: Direction, end: str) -> Direction:
        conv, conv_bias = self._behind(f"conv1d{end}", way.conv_weight, way.conv_bias)
        x_proj, x_bias = self._behind(f"x_proj{end}", way.x_proj, way.x_proj_bias)
        dt_proj, dt_bias = self._behind(f"dt_proj{end}", way.dt_proj, way.dt_bias)
        return way._replace(
            conv_weight=conv, conv_bias=conv_bias, x_proj=x_proj, x_proj_bias=x_bias, dt_proj=dt_proj, dt_bias=dt_bias
        )

    def _behind(self, key: str, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.learned[key].behind(weight, bias) if key in self.learned else (weight, bias)
