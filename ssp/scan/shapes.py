"""The scan of tensors on torch's meta device: shapes without numbers, in one operator whose FLOPs are known.

- A model on that device then runs forward in milliseconds, and any counter that looks at operators sees a scan as one
  (`ssp.backbone.flops` does, and torch's own FlopCounterMode). No other backend takes its place, so that a count is the
  same wherever it is made.
- Not among the backends of a machine: it computes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ssp.scan.interface import Grads, ScanArgs, in_arithmetic_dtype

_LIBRARY = torch.library.Library("ssp", "DEF")
_LIBRARY.define(
    "scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus) -> Tensor"
)
_LIBRARY.impl("scan", lambda u, *_: torch.empty_like(u), "Meta")


def unavailable() -> str | None:
    """It works wherever PyTorch does."""
    return None


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It takes tensors without numbers."""
    return None if device.type == "meta" else f"it computes nothing and takes meta tensors alone, not {device.type}"


def prepare(args: ScanArgs) -> ScanArgs:
    """All tensors in float32, or all in float64."""
    return in_arithmetic_dtype(args)


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, None]:
    """Y (B, D, L); there is nothing to keep."""
    return torch.ops.ssp.scan(*args[:8], args.delta_softplus), None


def backward(grad_y: Tensor, args: ScanArgs, kept: None, needs: Grads) -> Grads:
    """A gradient of the shape of each input that needs one."""
    asked = zip(args[:8], needs, strict=True)
    return Grads(*(torch.empty_like(x) if x is not None and need else None for x, need in asked))


@register_flop_formula(torch.ops.ssp.scan)
def scan_flops(
    u: torch.Size,
    delta: torch.Size,
    A: torch.Size,
    B: torch.Size,
    C: torch.Size,
    D: torch.Size | None,
    z: torch.Size | None,
    delta_bias: torch.Size | None,
    delta_softplus: bool,
    *_: object,
    **__: object,
) -> int:
    """FLOPs of one scan from the shapes of its arguments; an exponential, a softplus or a SiLU is one like a product.

    For each clip, channel, token and state 7: d A, exp, times h, (d u) B, their sum, C h, its sum over states. For each
    clip, channel and token 1 for d u, and 1 each for the bias and the softplus of d, 2 each for D u and for the gate.
    """
    batch, channels, tokens = u
    rows = 1 + (delta_bias is not None) + delta_softplus + 2 * (D is not None) + 2 * (z is not None)
    return batch * channels * tokens * (7 * A[1] + rows)
