"""Autograd around a backend's forward and backward, once for all of them: of one scan, or of a mixer's two.

- Inputs that need no gradient cost none: the backend is told what is wanted.
- Only the inputs and what the backend keeps (chunk states) are held for the backward, never L states.
"""

from types import ModuleType

from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, once_differentiable

from ssp.scan.interface import TENSORS, Grads, ScanArgs, both_backward, both_forward


class ScanFunction(Function):
    """`ScanFunction.apply(backend, flags, *tensors)`: y (B, D, L) of each scan.

    `flags` has (delta_softplus, reverse) of one scan, or of two, and `tensors` the eight of each, or None.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, backend: ModuleType, flags: tuple[tuple[bool, bool], ...], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Run the backend; keep what its backward wants if a gradient can be asked for."""
        args = [backend.prepare(each) for each in _scans(flags, tensors)]
        if len(args) == 1:
            y, kept = backend.forward(args[0], keep=True)
            ys, states = (y,), [kept]
        else:
            ys, states = both_forward(backend, args, keep=True)
        ctx.backend, ctx.flags = backend, flags
        ctx.save_for_backward(*states, *tensors)
        return tuple(y.to(each.u.dtype) for y, each in zip(ys, _scans(flags, tensors), strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grad_y: Tensor) -> tuple:
        """Gradients in the dtype of each input, None where not needed."""
        count = len(ctx.flags)
        saved = ctx.saved_tensors  # once: checkpointing lets each be unpacked a single time
        kept, tensors = saved[:count], saved[count:]
        args = [ctx.backend.prepare(each) for each in _scans(ctx.flags, tensors)]
        wanted = ctx.needs_input_grad[2:]
        needs = [Grads(*wanted[first : first + len(TENSORS)]) for first in range(0, len(wanted), len(TENSORS))]
        if count == 1:
            found = [ctx.backend.backward(grad_y[0].to(args[0].u.dtype), args[0], kept[0], needs[0])]
        else:
            found = both_backward(ctx.backend, grad_y, args, kept, needs)
        grads = [grad for each in found for grad in each]
        return (
            None,
            None,
            *(
                grad.to(tensor.dtype) if need and grad is not None else None
                for grad, tensor, need in zip(grads, tensors, wanted, strict=True)
            ),
        )


def _scans(flags: tuple[tuple[bool, bool], ...], tensors: tuple[Tensor | None, ...]) -> list[ScanArgs]:
    width = len(TENSORS)
    return [ScanArgs(*tensors[index * width : (index + 1) * width], *flag) for index, flag in enumerate(flags)]
