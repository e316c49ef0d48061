"""What a scan backend is, and the checks that all of them share.

- A backend is a module with four functions (`Backend`): a forward that may keep states, and a backward that takes
  them. Autograd is wrapped around the pair once, in `function.py`; the frozen mixer calls the pair directly.
- The operation, with d = softplus(delta + delta_bias) and states h (B, D, N) from zero (Gu and Dao, 2023, eq. 2-4):
  h_t = exp(d_t A) h_(t-1) + d_t B_t u_t ;  y_t = (C_t . h_t + D u_t) silu(z_t). `reverse` runs t from L-1 to 0.
- Arithmetic is in float32, or float64 as soon as one input is float64; y has the dtype of u.
- Storage is the caller's business: the shapes are channel-first, and a transposed view of a channel-last tensor is
  as welcome as a contiguous one (the C kernel reads it without a copy).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class BackendError(ValueError):
    """The scan backend asked for does not exist, is not usable here, or cannot take these tensors."""


class ScanArgs(NamedTuple):
    """Inputs of one scan; the first eight are the tensors, in the order of their gradients."""

    u: Tensor  # (B, D, L)
    delta: Tensor  # (B, D, L)
    A: Tensor  # (D, N), negative
    B: Tensor  # (B, N, L)
    C: Tensor  # (B, N, L)
    D: Tensor | None = None  # (D,)
    z: Tensor | None = None  # (B, D, L)
    delta_bias: Tensor | None = None  # (D,)
    delta_softplus: bool = True
    reverse: bool = False


TENSORS = ScanArgs._fields[:8]


class Grads(NamedTuple):
    """Gradients of the eight tensors of `ScanArgs`; None where not asked for."""

    u: Tensor | None = None
    delta: Tensor | None = None
    A: Tensor | None = None
    B: Tensor | None = None
    C: Tensor | None = None
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None


class Backend(Protocol):
    """The functions that a backend module has.

    It may also have
    - `backward_into(grad_y, args, kept, needs, grad_z, add_z)`, a backward that writes z's gradient where it is wanted;
    - `forward_both` and `backward_both`, with the signatures of `both_forward` and `both_backward`: the two scans of a
      bidirectional mixer at once.
    """

    def unavailable(self) -> str | None:
        """Why it cannot be used on this machine, or None when it can."""

    def unsupported(self, dtype: torch.dtype, device: torch.device) -> str | None:
        """Why it cannot take tensors of this dtype (of the arithmetic) on this device, or None when it can."""

    def prepare(self, args: ScanArgs) -> ScanArgs:
        """The inputs in the dtypes that forward and backward take (mostly `in_arithmetic_dtype`)."""

    def forward(self, args: ScanArgs, keep: bool) -> tuple[Tensor, Tensor | None]:
        """Y (B, D, L), and the tensor that `backward` wants kept, if any (None when not `keep`)."""

    def backward(self, grad_y: Tensor, args: ScanArgs, kept: Tensor | None, needs: Grads) -> Grads:
        """Gradients where `needs` is true; each has its input's shape."""


def both_forward(
    backend: Backend, args: Sequence[ScanArgs], keep: bool
) -> tuple[tuple[Tensor, Tensor], list[Tensor | None]]:
    """Run a forward and a backward scan on prepared inputs, at once where the backend can.

    Returns:
        Y (B, D, L) of each, and what each keeps.
    """
    if hasattr(backend, "forward_both"):
        return backend.forward_both(args, keep)
    (first, kept), (second, kept_too) = (backend.forward(each, keep) for each in args)
    return (first, second), [kept, kept_too]


