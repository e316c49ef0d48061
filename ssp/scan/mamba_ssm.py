"""The CUDA kernels of the package mamba-ssm, through its public `selective_scan_fn`.

- Never needed: `triton` comes first. The package is looked for when the scan is first chosen, and imported when it is
  first used; what counts is its extension module, `selective_scan_cuda`.
- On the plain path its own autograd function is used as it is. The forward and backward pair for the frozen mixer
  keeps nothing: its backward runs the kernel's forward again and differentiates that.
- Its kernels scan forward only and want tokens contiguous, so `reverse` flips the inputs.
- u, delta, B, C and z go in with the dtype of u (float32, float16 or bfloat16), A, D and the bias in float32.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ssp.scan.interface import TENSORS, Grads, ScanArgs, flip_grads, flip_tokens


@cache
def unavailable() -> str | None:
    """It needs the package and a GPU."""
    if find_spec("mamba_ssm") is None:
        return "the package mamba-ssm is not installed"
    if find_spec("selective_scan_cuda") is None:  # the package also imports without its kernels
        return "mamba-ssm is installed without its kernels (no extension module selective_scan_cuda)"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    try:
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except Exception as error:  # a broken build fails in many ways, from ImportError to OSError
        return f"mamba-ssm does not import ({type(error).__name__}: {error})".splitlines()[0]
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


def differentiable(args: ScanArgs) -> Tensor:
    """Y (B, D, L) with the autograd function of mamba-ssm."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    if args.reverse:
        return differentiable(flip_tokens(args)).flip(-1)
    return selective_scan_fn(*args[:8], args.delta_softplus)


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, None]:
    """Y (B, D, L); nothing is kept."""
    with torch.no_grad():
        return differentiable(args), None


def backward(grad_y: Tensor, args: ScanArgs, kept: None, needs: Grads) -> Grads:
    """Gradients where needed, by the kernel's own backward."""
    if args.reverse:
        return flip_grads(backward(grad_y.flip(-1), flip_tokens(args), kept, needs))
    with torch.enable_grad():
        pairs = zip(TENSORS, args[:8], needs, strict=True)
        tensors = {name: x if x is None else x.detach().requires_grad_(bool(need)) for name, x, need in pairs}
        wanted = {name: x for name, x in tensors.items() if x is not None and x.requires_grad}
        y = differentiable(args._replace(**tensors))
        return Grads(**dict(zip(wanted, torch.autograd.grad(y, list(wanted.values()), grad_y), strict=True)))
