"""FLOPs of a forward pass, counted operator by operator while a model without numbers runs it (torch's meta device).

- What is counted is what the model does: rows that a method adds, its own modules, weights that it makes anew in each
  pass (LoRA's product), and both scans, which counters that know PyTorch's operators alone miss.
- Products (linear layers, convolutions): 2 for each multiply-add, by torch's own formulas, and 1 for each bias added.
  Of the mixer's causal convolution only outputs that are kept count, as the kernels compute no other.
- Scans: `ssp.scan.shapes.scan_flops`.
- Everything else (norms, gates, sums of streams): 1 for each element that an elementwise operator gives, whichever it
  is (a sum, an exponential, a SiLU), and 1 for each element that a sum, mean or maximum reads. A softmax is 5 an
  element (maximum, difference, exponential, sum, quotient), a Fourier transform of n numbers 5 n log2 n, of reals half.
- Copying, casting, ordering and choosing are nothing.
- The count depends on no device, no precision and no backend of the scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from ssp.errors import SSPError
from ssp.scan import shapes  # noqa: F401 - registers the scan and its formula

if TYPE_CHECKING:
    from torch._ops import OpOverload

    from ssp.backbone.videomamba import VideoMamba

aten = torch.ops.aten


class UncountedOperator(SSPError):
    """A model runs an operator whose FLOPs nobody has said."""


@torch.no_grad()
def forward_flops(model: VideoMamba) -> int:
    """FLOPs of logits for one clip, as in evaluation.

    Args:
        model: built under `torch.device("meta")`, with whatever a method has attached.

    Raises:
        UncountedOperator: the model runs an operator that has no formula here; the message names it.
    """
    clip = torch.empty(1, 3, model.bare_layout.frames, *model.img_size, device="meta")
    training, counter = model.training, _Counter()
    with counter:
        model.eval()(clip)
    model.train(training)
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up the FLOPs of all operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, operator: OpOverload, types: object, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Run an operator, and count it."""
        out = operator(*args, **(kwargs or {}))
        self.total += _flops(operator, args, kwargs or {}, out)
        return out


def _flops(operator: OpOverload, args: tuple, kwargs: dict[str, Any], out: object) -> int:
    packet = operator.overloadpacket
    if operator.is_view or packet in _NOTHING:
        return 0
    if packet in _FORMULAS:
        return _FORMULAS[packet](args, out)
    if packet in flop_registry:
        bias = out.numel() if packet in (aten.addmm, aten.baddbmm) else 0
        return flop_registry[packet](*args, **kwargs, out_val=out) + bias
    if torch.Tag.pointwise in operator.tags:
        return out.numel()
    if torch.Tag.reduction in operator.tags:
        return args[0].numel()
    raise UncountedOperator(f"operator {packet} has no count of FLOPs; give it one in {__name__}")


def _convolution(args: tuple, out: torch.Tensor) -> int:
    x, weight, bias, _, padding, _, transposed, _, groups = args
    shape = list(out.shape)
    if x.dim() == 3 and groups == x.shape[1] and list(padding) == [weight.shape[-1] - 1]:
        shape[-1] = x.shape[-1]  # causal: padded on both sides, and one of them is cut off
    places = math.prod(shape) if bias is not None else 0
    return conv_flop_count(list(x.shape), list(weight.shape), shape, transposed) + places


def _fourier(args: tuple, out: torch.Tensor) -> float:
    x, axes = args[:2]
    whole = 5 * x.numel() * math.log2(math.prod(x.shape[axis] for axis in axes))
    return round(whole if x.is_complex() else whole / 2)


_FORMULAS: dict[Any, Callable[[tuple, Any], int]] = {
    aten.convolution: _convolution,
    aten.mv: lambda args, out: 2 * args[0].numel(),
    aten._softmax: lambda args, out: 5 * out.numel(),
    aten._safe_softmax: lambda args, out: 5 * out.numel(),
    aten._prelu_kernel: lambda args, out: out.numel(),
    aten.avg_pool2d: lambda args, out: args[0].numel(),
    aten._fft_r2c: _fourier,
    aten._fft_c2c: _fourier,
}
_NOTHING = {
    getattr(aten, name)
    for name in (
        *("_to_copy", "_unsafe_view", "arange", "cat", "clone", "constant_pad_nd", "copy_", "empty", "empty_like"),
        *(
            "eye",
            "fill_",
            "flip",
            "gather",
            "index",
            "index_copy",
            "index_put",
            "index_select",
            "new_empty",
            "new_full",
        ),
        *("new_zeros", "ones_like", "promote_types", "sort", "stack", "topk", "zero_", "zeros", "zeros_like"),
    )
}
