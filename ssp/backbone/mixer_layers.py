"""Layers of the mixer as functions of their weights: linear, and causal depthwise convolution with SiLU.

- For float32 on a CPU both have something faster than PyTorch's own way, and so has the convolution on a GPU; for
  everything else (float64, autocast on a CPU, a machine without the kernels) they are PyTorch's own way. Nobody else
  has to ask which it is.
- Linear: PyTorch's oneDNN operator, not its default, MKL: measured 2 to 4 times as fast on AMD (MKL stays at AVX2
  there), for the product and for both of its gradients. Products too small to pay for the call stay with the default.
- Convolution: kernels beside those of the scan, in C or in Triton, which read channel-last storage as it lies.
  PyTorch's would be copied to channel-first and back.
- Only gradients that are asked for are computed. Differentiable once.
"""

import platform
from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ssp.scan import choose_backend, cpu
from ssp.scan.triton import convolution


def _onednn() -> Callable | None:
    """PyTorch's dense oneDNN linear operator, where there is one."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn()
_SMALL = 2**18  # multiplications below which oneDNN's 14 microseconds a call are not worth it


def _is_float32_on_cpu(*tensors: Tensor | None) -> bool:
    return not torch.is_autocast_enabled("cpu") and all(
        x is None or (x.dtype == torch.float32 and x.device.type == "cpu") for x in tensors
    )


def _kernels(*tensors: Tensor | None) -> ModuleType | None:
    """The module whose `conv_silu` and `conv_silu_backward` take these; None: PyTorch's own way."""
    name = choose_backend(tensors[0].dtype, tensors[0].device).name
    if name == "cpu" and _is_float32_on_cpu(*tensors):
        return cpu
    return convolution if name == "triton" and convolution.takes(*tensors) else None


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x (..., in) with weight (out, in), like F.linear."""
    if _ONEDNN is None or x.numel() * len(weight) < _SMALL or not _is_float32_on_cpu(x, weight):
        return F.linear(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight)
    return _ONEDNN(x, weight, None, "none", [], "")


class _Linear(torch.autograd.Function):
    """`_Linear.apply(x, weight)`: `linear` through oneDNN."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(x, weight)
        return linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of x and weight."""
        x, weight = ctx.saved_tensors
        grad_x = linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None
        rows, grad = x.flatten(0, -2), grad.flatten(0, -2)
        # The first operand is copied in the order of its transpose: the narrower one.
        if x.shape[-1] < grad.shape[-1]:
            return grad_x, linear(rows.t(), grad.t()).t()
        return grad_x, linear(grad.t(), rows.t())


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """SiLU of the depthwise convolution of x (B, E, L), with weight (E, 1, K), over each token and the K-1 before it.

    After it if `reverse`. A transposed view of channel-last storage is the fastest, and what comes out.
    """
    kernels = _kernels(x, weight, bias)
    if kernels is None:
        return F.silu(convolve(x, weight, bias, reverse))
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)):
        return _ConvSiLU.apply(x, weight, bias, reverse)
    return kernels.conv_silu(x, weight, bias, reverse)


def conv_silu_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool,
    grad_x: Tensor,
    *,
    add: bool,
    of_weight: bool = False,
    of_bias: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Backward of `conv_silu`: writes, or adds, the gradient of x into `grad_x`; returns those of weight and bias."""
    kernels = _kernels(x, weight, bias)
    if kernels:
        return kernels.conv_silu_backward(grad_y, x, weight, bias, reverse, grad_x, add, of_weight, of_bias)
    before = convolve(x, weight, bias, reverse)
    gate = torch.sigmoid(before)
    grad = grad_y * (gate * (1 + before * (1 - gate)))
    found = convolve(grad, weight, None, not reverse)
    grad_x.add_(found) if add else grad_x.copy_(found)
    of_taps = None
    if of_weight:
        of_taps = torch.einsum("belk,bel->ek", _windows(x, weight.shape[-1], reverse), grad)[:, None]
        of_taps = of_taps.flip(-1) if reverse else of_taps
    return of_taps, grad.sum((0, 2)) if of_bias else None


class _ConvSiLU(torch.autograd.Function):
    """`_ConvSiLU.apply(x, weight, bias, reverse)`: `conv_silu` by kernels; recomputes the convolution."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(x, weight, bias)
        ctx.reverse = reverse
        return _kernels(x, weight, bias).conv_silu(x, weight, bias, reverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple:
        """Gradients of x (channel-last), weight and bias."""
        x, weight, bias = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        grad_x = torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        found = _kernels(x, weight, bias).conv_silu_backward(
            grad, x, weight, bias, ctx.reverse, grad_x if of_x else None, of_weight=of_weight, of_bias=of_bias
        )
        return grad_x if of_x else None, *found, None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """Convolution of `conv_silu` before SiLU, by PyTorch."""
    reach, tokens, taps = weight.shape[-1] - 1, x.shape[-1], weight.flip(-1) if reverse else weight
    if x.device.type == "cpu" and x.dtype == torch.float64:  # conv1d would call a convolution for each channel
        found = (_windows(x, reach + 1, reverse) * taps).sum(-1)
        return found if bias is None else found + bias[:, None]
    full = F.conv1d(x, taps, bias, padding=reach, groups=len(weight))
    return full[..., reach:] if reverse else full[..., :tokens]


def _windows(x: Tensor, count: int, reverse: bool) -> Tensor:
    """For each token the `count` that end with it, or begin with it if `reverse`: (B, E, L, count)."""
    return F.pad(x, (0, count - 1) if reverse else (count - 1, 0)).unfold(-1, count, 1)
