"""State-offset tuning: the read-out of every scan sees a state with something learned added to it.

- `on: state`: y_t gains silu(z_t) * (C_t . h'), with h' (E, N) of each block and direction. Unlike a learned initial
  state it does not decay: every token gets it alike. `rank` makes h' a product of (E, r) and (r, N).
- `on: output`: y_t gains silu(z_t) * y', with y' (E).
- Both start at zero, the frozen backbone: of a product the left factor, the right one is Kaiming-uniform, as published.

Kang et al., State-offset Tuning: State-based Parameter-Efficient Fine-Tuning for State Space Models, ACL 2025.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from ssp.backbone.mixer import DIRECTIONS, MixerTuning, ScanInputs
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class StateOffsetTuning(TuningMethod):
    """State-offset tuning behind the interface of every method."""

    name = "state_offset"
    title = "State-offset"
    source = "ACL 2025; furiosa-ai/ssm-state-tuning"
    test_configs: ClassVar = [{}, {"rank": 2}, {"on": "output"}]
    identity_at_start = True

    class Options(Strict):
        """A whole offset of the state."""

        on: Literal["state", "output"] = Field(
            default="state", description="What is offset: the state that C reads, or what is read."
        )
        rank: PositiveInt | None = Field(default=None, description="Rank of the state's offset; null: not factored.")

        @model_validator(mode="after")
        def _only_states_have_a_rank(self) -> StateOffsetTuning.Options:
            if self.rank and self.on == "output":
                raise ValueError("rank goes with on: state, an offset of the output is a vector")
            return self

    def attach(self, model: VideoMamba) -> None:
        """Register the offsets of every block and direction."""
        model.state_offset = nn.ModuleList(
            nn.ModuleList(Offset(*block.mixer.A_log.shape, self.options) for _ in DIRECTIONS) for block in model.layers
        )

    def expected_parameters(self, model: VideoMamba) -> int:
        """E times N, r times their sum, or E, in both directions."""
        inner, states, rank = 2 * model.cls_token.shape[-1], 16, self.options.rank
        each = inner if self.options.on == "output" else rank * (inner + states) if rank else inner * states
        return len(model.layers) * 2 * each

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """The offsets of a block."""
        return Read(current.model.state_offset[index])


class Offset(nn.Module):
    """What is learned for one direction, zero at the start."""

    def __init__(self, channels: int, states: int, options: StateOffsetTuning.Options) -> None:
        super().__init__()
        self.on = options.on
        columns = options.rank or (states if options.on == "state" else 1)
        self.offset = nn.Parameter(torch.zeros(channels) if options.on == "output" else torch.zeros(channels, columns))
        if options.rank:
            self.states = nn.Parameter(torch.empty(options.rank, states))
            nn.init.kaiming_uniform_(self.states, a=math.sqrt(5))

    def forward(self, C: Tensor) -> Tensor:
        """What every token's read-out gains before its gate, from C (B, N, L): (B, E, L), or (1, E, 1)."""
        if self.on == "output":
            return self.offset[None, :, None].to(C.dtype)
        read = C.transpose(1, 2)  # (B, L, N)
        if hasattr(self, "states"):
            read = F.linear(read, self.states.to(C.dtype))
        return F.linear(read, self.offset.to(C.dtype)).transpose(1, 2)


class Read(MixerTuning):
    """The offsets of one block's scans."""

    def __init__(self, offsets: nn.ModuleList) -> None:
        self.offsets = offsets

    def offset(self, direction: str, inputs: ScanInputs) -> Tensor:
        """What the gated output gains."""
        return F.silu(inputs.z) * self.offsets[DIRECTIONS.index(direction)](inputs.C)
