"""Reference scan: one token at a time in plain PyTorch. The yardstick for every other backend.

- Any device, float32 and float64; written to be read next to the formulas in `interface.py`, not to be fast.
- Its backward is the adjoint recurrence, linear in L: g_t = C_t gs_t + exp(d_(t+1) A) g_(t+1). Autograd through the
  loop would be quadratic, because every `y[:, :, t]` it differentiates writes a gradient of full length.
- States are kept every sqrt(L) tokens and recomputed in between, so that L = 6273 fits in memory.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssp.scan.interface import Grads, ScanArgs, flip_grads, flip_tokens, in_arithmetic_dtype


def unavailable() -> str | None:
    """It works wherever PyTorch does."""
    return None


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It takes everything."""
    return None


def prepare(args: ScanArgs) -> ScanArgs:
    """All tensors in float32, or all in float64."""
    return in_arithmetic_dtype(args)


def step_sizes(args: ScanArgs) -> tuple[Tensor, Tensor]:
    """The step sizes d (B, D, L), and the slope of d in delta (1 without softplus)."""
    raw = args.delta if args.delta_bias is None else args.delta + args.delta_bias[:, None]
    return (F.softplus(raw), torch.sigmoid(raw)) if args.delta_softplus else (raw, torch.ones_like(raw))


def _step(h: Tensor, t: int, d: Tensor, args: ScanArgs) -> Tensor:
    decay = torch.exp(d[:, :, t, None] * args.A)
    return decay * h + (d[:, :, t] * args.u[:, :, t])[..., None] * args.B[:, None, :, t]


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Y (B, D, L), and the state before every sqrt(L)-th token (count, B, D, N) if `keep`."""
    if args.reverse:
        y, kept = forward(flip_tokens(args), keep)
        return y.flip(-1), kept
    d, _ = step_sizes(args)
    tokens = args.u.shape[-1]
    every = math.isqrt(tokens)
    h = torch.zeros(args.u.shape[0], *args.A.shape, dtype=args.u.dtype, device=args.u.device)
    y, kept = torch.empty_like(args.u), []
    for t in range(tokens):
        if keep and t % every == 0:
            kept.append(h)
        h = _step(h, t, d, args)
        y[:, :, t] = (h * args.C[:, None, :, t]).sum(-1)
    if args.D is not None:
        y = y + args.D[:, None] * args.u
    if args.z is not None:
        y = y * F.silu(args.z)
    return y, torch.stack(kept) if keep else None


def backward(grad_y: Tensor, args: ScanArgs, kept: Tensor, needs: Grads) -> Grads:
    """All gradients by the adjoint recurrence (`needs` saves nothing worth having here)."""
    if args.reverse:
        return flip_grads(backward(grad_y.flip(-1), flip_tokens(args), kept, needs))
    u, A, B, C, z = args.u, args.A, args.B, args.C, args.z
    d, slope = step_sizes(args)
    tokens = u.shape[-1]
    every = math.isqrt(tokens)
    grad_s = grad_y if z is None else grad_y * F.silu(z)  # s = C.h + D u, before the gate
    s, grad_u, grad_d = torch.empty_like(u), torch.empty_like(u), torch.empty_like(u)
    grad_B, grad_C, grad_A = torch.empty_like(B), torch.empty_like(C), torch.zeros_like(A)
    g = torch.zeros_like(kept[0])  # gradient of h_t, without what y_t adds
    for chunk in reversed(range(len(kept))):
        start, stop = chunk * every, min((chunk + 1) * every, tokens)
        states = [kept[chunk]]
        for t in range(start, stop):
            states.append(_step(states[-1], t, d, args))
        for t in reversed(range(start, stop)):
            before, h = states[t - start], states[t - start + 1]
            g = g + grad_s[:, :, t, None] * C[:, None, :, t]
            decay = torch.exp(d[:, :, t, None] * A)
            through = g * decay * before  # gradient of d_t A, per state
            from_input = (g * B[:, None, :, t]).sum(-1)
            s[:, :, t] = (h * C[:, None, :, t]).sum(-1)
            grad_C[:, :, t] = (grad_s[:, :, t, None] * h).sum(1)
            grad_B[:, :, t] = (g * (d[:, :, t] * u[:, :, t])[..., None]).sum(1)
            grad_u[:, :, t] = from_input * d[:, :, t]
            grad_d[:, :, t] = from_input * u[:, :, t] + (through * A).sum(-1)
            grad_A += (through * d[:, :, t, None]).sum(0)
            g = g * decay
    return finish(grad_y, grad_s, s, grad_u, grad_d * slope, grad_A, grad_B, grad_C, args)


def finish(
    grad_y: Tensor,
    grad_s: Tensor,
    s: Tensor,
    grad_u: Tensor,
    grad_delta: Tensor,
    grad_A: Tensor,
    grad_B: Tensor,
    grad_C: Tensor,
    args: ScanArgs,
) -> Grads:
    """Add the parts that need no recurrence: skip D, gate z, bias. `s` is C.h, without the skip."""
    grad_D = grad_z = None
    if args.D is not None:
        s = s + args.D[:, None] * args.u
        grad_u = grad_u + args.D[:, None] * grad_s
        grad_D = (grad_s * args.u).sum((0, 2))
    if args.z is not None:
        gate = torch.sigmoid(args.z)
        grad_z = grad_y * s * gate * (1 + args.z * (1 - gate))
    grad_bias = None if args.delta_bias is None else grad_delta.sum((0, 2))
    return Grads(grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
