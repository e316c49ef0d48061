"""The mixer as one function of its input and weights, with a backward written by hand.

- Tuning a frozen backbone needs the gradient of each mixer's input, and of those weights that a method makes. Autograd
  around the layers would hold some ten tensors of (B, L, E) for that; this holds (x, z) and the scan's chunk states,
  and recomputes convolution, x_proj and dt_proj, which are cheap. What only a weight's gradient needs is held if it
  is asked for.
- Both directions add into one gradient of (x, z); nothing is flipped, the kernels run backwards in time instead.
- `mixer.py` decides when this applies; the numbers are those of its layers.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ssp.backbone.kept import Kept
from ssp.backbone.mixer_layers import conv_silu, conv_silu_backward, linear
from ssp.scan import choose_backend
from ssp.scan.dispatch import load
from ssp.scan.interface import Backend, Grads, ScanArgs, both_backward, both_forward


class Direction(NamedTuple):
    """Weights of one direction. None: the layer has none, or is not plain."""

    conv_weight: Tensor  # (E, 1, K)
    conv_bias: Tensor | None  # (E,)
    x_proj: Tensor  # (R + 2N, E): rows of dt, B, C
    x_proj_bias: Tensor | None  # (R + 2N,)
    dt_proj: Tensor  # (E, R)
    dt_bias: Tensor | None  # (E,)
    A: Tensor  # (E, N), negative
    D: Tensor  # (E,)
    reverse: bool


class MixerWeights(NamedTuple):
    """Weights of a mixer."""

    in_proj: Tensor  # (2E, dim)
    in_proj_bias: Tensor | None  # (2E,)
    out_proj: Tensor  # (dim, E)
    out_proj_bias: Tensor | None  # (dim,)
    directions: tuple[Direction, Direction]

    def to(self, dtype: torch.dtype, kept: Kept) -> MixerWeights:
        """Layers in the dtype of the computation; A, D and dt_bias in float32 or better. Frozen ones are cast once."""
        exact = torch.promote_types(dtype, torch.float32)

        def cast(values: NamedTuple, of: str) -> dict[str, Tensor | None]:
            found = {}
            for name, x in values._asdict().items():
                wanted = exact if name in ("A", "D", "dt_bias") else dtype
                if isinstance(x, Tensor) and x.dtype != wanted:
                    found[name] = kept.get(f"{of}{name} in {wanted}", x, partial(Tensor.to, dtype=wanted))
            return found

        ways = tuple(way._replace(**cast(way, f"{way.reverse} ")) for way in self.directions)
        return self._replace(**cast(self, ""), directions=ways)

    def tensors(self) -> list[Tensor | None]:
        """All of them in a row; `of` reads them back."""
        return [*self[:4], *(x for way in self.directions for x in way[:8])]

    @classmethod
    def of(cls, tensors: list[Tensor | None]) -> MixerWeights:
        """From what `tensors` gives."""
        ways = (Direction(*tensors[4:12], reverse=False), Direction(*tensors[12:20], reverse=True))
        return cls(*tensors[:4], directions=ways)


def run(hidden: Tensor, weights: MixerWeights) -> Tensor:
    """Mix hidden (B, L, dim) to (B, L, dim); all in one dtype, but for A, D and dt_bias (`MixerWeights.to`)."""
    backend = load(choose_backend(hidden.dtype, hidden.device).name)
    tensors = weights.tensors()
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (hidden, *tensors)):
        return MixerFunction.apply(backend, hidden, *tensors)
    return _forward(hidden, weights, backend, keep=False).out


class _Forward(NamedTuple):
    """What a forward pass gives and may keep."""

    out: Tensor  # (B, L, dim)
    xz: Tensor  # (B, L, 2E)
    total: Tensor  # (B, L, E): both directions added up
    kept: list[Tensor | None]  # what each direction's scan keeps


def _forward(hidden: Tensor, weights: MixerWeights, backend: Backend, keep: bool) -> _Forward:
    xz = _affine(hidden, weights.in_proj, weights.in_proj_bias)
    x, z = xz.transpose(1, 2).chunk(2, dim=1)
    args = [backend.prepare(_scan_args(x, z, way)[0]) for way in weights.directions]
    (first, second), kept = both_forward(backend, args, keep)
    total = first.to(xz.dtype).add_(second.to(xz.dtype)).transpose(1, 2)
    return _Forward(_affine(total, weights.out_proj, weights.out_proj_bias), xz, total, kept)


def _scan_args(x: Tensor, z: Tensor, way: Direction) -> tuple[ScanArgs, Tensor]:
    """From (x, z), each (B, E, L), to the scan's inputs; and the input of dt_proj, (B, L, R)."""
    u = conv_silu(x, way.conv_weight, way.conv_bias, way.reverse)
    states = way.A.shape[1]
    projected = _affine(u.transpose(1, 2), way.x_proj, way.x_proj_bias)
    low_rank, B, C = projected.split([way.dt_proj.shape[1], states, states], dim=-1)
    delta = linear(low_rank, way.dt_proj).transpose(1, 2)
    args = ScanArgs(u, delta, way.A, B.transpose(1, 2), C.transpose(1, 2), way.D, z, way.dt_bias, True, way.reverse)
    return args, low_rank


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(x, weight) if bias is None else linear(x, weight) + bias


