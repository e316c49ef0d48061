"""Mixer with frozen weights: a hand-written backward to its input alone.

- Tuning a frozen backbone needs the gradient of each mixer's input and of none of its weights. Autograd around the
  same layers would hold some ten tensors of (B, L, E) for that; this holds (x, z) and the scan's chunk states, and
  recomputes convolution, x_proj and dt_proj, which are cheap.
- Both directions add into one gradient of (x, z); nothing is flipped, the C kernels run backwards in time instead.
- `mixer.py` decides when this applies; the numbers are those of its plain path.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ssp.backbone.mixer_layers import conv_silu, convolve, linear
from ssp.scan import choose_backend, cpu
from ssp.scan.dispatch import load
from ssp.scan.interface import Backend, Grads, ScanArgs

NEEDS = Grads(u=True, delta=True, B=True, C=True, z=True)


class Direction(NamedTuple):
    """Weights of one direction."""

    conv_weight: Tensor  # (E, 1, K)
    conv_bias: Tensor | None  # (E,)
    x_proj: Tensor  # (R + 2N, E)
    dt_proj: Tensor  # (E, R)
    dt_bias: Tensor | None  # (E,)
    A: Tensor  # (E, N), negative
    D: Tensor  # (E,)
    reverse: bool


class Weights(NamedTuple):
    """Weights of a mixer, layers in the dtype of the computation, A, D and dt_bias in float32 or better."""

    in_proj: Tensor  # (2E, dim)
    out_proj: Tensor  # (dim, E)
    directions: tuple[Direction, Direction]


def run(hidden: Tensor, weights: Weights) -> Tensor:
    """Mix hidden (B, L, dim), differentiable in it alone."""
    backend = load(choose_backend(hidden.dtype, hidden.device).name)
    if torch.is_grad_enabled() and hidden.requires_grad:
        return FrozenMixer.apply(hidden, weights, backend)
    return _forward(hidden, weights, backend, keep=False)[0]


def _use_c(x: Tensor, backend: Backend) -> bool:
    return backend is cpu and x.dtype == torch.float32


def _conv_backward(grad_u: Tensor, x: Tensor, way: Direction) -> Tensor:
    """Gradient of x from that of SiLU(convolution), by PyTorch."""
    before = convolve(x, way.conv_weight, way.conv_bias, way.reverse)
    gate = torch.sigmoid(before)
    grad = grad_u * (gate * (1 + before * (1 - gate)))
    reach = way.conv_weight.shape[-1] - 1
    weight = way.conv_weight.flip(-1) if way.reverse else way.conv_weight
    full = F.conv_transpose1d(grad, weight, groups=len(weight))
    return full[..., : x.shape[-1]] if way.reverse else full[..., reach:]


def _scan_args(x: Tensor, z: Tensor, way: Direction) -> ScanArgs:
    """From (x, z), each (B, E, L), to the scan's inputs."""
    u = conv_silu(x, way.conv_weight, way.conv_bias, way.reverse)
    states = way.A.shape[1]
    low_rank, B, C = linear(u.transpose(1, 2), way.x_proj).split([way.dt_proj.shape[1], states, states], dim=-1)
    delta = linear(low_rank, way.dt_proj).transpose(1, 2)
    return ScanArgs(u, delta, way.A, B.transpose(1, 2), C.transpose(1, 2), way.D, z, way.dt_bias, True, way.reverse)


def _forward(
    hidden: Tensor, weights: Weights, backend: Backend, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Output, (x, z) as (B, L, 2E), and what each direction's scan keeps."""
    xz = linear(hidden, weights.in_proj)
    x, z = xz.transpose(1, 2).chunk(2, dim=1)
    total, kept = None, []
    for way in weights.directions:
        y, states = backend.forward(backend.prepare(_scan_args(x, z, way)), keep)
        y = y.to(xz.dtype)
        total = y if total is None else total.add_(y)
        kept.append(states)
    return linear(total.transpose(1, 2), weights.out_proj), xz, kept


class FrozenMixer(torch.autograd.Function):
    """`FrozenMixer.apply(hidden, weights, backend)`."""

    @staticmethod
    def forward(ctx: FunctionCtx, hidden: Tensor, weights: Weights, backend: Backend) -> Tensor:
        """Run both directions; hold (x, z) and chunk states."""
        out, xz, kept = _forward(hidden, weights, backend, keep=True)
        ctx.weights, ctx.backend = weights, backend
        ctx.save_for_backward(xz, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        """Gradient of hidden."""
        xz, *kept = ctx.saved_tensors
        weights, backend = ctx.weights, ctx.backend
        x, z = xz.transpose(1, 2).chunk(2, dim=1)
        grad_y = linear(grad, weights.out_proj.t()).transpose(1, 2)
        grad_xz = torch.empty_like(xz)
        grad_x, grad_z = grad_xz.transpose(1, 2).chunk(2, dim=1)
        for index, (way, states) in enumerate(zip(weights.directions, kept, strict=True)):
            args = backend.prepare(_scan_args(x, z, way))
            if _use_c(x, backend):
                found = cpu.backward(grad_y, args, states, NEEDS, grad_z, add_z=index > 0)
                grad_u = _through_projections(found, way)
                cpu.conv_silu_backward(grad_u, x, way.conv_weight, way.conv_bias, way.reverse, grad_x, add=index > 0)
                continue
            found = backend.backward(grad_y.to(args.u.dtype), args, states, NEEDS)
            grad_u = _through_projections(found, way).to(xz.dtype)
            for into, value in ((grad_x, _conv_backward(grad_u, x, way)), (grad_z, found.z)):
                if index:
                    into.add_(value)
                else:
                    into.copy_(value)
        return linear(grad_xz, weights.in_proj.t()), None, None


def _through_projections(found: Grads, way: Direction) -> Tensor:
    """Whole gradient of u (B, E, L): the scan's own, and that through dt_proj and x_proj."""
    dtype = way.x_proj.dtype
    delta, B, C = (grad.transpose(1, 2).to(dtype) for grad in (found.delta, found.B, found.C))
    low = torch.cat([linear(delta, way.dt_proj.t()), B, C], dim=-1)
    return linear(low, way.x_proj.t()).add_(found.u.transpose(1, 2)).transpose(1, 2)
