"""Initial-state tuning: every scan starts from a learned state instead of zero.

- The recurrence is linear in its state, so a start h_0 (E, N) adds silu(z_t) * sum_n C_tn exp(A_n S_t) h_0n, with S_t
  the sum of the step sizes of all tokens up to t, t's included.
- It decays: what is far from where a scan starts hardly sees it. The class token is the first of the forward scan and
  the last of the backward one.
- Zero at the start, so the frozen backbone. Weight decay spares it, as in the published code.
- The kernels of the scan take no initial state. So N columns stand in front of the scan, behind the convolution, and
  load the N states one after the other: column n has B = 1 for state n alone, a small step d, and as input
  h_0n / d, times what the columns after it will have let decay. That is exact, and costs N tokens; the published code
  runs one scan a state with one column.

As a baseline in Galim et al., Parameter-Efficient Fine-Tuning of State Space Models, ICML 2025.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ssp.backbone.mixer import DIRECTIONS, MixerTuning, ScanInputs, in_front
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

STEP = 1e-3  # of the columns that load a state; any would do


class InitialStateTuning(TuningMethod):
    """Initial-state tuning behind the interface of every method."""

    name = "initial_state"
    title = "Initial state"
    source = "ICML 2025; furiosa-ai/ssm-peft"
    test_configs: ClassVar = [{}]
    identity_at_start = True

    def attach(self, model: VideoMamba) -> None:
        """Register the states (E, N) of every block and direction."""
        model.initial_state = nn.ModuleList(
            nn.ParameterList(torch.zeros_like(block.mixer.A_log) for _ in DIRECTIONS) for block in model.layers
        )
        for parameter in model.initial_state.parameters():
            parameter.no_weight_decay = True

    def expected_parameters(self, model: VideoMamba) -> int:
        """E times N, in both directions."""
        return len(model.layers) * 2 * 2 * model.cls_token.shape[-1] * 16

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """The states that a block's scans start from."""
        return Started(current.model.initial_state[index])


class Started(MixerTuning):
    """The initial states of one block."""

    def __init__(self, states: nn.ParameterList) -> None:
        self.states = states

    def scan_inputs(self, direction: str, inputs: ScanInputs) -> ScanInputs:
        """Inputs with N more columns where the scan starts, which leave it with the initial state."""
        exact = torch.promote_types(inputs.delta.dtype, torch.float32)
        start, A = self.states[DIRECTIONS.index(direction)].to(exact), inputs.A.to(exact)
        bias = 0.0 if inputs.delta_bias is None else inputs.delta_bias.to(exact)
        delta = (start.new_full((len(A),), math.log(math.expm1(STEP))) - bias).to(inputs.delta.dtype)
        step = F.softplus(delta.to(exact) + bias)[:, None]  # as it is after rounding
        states = A.shape[1]
        after = torch.arange(states - 1, -1, -1, device=A.device)  # columns after that of a state
        u = start / step * torch.exp(-A * step * after)  # (E, N), a column a state
        columns = {
            "u": u,
            "delta": delta[:, None].expand(-1, states),
            "B": torch.eye(states, device=A.device),
            "C": inputs.C.new_zeros(states, states),
            "z": u.new_zeros(u.shape),
        }
        longer = {name: in_front(getattr(inputs, name), own, direction) for name, own in columns.items()}
        return ScanInputs(**vars(inputs) | longer)
