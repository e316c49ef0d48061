"""Partial tuning: some of the small parameters of every mixer train, the projections stay frozen.

- Which is an option: A, D, the bias of dt_proj, the kernel of conv1d, its bias; of both directions.
- `train: difference` adds a learned difference that starts at zero (A's is one of A_log). Weight decay then pulls
  towards the pretrained value, not towards zero: published as the better way. Here it does so for A and conv1d alone,
  with the weight decay of everything else (published: 10 times that, 100 times for dt_proj's bias), since
  one-dimensional parameters have none.
- `train: itself` trains what is there; nothing is added.

Yoshimura et al., MambaPEFT: Exploring Parameter-Efficient Fine-Tuning for Mamba, ICLR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssp.backbone.layout import is_readout
from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

Part = Literal["A", "D", "dt_bias", "conv1d", "conv1d_bias"]
WEIGHT = {"A": "A", "D": "D", "dt_bias": "dt_bias", "conv1d": "conv_weight", "conv1d_bias": "conv_bias"}
NAMES = {  # of a mixer's parameters, forward and backward
    "A": ("A_log", "A_b_log"),
    "D": ("D", "D_b"),
    "dt_bias": ("dt_proj.bias", "dt_proj_b.bias"),
    "conv1d": ("conv1d.weight", "conv1d_b.weight"),
    "conv1d_bias": ("conv1d.bias", "conv1d_b.bias"),
}


class PartialTuning(TuningMethod):
    """Partial tuning behind the interface of every method."""

    name = "partial"
    title = "Partial"
    source = "ICLR 2025; sony/MambaPEFT"
    test_configs: ClassVar = [
        {},
        {"parts": ["conv1d", "conv1d_bias"]},
        {"parts": ["A", "D", "dt_bias", "conv1d"], "train": "itself"},
    ]
    identity_at_start = True
    mergeable = True

    class Options(Strict):
        """All four that were published one by one."""

        parts: list[Part] = Field(
            default=["A", "D", "dt_bias", "conv1d"], min_length=1, description="What trains, in both directions."
        )
        train: Literal["difference", "itself"] = Field(
            default="difference", description="A difference that is added and starts at zero, or the parameters."
        )

    def attach(self, model: VideoMamba) -> None:
        """Register the differences of every block and direction."""
        if self.options.train == "itself":
            return
        model.partial = nn.ModuleList(
            nn.ModuleList(
                nn.ParameterDict(
                    {part: torch.zeros_like(getattr(way, WEIGHT[part])) for part in sorted(set(self.options.parts))}
                )
                for way in block.mixer.weights().directions
            )
            for block in model.layers
        )

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """The differences, or the parameters themselves; head and final norm."""
        if self.options.train == "difference":
            return super().trainable_parameters(model)
        ends = tuple(f".mixer.{name}" for part in self.options.parts for name in NAMES[part])
        names = [name for name, _ in model.named_parameters()]
        return [name for name in names if name.endswith(ends) or is_readout(name)]

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The decay of the last block's forward scan."""
        if "A" not in self.options.parts:
            return {}
        last = len(model.layers) - 1
        name = f"layers.{last}.mixer.A_log" if self.options.train == "itself" else f"partial.{last}.0.A"
        reason = "only the class token, row 0, is read after the last block; a forward scan has decayed nothing by then"
        return {name: reason}

    def expected_parameters(self, model: VideoMamba) -> int:
        """States, taps or one number a channel, in both directions."""
        if self.options.train == "itself":
            return 0
        numbers = {"A": 16, "D": 1, "dt_bias": 1, "conv1d": 4, "conv1d_bias": 1}
        each = sum(numbers[part] for part in set(self.options.parts))
        return len(model.layers) * 2 * each * 2 * model.cls_token.shape[-1]

    def sweep_space(self) -> dict[str, Range]:
        """Whether weight decay pulls to the pretrained value."""
        return {"train": Range(choices=["difference", "itself"])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning | None:
        """The differences of a block."""
        return None if self.options.train == "itself" else Differences(current.model.partial[index])


class Differences(MixerTuning):
    """Weights of one block with the differences added."""

    def __init__(self, learned: nn.ModuleList) -> None:
        self.learned = learned

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """A times exp(difference of its logarithm); everything else plus its difference."""
        ways = []
        for way, differences in zip(weights.directions, self.learned, strict=True):
            own = {part: getattr(way, WEIGHT[part]) for part in differences}
            new = {WEIGHT[part]: changed(part, own[part], value) for part, value in differences.items()}
            ways.append(way._replace(**new))
        return weights._replace(directions=tuple(ways))


def changed(part: Part, own: Tensor, difference: Tensor) -> Tensor:
    """A part with its difference; A's is one of its logarithm."""
    return own * torch.exp(difference.to(own.dtype)) if part == "A" else own + difference
