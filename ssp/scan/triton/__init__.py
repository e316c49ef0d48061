"""Kernels of our own for GPUs, in Triton: forward and backward, both directions of a mixer in one launch.

- Triton comes with PyTorch's CUDA wheels. It is looked for when a scan is first chosen, and imported where there is a
  GPU; or where TRITON_INTERPRET=1 has its interpreter run the same kernels on CPU tensors, slowly, for tests.
- Channel-last storage is read as it lies, z also as a part of something wider; anything else is copied once. float32,
  float16 and bfloat16 go in and come out; states, sums and exponentials are in float32.
- Kept for the backward: the state before every EVERY-th token. The backward goes through such a chunk twice: forward,
  to leave every second state in memory near by, then backward, from two tokens to two, with their states in registers.
- Deterministic: what programs of different channels and clips contribute to a gradient is stored and then added up,
  without atomics.
"""

import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssp.scan.interface import Grads, ScanArgs, channel_last
from ssp.scan.triton.launch import Launch

EVERY = 32  # tokens from one kept state to the next
TOKENS = {"forward": 8, "backward": 2}  # that are in flight together: divisors of EVERY, the backward's even
REGISTERS = 168  # of a thread, so that three warps fit on a scheduler: for up to 16 states that is no squeeze
OLDEST = (8, 0)  # compute capability


@cache
def unavailable() -> str | None:
    """It needs Triton and a GPU of the Ampere generation or later, or the interpreter."""
    if find_spec("triton") is None:
        return "the package triton is not installed (PyTorch's CUDA wheels bring it)"
    if _interpreted():
        return None
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    if torch.cuda.get_device_capability() < OLDEST:
        return f"it needs a GPU of compute capability {OLDEST[0]}.{OLDEST[1]}"
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # it compiles a helper at the first start, which fails in many ways
        return f"Triton does not start ({error}); it needs a C compiler and Python's headers".replace("\n", " ")
    return None


def _interpreted() -> bool:
    """Whether Triton is told to interpret kernels (as it reads the variable itself)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """It computes in float32, on a GPU or in the interpreter."""
    wanted = "cpu" if _interpreted() else "cuda"
    if device.type != wanted:
        return f"it takes {wanted} tensors, not {device.type}"
    return None if dtype == torch.float32 else f"it has no {str(dtype).removeprefix('torch.')}"


def prepare(args: ScanArgs) -> ScanArgs:
    """Tokens dense in channel-last storage, but for z and the small B and C, and weights contiguous; any dtypes."""
    dense = {name: _dense(getattr(args, name)) for name in ("u", "delta")}
    vectors = {
        name: None if x is None else x.contiguous() for name, x in (("D", args.D), ("delta_bias", args.delta_bias))
    }
    return args._replace(**dense, **vectors, z=channel_last(args.z))


def _dense(x: Tensor) -> Tensor:
    """The same (B, E, L) as a view of contiguous (B, L, E)."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


