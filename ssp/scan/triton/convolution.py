"""Causal depthwise convolution with SiLU on a GPU, with the signatures of the C kernels' (`ssp.scan.cpu`).

- cuDNN wants channels first: PyTorch's convolution would copy (x, z) on the way in and out, and its transposed one of
  the backward is slow for depthwise filters. These read channel-last storage as it lies, in one launch each way.
- float32, float16 or bfloat16 in and out, float32 inside. Deterministic: sums for weight and bias are stored by each
  program and added up in order.
"""

from typing import Any

import torch
from torch import Tensor

from ssp.scan.interface import channel_last
from ssp.scan.triton.launch import Launch

TOKENS, WIDTH = 32, 64  # of a program


def takes(*tensors: Tensor | None) -> bool:
    """Whether these dtypes are among its own; the device is the scan's business."""
    return all(x is None or x.dtype in (torch.float32, torch.float16, torch.bfloat16) for x in tensors)


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """SiLU of the causal depthwise convolution of x (B, E, L) with weight (E, 1, K); looks ahead if `reverse`."""
    launch, y = forward_launch(x, weight, bias, reverse)
    launch.run()
    return y


def conv_silu_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool,
    grad_x: Tensor | None = None,
    add: bool = False,
    of_weight: bool = False,
    of_bias: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Write, or add, the gradient of x into `grad_x` (channel-last storage); return those of weight and bias."""
    launch, parts = backward_launch(grad_y, x, weight, bias, reverse, grad_x, add, of_weight or of_bias)
    launch.run()
    sums = None if parts is None else parts.sum((0, 1))
    return (
        sums[:-1].t().reshape(weight.shape) if of_weight else None,
        sums[-1] if of_bias else None,
    )


def forward_launch(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> tuple[Launch, Tensor]:
    """What a forward starts, and its output (B, E, L) in channel-last storage."""
    from ssp.scan.triton.convolution_kernels import conv_silu

    x = channel_last(x)
    batch, channels, tokens = x.shape
    y = x.new_empty(batch, tokens, channels).transpose(1, 2)
    args = _shared(x, weight, bias, reverse) | {"y": y, "y_clip": y.stride(0), "y_token": y.stride(2)}
    return Launch(conv_silu, _grid(x), args, _options(weight)), y


def backward_launch(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reverse: bool,
    grad_x: Tensor | None,
    add: bool,
    of_weights: bool,
) -> tuple[Launch, Tensor | None]:
    """What a backward starts, and the sums of its programs (B, programs of a clip, K + 1, E), the bias' last."""
    from ssp.scan.triton.convolution_kernels import conv_silu_backward

    x, grad_y = channel_last(x), channel_last(grad_y)
    grid, taps = _grid(x), weight.shape[-1]
    parts = None
    if of_weights:
        parts = x.new_empty(grid[2], grid[1], taps + 1, x.shape[1], dtype=torch.float32)
    out = x if grad_x is None else grad_x
    args = _shared(x, weight, bias, reverse) | {
        **{"grad_y": grad_y, "grad_clip": grad_y.stride(0), "grad_token": grad_y.stride(2)},
        **{"grad_x": grad_x, "out_clip": out.stride(0), "out_token": out.stride(2), "parts": parts},
    }
    return Launch(conv_silu_backward, grid, args, _options(weight) | {"ADD": add}), parts


def _shared(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> dict[str, Any]:
    _, channels, tokens = x.shape
    return {
        **{"x": x, "weight": weight.contiguous(), "bias": None if bias is None else bias.contiguous()},
        **{"L": tokens, "E": channels, "x_clip": x.stride(0), "x_token": x.stride(2), "reverse": int(reverse)},
    }


def _grid(x: Tensor) -> tuple[int, int, int]:
    batch, channels, tokens = x.shape
    return -(-channels // WIDTH), -(-tokens // TOKENS), batch


def _options(weight: Tensor) -> dict[str, Any]:
    return {"TAPS": weight.shape[-1], "TOKENS": TOKENS, "WIDTH": WIDTH, "num_warps": 4, "num_stages": 1}
