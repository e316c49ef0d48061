"""C kernels for float32 on a CPU, called through ctypes: selective scan, and causal convolution with SiLU.

- Its library comes in the wheel or from `python -m ssp.scan.build`; a missing one is compiled at the first use into the
  user's cache, never at import. Without a compiler this backend is not available, and says what to run.
- The kernels read and write channel-last storage with any clip and token strides. Shapes stay channel-first here: a
  transposed view of a channel-last tensor costs nothing, anything else is copied once.
- `reverse` is a negative token stride. No flips.
- As many threads as PyTorch uses, from PyTorch's own OpenMP runtime (see entry.c); results do not depend on how many.
- SSP_SCAN_ISA = base, v3 or v4 lowers the instruction set, for tests.
"""

import ctypes
import logging
import os
import struct
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ssp.scan import build
from ssp.scan.interface import Grads, ScanArgs, channel_last, in_arithmetic_dtype

LEVELS = {"base": 1, "v3": 3, "v4": 4}
TASKS = 8  # tasks that a small batch is cut into; more would cost more partial sums
CHANNELS = 32  # tasks own multiples of this many channels
SMALL = 2**15  # states in all, below which one thread is faster than two
_ABSENT = (0, 0, 0)
log = logging.getLogger("ssp.scan")


@cache
def unavailable() -> str | None:
    """It needs a compiled library: the one that is there, or one that is compiled now."""
    try:
        if not build.is_built():
            log.info("compiling the scan for CPUs, once, into %s", build.cache_folder())
            build.build_in_cache()
    except build.BuildError as error:
        reason = str(error).splitlines()[0]
        return f"the C kernel is not built: {reason}; install a C compiler and run `python -m ssp.scan.build`"
    try:
        _library()
    except OSError as error:
        return f"the C kernel does not load ({error})"
    return None


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It computes in float32 on the CPU."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device.type}"
    return None if dtype == torch.float32 else f"it has no {str(dtype).removeprefix('torch.')}"


def prepare(args: ScanArgs) -> ScanArgs:
    """All tensors in float32."""
    return in_arithmetic_dtype(args)