class MixerFunction(torch.autograd.Function):
    """`MixerFunction.apply(backend, hidden, *weights.tensors())`."""

    @staticmethod
    def forward(ctx: FunctionCtx, backend: Backend, hidden: Tensor, *tensors: Tensor | None) -> Tensor:
        """Run both directions; hold (x, z), chunk states, and what the weights' gradients need."""
        done = _forward(hidden, MixerWeights.of(list(tensors)), backend, keep=True)
        of_weights = MixerWeights.of(list(ctx.needs_input_grad[2:]))
        ctx.backend = backend
        ctx.save_for_backward(
            done.xz,
            hidden if of_weights.in_proj else None,
            done.total if of_weights.out_proj else None,
            *done.kept,
            *tensors,
        )
        return done.out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        """Gradients of hidden and of the weights that ask for one."""
        xz, hidden, total, first, second, *tensors = ctx.saved_tensors
        backend, weights, needs = ctx.backend, MixerWeights.of(tensors), MixerWeights.of(list(ctx.needs_input_grad[2:]))
        x, z = xz.transpose(1, 2).chunk(2, dim=1)
        grad_y = linear(grad, weights.out_proj.t()).transpose(1, 2)
        grad_xz = torch.empty_like(xz)
        grad_x, grad_z = grad_xz.transpose(1, 2).chunk(2, dim=1)
        recomputed = [_scan_args(x, z, way) for way in weights.directions]
        args = [backend.prepare(each) for each, _ in recomputed]
        scans = [
            Grads(u=True, delta=True, A=way.A, B=True, C=True, D=way.D, z=True, delta_bias=way.dt_bias)
            for way in needs.directions
        ]
        found = both_backward(backend, (grad_y, grad_y), args, (first, second), scans, grad_z)
        of_directions: list[Tensor | None] = []
        for index, (way, need, of_scan, (inputs, low_rank)) in enumerate(
            zip(weights.directions, needs.directions, found, recomputed, strict=True)
        ):
            grad_u, of_projections = _through_projections(of_scan, way, need, inputs.u, low_rank)
            of_conv = conv_silu_backward(
                grad_u.to(xz.dtype),
                x,
                way.conv_weight,
                way.conv_bias,
                way.reverse,
                grad_x,
                add=index > 0,
                of_weight=need.conv_weight,
                of_bias=need.conv_bias,
            )
            of_directions += [*of_conv, *of_projections, of_scan.delta_bias, of_scan.A, of_scan.D]
        of_weights = [
            _outer(grad_xz, hidden) if needs.in_proj else None,
            _total(grad_xz) if needs.in_proj_bias else None,
            _outer(grad, total) if needs.out_proj else None,
            _total(grad) if needs.out_proj_bias else None,
            *of_directions,
        ]
        cast = [
            value.to(tensor.dtype) if need and value is not None else None
            for value, tensor, need in zip(of_weights, tensors, ctx.needs_input_grad[2:], strict=True)
        ]
        return None, linear(grad_xz, weights.in_proj.t()) if ctx.needs_input_grad[1] else None, *cast


def _through_projections(
    found: Grads, way: Direction, need: Direction, u: Tensor, low_rank: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """Whole gradient of u (B, E, L), the scan's own and that through dt_proj and x_proj; and those of their weights."""
    dtype = way.x_proj.dtype
    delta, B, C = (grad.transpose(1, 2).to(dtype) for grad in (found.delta, found.B, found.C))
    low = torch.cat([linear(delta, way.dt_proj.t()), B, C], dim=-1)
    grad_u = linear(low, way.x_proj.t()).add_(found.u.transpose(1, 2)).transpose(1, 2)
    return grad_u, [
        _outer(low, u.transpose(1, 2)) if need.x_proj else None,
        _total(low) if need.x_proj_bias else None,
        _outer(delta, low_rank) if need.dt_proj else None,
    ]


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient (out, in) of a linear layer's weight from that of its output (B, L, out) and its input (B, L, in)."""
    return linear(grad.flatten(0, 1).t(), x.to(grad.dtype).flatten(0, 1).t())


def _total(grad: Tensor) -> Tensor:
    """Gradient (out,) of a bias from that of the output (B, L, out)."""
    return grad.sum((0, 1))