class Plan(NamedTuple):
    """How states and channels are cut up; functions of N and E alone."""

    tiles: tuple[tuple[int, int], ...]  # (first, size) of the tiles of states
    padded: int  # states in all tiles
    width: int  # channels of a program
    blocks: int  # programs for all channels

    @classmethod
    def of(cls, states: int, channels: int) -> "Plan":
        """Tiles of 32, then of what is left; fewer channels a program where many states would fill its registers."""
        padded = 4 * -(-states // 4)
        sizes = [32] * (padded // 32) + [size for size in (16, 8, 4) if padded % 32 & size]
        tiles = tuple((sum(sizes[:index]), size) for index, size in enumerate(sizes))
        width = 32 if padded <= 24 else 16 if padded <= 48 else 8
        return cls(tiles, padded, width, -(-channels // width))


def forward(args: ScanArgs, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Y (B, D, L) in channel-last storage, and the state before every EVERY-th token if `keep`."""
    (y,), (kept,) = _forward([args], keep)
    return y, kept


def backward(grad_y: Tensor, args: ScanArgs, kept: Tensor, needs: Grads) -> Grads:
    """Gradients where needed, those of whole tensors in their dtypes and sums in float32."""
    return _backward([grad_y], [args], [kept], needs)[0]


def forward_both(args: Sequence[ScanArgs], keep: bool) -> tuple[tuple[Tensor, Tensor], list[Tensor | None]]:
    """Two scans, in one launch if they are alike but for their direction."""
    if not _alike(*args):
        (first, kept), (second, kept_too) = (forward(each, keep) for each in args)
        return (first, second), [kept, kept_too]
    (first, second), kept = _forward(args, keep)
    return (first, second), kept


def backward_both(
    grad_y: Sequence[Tensor],
    args: Sequence[ScanArgs],
    kept: Sequence[Tensor],
    needs: Sequence[Grads],
    grad_z: Tensor | None,
) -> list[Grads]:
    """Backward of `forward_both`; see `both_backward`."""
    if _alike(*args) and grad_y[0].dtype == grad_y[1].dtype:
        either = Grads(*(one or other for one, other in zip(*needs, strict=True)))
        found = _backward(grad_y, args, kept, either)
    else:
        found = [backward(*each) for each in zip(grad_y, args, kept, needs, strict=True)]
    if grad_z is not None:
        torch.add(found[0].z, found[1].z, out=grad_z)
    return found


def _alike(first: ScanArgs, second: ScanArgs) -> bool:
    """Whether two prepared scans differ in their tensors' addresses and in their direction alone."""

    def kind(args: ScanArgs) -> list[object]:
        return [
            args.delta_softplus,
            *(None if x is None else (x.shape, x.stride(), x.dtype, x.device) for x in args[:8]),
        ]

    return kind(first) == kind(second)


def _pair(tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor] | None:
    """The tensor of the first scan and that of the last."""
    return None if tensors[0] is None else (tensors[0], tensors[-1])


def _rows(scans: Sequence[ScanArgs], plan: Plan) -> Launch:
    """The launch that packs B and C, with its output `rows` (ways, B, tokens in whole chunks, 2, padded)."""
    from ssp.scan.triton.kernels import pack

    batch, _, tokens = scans[0].u.shape
    chunks = -(-tokens // EVERY)
    rows = scans[0].u.new_empty(len(scans), batch, chunks * EVERY, 2, plan.padded, dtype=torch.float32)
    streams = {}
    for name in ("B", "C"):
        state, token, clip = (getattr(scans[0], name).stride(axis) for axis in (1, 2, 0))
        streams[name] = (_pair([getattr(scan, name) for scan in scans]), clip, token, state)
    args = {**streams, "rows": rows, "L": tokens, "N": scans[0].A.shape[1], **_ways(scans)}
    options = {"PADDED": plan.padded, "TOKENS": EVERY, "SIZE": 1 << (plan.padded - 1).bit_length(), "num_warps": 4}
    return Launch(pack, (chunks, batch, len(scans)), args, options)


def _ways(scans: Sequence[ScanArgs]) -> dict[str, int]:
    return {"rev0": int(scans[0].reverse), "rev1": int(scans[-1].reverse)}


def _shared(scans: Sequence[ScanArgs], plan: Plan, rows: Tensor) -> dict[str, Any]:
    """The arguments that forward and backward have in common."""
    first = scans[0]
    _, channels, tokens = first.u.shape
    stride = 0 if first.z is None else first.z.stride(2)
    if tokens * max(channels, plan.blocks * 2 * plan.padded, stride) >= 2**31:  # offsets within a clip have 32 bits
        raise ValueError(f"selective_scan: a clip of {tokens} tokens by {channels} channels is too large for triton")
    wide = plan.blocks * plan.width
    A = torch.stack([scan.A.t().float() for scan in scans])
    A = F.pad(A, (0, wide - channels, 0, plan.padded - A.shape[1]))
    z = None if first.z is None else (_pair([scan.z for scan in scans]), first.z.stride(0), stride)
    chunks = -(-tokens // EVERY)
    return {
        **{name: _pair([getattr(scan, name) for scan in scans]) for name in ("u", "delta", "D")},
        **{"z": z, "rows": rows, "A": A, "bias": _pair([scan.delta_bias for scan in scans])},
        **{"L": tokens, "E": channels, "wide": wide, "chunks": chunks, **_ways(scans)},
        **{"kept_block": chunks * plan.padded * plan.width, "kept_clip": chunks * plan.padded * wide},
    }


def _options(plan: Plan, scans: Sequence[ScanArgs], tokens: int) -> dict[str, Any]:
    return {
        **{"TILES": plan.tiles, "PADDED": plan.padded, "WIDTH": plan.width, "TOKENS": tokens, "EVERY": EVERY},
        **{"SOFTPLUS": scans[0].delta_softplus, "num_warps": 1, "num_stages": 1},
    }


def forward_launches(scans: Sequence[ScanArgs], keep: bool) -> tuple[list[Launch], Tensor, Tensor | None]:
    """What a forward starts, y (ways, B, L, E), and the kept states (ways, B, blocks, chunks, padded, width)."""
    from ssp.scan.triton.kernels import scan_forward

    batch, channels, tokens = scans[0].u.shape
    plan = Plan.of(scans[0].A.shape[1], channels)
    packing = _rows(scans, plan)
    args = _shared(scans, plan, packing.args["rows"])
    u = scans[0].u
    y = u.new_empty(len(scans), batch, tokens, channels)
    shape = (len(scans), batch, plan.blocks, args["chunks"], plan.padded, plan.width)
    kept = u.new_empty(shape, dtype=torch.float32) if keep else None
    grid = (plan.blocks, batch, len(scans))
    options = _options(plan, scans, TOKENS["forward"])
    return [packing, Launch(scan_forward, grid, args | {"y": y, "kept": kept}, options)], y, kept


def _forward(scans: Sequence[ScanArgs], keep: bool) -> tuple[list[Tensor], list[Tensor | None]]:
    launches, y, kept = forward_launches(scans, keep)
    for launch in launches:
        launch.run()
    return list(y.transpose(2, 3)), [None] * len(scans) if kept is None else list(kept)


def backward_launches(
    grad_y: Sequence[Tensor], scans: Sequence[ScanArgs], kept: Sequence[Tensor], needs: Grads
) -> tuple[list[Launch], dict[str, Tensor | None]]:
    """What a backward starts, and the gradients that it writes, (ways, B, ...), by the names of the kernel."""
    from ssp.scan.triton.kernels import scan_backward

    first = scans[0]
    batch, channels, tokens = first.u.shape
    plan, ways = Plan.of(first.A.shape[1], channels), len(scans)
    packing = _rows(scans, plan)
    args = _shared(scans, plan, packing.args["rows"])
    steps = EVERY // TOKENS["backward"]

    def new(*shape: int, like: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        return first.u.new_empty(ways, batch, *shape, dtype=dtype if like is None else like.dtype)

    found = {
        "grad_u": new(tokens, channels, like=first.u) if needs.u else None,
        "grad_delta": new(tokens, channels, like=first.delta) if needs.delta else None,
        "grad_z": new(tokens, channels, like=first.z) if needs.z and first.z is not None else None,
        "grad_A": new(plan.padded, args["wide"]) if needs.A else None,
        "parts": new(tokens, plan.blocks, 2, plan.padded) if needs.B or needs.C else None,
        "grad_D": new(channels) if needs.D and first.D is not None else None,
        "grad_bias": new(channels) if needs.delta_bias and first.delta_bias is not None else None,
    }
    args |= found
    args |= {"grad_y": _pair(grad_y), "kept": _pair(kept)}
    args["scratch"] = new(plan.blocks, steps, plan.padded, plan.width)
    args["scratch_block"] = steps * plan.padded * plan.width
    options = _options(plan, scans, TOKENS["backward"])
    if plan.padded <= 16 and not needs.A:
        options["maxnreg"] = REGISTERS
    launch = Launch(scan_backward, (plan.blocks, batch, ways), args, options)
    return [packing, launch], found


def _backward(grad_y: Sequence[Tensor], scans: Sequence[ScanArgs], kept: Sequence[Tensor], needs: Grads) -> list[Grads]:
    grad_y = [_dense(grad) for grad in grad_y]
    launches, found = backward_launches(grad_y, scans, kept, needs)
    for launch in launches:
        launch.run()
    channels, states = scans[0].A.shape
    of_A, parts, of_D, of_bias = (
        None if found[name] is None else found[name].sum(axis)
        for name, axis in (("grad_A", 1), ("parts", 3), ("grad_D", 1), ("grad_bias", 1))
    )
    u, delta, z = (
        None if x is None else x.transpose(2, 3) for x in (found[f"grad_{name}"] for name in ("u", "delta", "z"))
    )
    A = None if of_A is None else of_A[:, :states, :channels].transpose(1, 2)
    B, C = (parts[..., half, :states].transpose(2, 3) if need else None for half, need in enumerate((needs.B, needs.C)))
    columns = (u, delta, A, B, C, of_D, z, of_bias)
    return [Grads(*(None if x is None else x[way] for x in columns)) for way in range(len(scans))]
