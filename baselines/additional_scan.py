"""Additional scan: every scan gets more states, and only what belongs to them trains.

- A gets n more columns, and x_proj n more rows for B and n for C, in each direction; what was there is frozen. The new
  states add to what the scan reads out: y_t gains C'_t . h'_t. Where they stand among the states makes no difference.
- A of the new states starts as a copy of the first frozen state's (the slowest decay), of the last one's, or as the
  next numbers of Mamba's own start, log(17), log(18), ... Copies are made when the weights are there (`after_loading`).
- The rows start as a linear layer's. So published, which is not the frozen backbone at the start; `start: identity`
  has the rows of C at zero. (All rows at zero, an option of the published code, can never train: the gradient of B is
  C times something and the other way round.)
- Weight decay spares A, as in the published code.

Yoshimura et al., MambaPEFT: Exploring Parameter-Efficient Fine-Tuning for Mamba, ICLR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from ssp.backbone.mixer import MixerTuning
from ssp.backbone.mixer_function import MixerWeights
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class AdditionalScan(TuningMethod):
    """Additional scan behind the interface of every method."""

    name = "additional_scan"
    title = "Additional-Scan"
    source = "ICLR 2025; sony/MambaPEFT"
    test_configs: ClassVar = [{"states": 2}, {"states": 3, "A": "next", "start": "identity"}]

    class Options(Strict):
        """Six states, copies of the first: the published settings for images."""

        states: PositiveInt = Field(default=6, description="States added to each channel, in each direction.")
        A: Literal["first", "last", "next"] = Field(
            default="first", description="Where the decay of new states starts: a frozen state's, or Mamba's next."
        )
        start: Literal["published", "identity"] = Field(
            default="published", description="Rows of B and C as a linear layer's, or those of C zero."
        )

    @property
    def identity_at_start(self) -> bool:
        """As its start says."""
        return self.options.start == "identity"

    def attach(self, model: VideoMamba) -> None:
        """Register A (E, n) and the rows of B, then C, (2n, E), of every block and direction."""
        model.additional_scan = nn.ModuleList(
            nn.ModuleList(NewStates(len(block.mixer.D), self.options) for _ in block.mixer.weights().directions)
            for block in model.layers
        )

    def after_loading(self, model: VideoMamba) -> None:
        """Copy the decay of a frozen state."""
        if self.options.A == "next":
            return
        column = 0 if self.options.A == "first" else -1
        with torch.no_grad():
            for block, new in zip(model.layers, model.additional_scan, strict=True):
                for states, frozen in zip(new, (block.mixer.A_log, block.mixer.A_b_log), strict=True):
                    states.A_log.copy_(frozen[:, column, None].expand_as(states.A_log))

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The decay of the last block's forward scan."""
        reason = "only the class token, row 0, is read after the last block; a forward scan has decayed nothing by then"
        return {f"additional_scan.{len(model.layers) - 1}.0.A_log": reason}

    def expected_parameters(self, model: VideoMamba) -> int:
        """A column of A and two rows for each state, in both directions."""
        return len(model.layers) * 2 * self.options.states * 3 * 2 * model.cls_token.shape[-1]

    def sweep_space(self) -> dict[str, Range]:
        """How the new states start."""
        return {"start": Range(choices=["published", "identity"])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """The states of a block."""
        return WithNewStates(current.model.additional_scan[index])


class NewStates(nn.Module):
    """What belongs to the new states of one direction."""

    def __init__(self, channels: int, options: AdditionalScan.Options) -> None:
        super().__init__()
        count = options.states
        following = torch.log(torch.arange(17, 17 + count, dtype=torch.float32))
        self.A_log = nn.Parameter(following.repeat(channels, 1))
        self.A_log.no_weight_decay = True
        self.x_proj = nn.Parameter(torch.empty(2 * count, channels))
        nn.init.uniform_(self.x_proj, -(channels**-0.5), channels**-0.5)
        if options.start == "identity":
            nn.init.zeros_(self.x_proj[count:].detach())


class WithNewStates(MixerTuning):
    """Weights of one block with more states."""

    def __init__(self, new: nn.ModuleList) -> None:
        self.new = new

    def weights(self, weights: MixerWeights) -> MixerWeights:
        """New columns of A behind the frozen ones, new rows behind those of B and behind those of C."""
        ways = []
        for way, new in zip(weights.directions, self.new, strict=True):
            A_log, rows = new.A_log, new.x_proj
            old, (new_B, new_C) = way.x_proj[: -way.A.shape[1]], rows.chunk(2)
            old_C = way.x_proj[-way.A.shape[1] :]
            A = torch.cat([way.A, -torch.exp(A_log.to(way.A.dtype))], dim=1)
            ways.append(way._replace(A=A, x_proj=torch.cat([old, new_B, old_C, new_C])))
        return weights._replace(directions=tuple(ways))
