"""The CUDA kernels of the package mamba-ssm, through its extension module `selective_scan_cuda`.

- Never needed: `triton` comes first, and this is there to compare with. What counts is the extension module: the
  package also imports without it, and brings much else. `environment.cuda.post-deploy.sh` compiles it alone.
- Its kernels scan forward only and want tokens contiguous, so `reverse` flips the inputs.
- u, delta, B, C and z go in with the dtype of u (float32, float16 or bfloat16), A, D and the bias in float32.
- Nothing is kept: the backward runs the forward kernel again, for what its own kernel wants of it. That adds up
  gradients with atomics, so their last digits differ from run to run.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ssp.scan.interface import TENSORS, Grads, ScanArgs, flip_grads, flip_tokens


@cache
def unavailable() -> str | None:
    """It needs the extension module and a GPU."""
    if find_spec("selective_scan_cuda") is None:
        return "the extension module of mamba-ssm, selective_scan_cuda, is not installed"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    try:
        import selective_scan_cuda  # noqa: F401
    except Exception as error:  # a broken build fails in many ways, from ImportError to OSError
        return f"selective_scan_cuda does not import ({type(error).__name__}: {error})".splitlines()[0]
    return None


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It takes float32 and half precision on a GPU."""
    if device.type != "cuda":
        return f"its kernels need CUDA tensors, not {device.type}"
    return None if dtype == torch.float32 else f"its kernels have no {str(dtype).removeprefix('torch.')}"


def prepare(args: ScanArgs) -> ScanArgs:
    """Tokens in the dtype of u, weights in float32, both contiguous (the kernels' own conditions)."""
    weights = ("A", "D", "delta_bias")
    dtypes = [torch.float32 if name in weights else args.u.dtype for name in TENSORS]
    tensors = zip(args[:8], dtypes, strict=True)
    return ScanArgs(*(x if x is None else x.to(dtype).contiguous() for x, dtype in tensors), *args[8:])


def kernel_inputs(args: ScanArgs) -> tuple[Tensor | None, ...]:
    """The eight tensors as the kernels take them: B and C are (B, groups, N, L), here of one group."""
    return tuple(args._replace(B=args.B[:, None], C=args.C[:, None])[:8])


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, None]:
    """Y (B, D, L); nothing is kept."""
    import selective_scan_cuda

    if args.reverse:
        return forward(flip_tokens(args), keep)[0].flip(-1), None
    ungated, _states, *gated = selective_scan_cuda.fwd(*kernel_inputs(args), args.delta_softplus)
    return gated[0] if gated else ungated, None


def backward(grad_y: Tensor, args: ScanArgs, kept: None, needs: Grads) -> Grads:
    """All gradients (the kernel computes them in any case)."""
    import selective_scan_cuda

    if args.reverse:
        return flip_grads(backward(grad_y.flip(-1), flip_tokens(args), kept, needs))
    inputs = kernel_inputs(args)
    ungated, states, *_ = selective_scan_cuda.fwd(*inputs, args.delta_softplus)
    out = None if args.z is None else ungated
    found = selective_scan_cuda.bwd(*inputs, grad_y.contiguous(), states, out, None, args.delta_softplus, False)
    u, delta, A, B, C, D, bias = found[:7]
    z = None if args.z is None else found[7]
    return Grads(u, delta, A, B[:, 0], C[:, 0], D, z, bias)
