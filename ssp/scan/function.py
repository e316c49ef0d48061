"""Autograd around a backend's forward and backward, once for all of them.

- Inputs that need no gradient cost none: the backend is told what is wanted.
- Only the inputs and what the backend keeps (chunk states) are held for the backward, never L states.
"""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ssp.scan.interface import TENSORS, Grads, ScanArgs


class ScanFunction(torch.autograd.Function):
    """`ScanFunction.apply(backend, delta_softplus, reverse, *eight tensors or None)`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, backend: ModuleType, delta_softplus: bool, reverse: bool, *tensors: Tensor | None
    ) -> Tensor:
        """Run the backend; keep what its backward wants if a gradient can be asked for."""
        args = ScanArgs(*tensors, delta_softplus, reverse)
        y, kept = backend.forward(backend.prepare(args), keep=True)
        ctx.backend, ctx.flags = backend, (delta_softplus, reverse)
        ctx.save_for_backward(kept, *tensors)
        return y.to(args.u.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_y: Tensor) -> tuple:
        """Gradients in the dtype of each input, None where not needed."""
        kept, *tensors = ctx.saved_tensors
        needs = Grads(*ctx.needs_input_grad[3:])
        args = ctx.backend.prepare(ScanArgs(*tensors, *ctx.flags))
        grads = ctx.backend.backward(grad_y.to(args.u.dtype), args, kept, needs)
        cast = [
            None if grad is None or not getattr(needs, name) else grad.to(tensor.dtype)
            for name, grad, tensor in zip(TENSORS, grads, tensors, strict=True)
        ]
        return None, None, None, *cast