def _openmp() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that PyTorch has loaded; None where there is no such."""
    bundled = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    loaded = []
    maps = Path("/proc/self/maps")
    if maps.exists():
        paths = {line.split(maxsplit=5)[-1] for line in maps.read_text(encoding="utf-8").splitlines() if "/" in line}
        loaded = sorted(path for path in paths if Path(path).name.startswith(("libgomp", "libiomp5", "libomp")))
    for path in [str(path) for path in bundled if str(path) in loaded] + loaded:
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build.find() or build.library()))
    library.ssp_setup.argtypes = [ctypes.c_void_p]
    library.ssp_setup(_openmp())
    for name in ("scan_forward", "scan_backward", "conv_forward", "conv_backward"):
        getattr(library, f"ssp_{name}").argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64]
    library.ssp_exp_rate.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]
    return library


def level() -> int:
    """x86-64 level in use: 4 (AVX-512), 3 (AVX2 with FMA) or 1 (plain, or another processor)."""
    return min(_library().ssp_level(), LEVELS[os.environ.get("SSP_SCAN_ISA", "v4")])


def _call(name: str, fields: list[int], work: int) -> None:
    threads = torch.get_num_threads() if work > SMALL else 1
    job = struct.pack(f"={len(fields)}q", *fields)
    if getattr(_library(), f"ssp_{name}")(job, threads, LEVELS[os.environ.get("SSP_SCAN_ISA", "v4")]):
        raise MemoryError(f"selective scan: no memory for the working space of {name}")


def _packed(x: Tensor | None) -> Tensor | None:
    return x if x is None else x.contiguous()


def _rows(x: Tensor | None, reverse: bool) -> tuple[int, int, int]:
    """Pointer to the first token of the scan, and strides, of a channel-last (B, rows, L) tensor."""
    if x is None:
        return _ABSENT
    clip, _, token = x.stride()
    if reverse:
        return x.data_ptr() + (x.shape[2] - 1) * token * 4, clip, -token
    return x.data_ptr(), clip, token


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _like(x: Tensor) -> Tensor:
    """New channel-last storage for a (B, rows, L) tensor."""
    batch, rows, tokens = x.shape
    return torch.empty(batch, tokens, rows).transpose(1, 2)


def _width(batch: int, channels: int) -> int:
    """Channels per task: about TASKS tasks if the batch alone does not make as many. Depends on shapes alone."""
    units = -(-channels // CHANNELS)
    return CHANNELS * -(-units // -(-TASKS // batch))


def _laid_out(args: ScanArgs) -> ScanArgs:
    """Inputs as the kernel reads them."""
    rows = {name: channel_last(getattr(args, name)) for name in ("u", "delta", "B", "C", "z")}
    vectors = {name: _packed(getattr(args, name)) for name in ("A", "D", "delta_bias")}
    return args._replace(**rows, **vectors)


def _fields(args: ScanArgs, y: Tensor | None, kept: Tensor | None) -> list[int]:
    """The part of `scan_job` that forward and backward share."""
    batch, channels, tokens = args.u.shape
    fields = [batch, channels, tokens, args.A.shape[1], int(args.delta_softplus), _width(batch, channels)]
    for x in (args.u, args.delta, args.z, y, args.B, args.C):
        fields += _rows(x, args.reverse)
    return [*fields, _pointer(args.A), _pointer(args.D), _pointer(args.delta_bias), _pointer(kept)]


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Y (B, D, L) in channel-last storage, and the state before every chunk (B, chunks, N, D) if `keep`."""
    args = _laid_out(args)
    batch, channels, tokens = args.u.shape
    y = _like(args.u)
    chunks = -(-tokens // _library().ssp_chunk())
    kept = torch.empty(batch, chunks, args.A.shape[1], channels) if keep else None
    _call("scan_forward", _fields(args, y, kept) + [0] * 23, args.u.numel() * args.A.shape[1])
    return y, kept


def backward(grad_y: Tensor, args: ScanArgs, kept: Tensor, needs: Grads) -> Grads:
    """Gradients where needed."""
    return backward_into(grad_y, args, kept, needs, None, False)


def backward_into(
    grad_y: Tensor, args: ScanArgs, kept: Tensor, needs: Grads, grad_z: Tensor | None, add_z: bool
) -> Grads:
    """Gradients where needed. That of z is written, or added, into `grad_z` (channel-last storage) if given."""
    args, grad_y = _laid_out(args), channel_last(grad_y)
    batch, channels, tokens = args.u.shape
    states = args.A.shape[1]
    grad_u = _like(args.u) if needs.u else None
    grad_delta = _like(args.delta) if needs.delta else None
    if grad_z is None and needs.z and args.z is not None:
        grad_z = _like(args.z)
    parts = -(-channels // _width(batch, channels))
    partial = {name: torch.empty(parts, batch, tokens, states) for name in ("B", "C") if getattr(needs, name)}
    grad_B, grad_C = (partial[name][0].transpose(1, 2) if name in partial else None for name in ("B", "C"))
    grad_A = torch.empty(batch, channels, states) if needs.A else None
    grad_D = torch.empty(batch, channels) if needs.D and args.D is not None else None
    grad_bias = torch.empty(batch, channels) if needs.delta_bias and args.delta_bias is not None else None
    fields = _fields(args, None, kept)
    for x in (grad_y, grad_u, grad_delta, grad_z, grad_B, grad_C):
        fields += _rows(x, args.reverse)
    fields += [batch * tokens * states, _pointer(grad_A), _pointer(grad_D), _pointer(grad_bias), int(add_z)]
    _call("scan_backward", fields, args.u.numel() * states)
    sums = [x if x is None else x.sum(0) for x in (partial.get("B"), partial.get("C"), grad_A, grad_D, grad_bias)]
    grad_B, grad_C = (x if x is None else x.transpose(1, 2) for x in sums[:2])
    return Grads(grad_u, grad_delta, sums[2], grad_B, grad_C, sums[3], grad_z, sums[4])


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """SiLU of the causal depthwise convolution of x (B, E, L) with weight (E, 1, K); looks ahead if `reverse`."""
    x, weight, bias = channel_last(x), _packed(weight), _packed(bias)
    y = _like(x)
    fields = _conv_fields(x, y, weight, bias, reverse)
    _call("conv_forward", [*fields, *_ABSENT, 0, 0, 0], x.numel() * 8)
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
    x, grad_y, weight, bias = channel_last(x), channel_last(grad_y), _packed(weight), _packed(bias)
    fields = _conv_fields(x, grad_x, weight, bias, reverse)
    batch, channels, tokens = x.shape
    tasks = batch * -(-tokens // fields[4])
    grad_weight = torch.empty(tasks, *weight.shape) if of_weight else None
    grad_bias = torch.empty(tasks, channels) if of_bias else None
    fields += [*_rows(grad_y, reverse), int(add), _pointer(grad_weight), _pointer(grad_bias)]
    _call("conv_backward", fields, x.numel() * 16)
    return tuple(sums if sums is None else sums.sum(0) for sums in (grad_weight, grad_bias))


def _conv_fields(x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor | None, reverse: bool) -> list[int]:
    batch, channels, tokens = x.shape
    width = max(16, -(-tokens * batch // 16))
    sizes = [batch, channels, tokens, weight.shape[-1], width]
    return [*sizes, *_rows(x, reverse), *_rows(y, reverse), _pointer(weight), _pointer(bias)]


def exp_rate(bursts: int = 50) -> float:
    """Exponentials per second of one thread of the kernel's own exp, on cached values; best of short bursts."""
    values, rounds, level = torch.full((2048,), -0.5), 2000, LEVELS[os.environ.get("SSP_SCAN_ISA", "v4")]
    times = []
    for _ in range(bursts):
        start = time.perf_counter()
        _library().ssp_exp_rate(values.data_ptr(), len(values), rounds, level)
        times.append(time.perf_counter() - start)
    return len(values) * rounds / min(times)