def both_backward(
    backend: Backend,
    grad_y: Sequence[Tensor],
    args: Sequence[ScanArgs],
    kept: Sequence[Tensor | None],
    needs: Sequence[Grads],
    grad_z: Tensor | None = None,
) -> list[Grads]:
    """Backward of `both_forward`.

    Args:
        backend: the module that ran the forward.
        grad_y: gradient (B, D, L) of each output.
        args: prepared inputs of each.
        kept: what each forward kept.
        needs: which gradients are wanted of each.
        grad_z: where the sum of both gradients of z is written, (B, D, L), in any dtype, if the scans share their gate
            and both want its gradient.

    Returns:
        The gradients of each; what they say of z is to be ignored if `grad_z` is given.
    """
    grad_y = [grad.to(each.u.dtype) for grad, each in zip(grad_y, args, strict=True)]
    if hasattr(backend, "backward_both"):
        return backend.backward_both(grad_y, args, kept, needs, grad_z)
    found = []
    for index, (grad, each, states, need) in enumerate(zip(grad_y, args, kept, needs, strict=True)):
        if grad_z is not None and hasattr(backend, "backward_into") and grad_z.dtype == each.z.dtype:
            found.append(backend.backward_into(grad, each, states, need, grad_z, index > 0))
            continue
        found.append(backend.backward(grad, each, states, need))
        if grad_z is not None and index:
            grad_z.add_(found[-1].z)
        elif grad_z is not None:
            grad_z.copy_(found[-1].z)
    return found


def check_args(args: ScanArgs) -> None:
    """Raise a ValueError that names the argument and the shapes when they do not fit together."""
    u, A = args.u, args.A
    if u.dim() != 3 or 0 in u.shape:
        raise ValueError(f"selective_scan: u must be (batch, channels, tokens), none of them 0, got {tuple(u.shape)}")
    batch, channels, tokens = u.shape
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] < 1:
        raise ValueError(f"selective_scan: A must be (D, N) with D={channels} channels of u, got {tuple(A.shape)}")
    states = A.shape[1]
    wanted = {
        "delta": (batch, channels, tokens),
        "B": (batch, states, tokens),
        "C": (batch, states, tokens),
        "D": (channels,),
        "z": (batch, channels, tokens),
        "delta_bias": (channels,),
    }
    for name, shape in wanted.items():
        value = getattr(args, name)
        if value is None and name in ("D", "z", "delta_bias"):
            continue
        if tuple(value.shape) != shape:
            raise ValueError(
                f"selective_scan: {name} must be {shape} for u {tuple(u.shape)} and A {tuple(A.shape)}, "
                f"got {tuple(value.shape)}"
            )
    for name in TENSORS:
        value = getattr(args, name)
        if value is None:
            continue
        if not value.is_floating_point():
            raise ValueError(f"selective_scan: {name} must be a real floating-point tensor, got {value.dtype}")
        if value.device != u.device:
            raise ValueError(f"selective_scan: {name} is on {value.device}, but u is on {u.device}")


def arithmetic_dtype(args: ScanArgs) -> torch.dtype:
    """float64 when an input is float64, float32 otherwise (half precision is computed in float32)."""
    tensors = (getattr(args, name) for name in TENSORS)
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def in_arithmetic_dtype(args: ScanArgs) -> ScanArgs:
    """The same inputs with all tensors in the dtype of the arithmetic; those that are already are not copied."""
    dtype = arithmetic_dtype(args)
    return ScanArgs(*(tensor if tensor is None else tensor.to(dtype) for tensor in args[:8]), *args[8:])


def channel_last(x: Tensor | None) -> Tensor | None:
    """The same (B, rows, L) tensor with neighbouring rows next to each other in memory."""
    if x is None or x.stride(1) == 1 or x.shape[1] == 1:
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def flip_tokens(args: ScanArgs) -> ScanArgs:
    """The forward scan that equals this reverse one, on inputs with the tokens in the opposite order."""
    flipped = {name: getattr(args, name).flip(-1) for name in ("u", "delta", "B", "C")}
    return args._replace(**flipped, z=None if args.z is None else args.z.flip(-1), reverse=False)


def flip_grads(grads: Grads) -> Grads:
    """Gradients of `flip_tokens`' outcome, back in the order of its input."""
    names = ("u", "delta", "B", "C", "z")
    found = {name: getattr(grads, name) for name in names}
    return grads._replace(**{name: None if grad is None else grad.flip(-1) for name, grad in found.items()})
