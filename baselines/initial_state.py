"""Initial-state tuning: every scan starts from a learned state instead of zero.

- The recurrence is linear in its state, so a start h_0 (E, N) adds, in closed form and exactly,
  silu(z_t) * sum_n C_tn exp(A_n S_t) h_0n, with S_t the sum of the step sizes of all tokens up to t, t's included.
- It decays: what is far from where a scan starts hardly sees it. The class token is the first of the forward scan and
  the last of the backward one.
- Zero at the start, so the frozen backbone. Weight decay spares it, as in the published code.
- A scan's kernels take no initial state, hence the closed form beside them. Its backward is written by hand, so that
  the terms, N times (B, E, L), are computed again and never held together.

As a baseline in Galim et al., Parameter-Efficient Fine-Tuning of State Space Models, ICML 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from ssp.backbone.mixer import DIRECTIONS, MixerTuning, ScanInputs
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


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
            parameter._no_weight_decay = True

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

    def offset(self, direction: str, inputs: ScanInputs) -> Tensor:
        """What the gated output gains from the scan's start."""
        exact = torch.promote_types(inputs.delta.dtype, torch.float32)
        delta = inputs.delta.to(exact)
        if inputs.delta_bias is not None:
            delta = delta + inputs.delta_bias.to(exact)[:, None]
        steps = F.softplus(delta)
        elapsed = steps.flip(-1).cumsum(-1).flip(-1) if direction == "backward" else steps.cumsum(-1)
        read = ReadOfStart.apply(elapsed, inputs.A.to(exact), inputs.C.to(exact), self._start(direction).to(exact))
        return (read * F.silu(inputs.z.to(exact))).to(inputs.z.dtype)

    def _start(self, direction: str) -> Tensor:
        return self.states[DIRECTIONS.index(direction)]


class ReadOfStart(torch.autograd.Function):
    """`ReadOfStart.apply(elapsed, A, C, start)`: what C reads of a state `start` that decayed; (B, E, L)."""

    @staticmethod
    def forward(ctx: FunctionCtx, elapsed: Tensor, A: Tensor, C: Tensor, start: Tensor) -> Tensor:
        """Elapsed (B, E, L), A (E, N), C (B, N, L), start (E, N); state by state."""
        ctx.save_for_backward(elapsed, A, C, start)
        read = torch.zeros_like(elapsed)
        for n in range(A.shape[1]):
            read.add_(torch.exp(elapsed * A[:, n, None]).mul_(start[:, n, None]).mul_(C[:, None, n]))
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all four."""
        elapsed, A, C, start = ctx.saved_tensors
        of_elapsed = torch.zeros_like(elapsed)
        of_A, of_C, of_start = torch.empty_like(A), torch.empty_like(C), torch.empty_like(start)
        for n in range(A.shape[1]):
            kept = torch.exp(elapsed * A[:, n, None]).mul_(grad)
            of_C[:, n] = torch.einsum("bel,e->bl", kept, start[:, n])
            kept = kept.mul_(C[:, None, n])
            of_start[:, n] = kept.sum((0, 2))
            kept = kept.mul_(start[:, n, None])
            of_A[:, n] = torch.einsum("bel,bel->e", kept, elapsed)
            of_elapsed.add_(kept.mul_(A[:, n, None]))
        return of_elapsed, of_A, of_C, of_start
