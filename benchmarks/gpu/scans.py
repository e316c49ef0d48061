"""The Triton scan and convolution: parity on poisoned memory, and times beside other kernels and the bounds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.device import HALF, Device
from ssp.backbone import mixer_layers
from ssp.scan import mamba_ssm, triton
from ssp.scan.dispatch import load
from ssp.scan.interface import TENSORS, Grads, ScanArgs, both_backward, both_forward
from ssp.scan.triton import convolution

FROZEN = Grads(u=True, delta=True, B=True, C=True, z=True)
EVERY = Grads(*[True] * len(TENSORS))
BOUNDS = {torch.float32: 1e-4, HALF: 2e-2}
TAPS = 4
VARIANTS = (
    {},
    {"EVERY": 16},
    {"EVERY": 64},
    {"TOKENS": {"forward": 4, "backward": 2}},
    {"TOKENS": {"forward": 16, "backward": 2}},
    {"TOKENS": {"forward": 8, "backward": 4}},
    {"REGISTERS": 255},
    {"REGISTERS": 128},
)


def scans(device: Device, batch: int, tokens: int, states: int, dtype: torch.dtype = HALF) -> list[ScanArgs]:
    """A mixer's two scans as it hands them over: z is half of (x, z), B and C are parts of the rows of x_proj."""
    generator, channels = device.generator(tokens), device.sizes.channels

    def rows(count: int) -> Tensor:
        made = torch.randn(batch, tokens, count, generator=generator, device=device.torch)
        return made.to(dtype).transpose(1, 2)

    xz, rank = rows(2 * channels), max(1, channels // 32)
    A = -torch.arange(1.0, states + 1, device=device.torch).repeat(channels, 1)
    D, bias = torch.randn(2, channels, generator=generator, device=device.torch)
    made = []
    for reverse in (False, True):
        projected = rows(rank + 2 * states)
        B, C = projected[:, rank : rank + states], projected[:, rank + states :]
        made.append(ScanArgs(rows(channels), rows(channels), A, B, C, D, xz[:, channels:], bias - 4, True, reverse))
    return made


@contextmanager
def poisoned() -> Iterator[None]:
    """Every tensor that is made without contents is full of NaN: what a kernel does not write, or reads too early."""

    def full(make: Callable[..., Tensor], *args, **options) -> Tensor:
        made = make(*args, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    new_empty, empty_like, empty = torch.Tensor.new_empty, torch.empty_like, torch.empty
    with (
        patch.object(torch.Tensor, "new_empty", lambda *args, **options: full(new_empty, *args, **options)),
        patch.object(torch, "empty_like", partial(full, empty_like)),
        patch.object(torch, "empty", partial(full, empty)),
    ):
        yield


def _worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference as a share of the largest value; NaN is the largest of all."""
    shares = [
        ((one.double() - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    ]
    return max(share if share == share else float("inf") for share in shares)


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


# ---- parity ---------------------------------------------------------------------------------------------------------


def parity(device: Device) -> Iterator[dict]:
    """The scan against the reference in float64: y and every gradient of both directions, and twice the same."""
    for batch, tokens, states, dtype in device.sizes.parity:
        made = [triton.prepare(each) for each in scans(device, batch, tokens, states, dtype)]
        grads = [torch.randn_like(each.u) for each in made]

        def compute(made: list[ScanArgs] = made, grads: list[Tensor] = grads) -> tuple[list, list]:
            with poisoned():
                ys, kept = both_forward(triton, made, keep=True)
                found = both_backward(triton, grads, made, kept, [EVERY, EVERY])
            return list(ys), [x for each in found for x in each]

        (ys, found), (ys_again, found_again) = compute(), compute()
        exact, of_exact = [], []
        for each, grad in zip(made, grads, strict=True):
            wide = ScanArgs(*(x.double() for x in each[:8]), *each[8:])
            y, kept = load("reference").forward(wide, True)
            exact.append(y)
            of_exact += load("reference").backward(grad.double(), wide, kept, EVERY)
        yield {
            **{"batch": batch, "tokens": tokens, "states": states, "dtype": str(dtype).removeprefix("torch.")},
            **{"worst_y": _worst(ys, exact), "worst_gradient": _worst(found, of_exact), "bound": BOUNDS[dtype]},
            "deterministic": _same([*ys, *found], [*ys_again, *found_again]),
        }


def _convolved(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """The formula, by PyTorch and its autograd."""
    return torch.nn.functional.silu(mixer_layers.convolve(x, weight, bias, reverse))


def conv(device: Device) -> Iterator[dict]:
    """The convolution, and PyTorch's beside it: each against float64, and its times, in the mixer's own layout."""
    batch, tokens = device.sizes.scans[0]
    for dtype, reverse in ((torch.float32, False), (HALF, False), (HALF, True)):
        channels, generator = device.sizes.channels, device.generator(0)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device.torch)

        xz = normal(batch, tokens, 2 * channels).to(dtype)
        x, grad = xz[..., :channels].transpose(1, 2), normal(batch, tokens, channels).to(dtype).transpose(1, 2)
        weight, bias = normal(channels, 1, TAPS), normal(channels)
        given = (x, weight.to(dtype), bias.to(dtype), reverse)
        into = torch.empty_like(xz).transpose(1, 2)[:, :channels]

        def ours(x=x, grad=grad, given=given, into=into) -> list[Tensor]:
            y = convolution.conv_silu(*given)
            return [y, into, *convolution.conv_silu_backward(grad, *given, into, of_weight=True, of_bias=True)]

        def theirs(given=given, grad=grad, dtype=dtype) -> list[Tensor]:
            leaves = [tensor.detach().requires_grad_() for tensor in given[:3]]
            y = _convolved(*leaves, given[3])
            return [y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))]

        expected = [
            tensor.detach() for tensor in theirs(tuple(x.double() for x in given[:3]) + given[3:], grad.double())
        ]
        into.fill_(float("nan"))
        with poisoned():
            found = [tensor.clone() for tensor in ours()]
            again = [tensor.clone() for tensor in ours()]
        leaf = x.detach().requires_grad_()
        y = _convolved(leaf, *given[1:])
        times = device.milliseconds(
            {
                "triton_forward": partial(convolution.conv_silu, *given),
                "triton_backward": partial(convolution.conv_silu_backward, grad, *given, into),
                "pytorch_forward": partial(_convolved, *given),
                "pytorch_backward": partial(torch.autograd.grad, y, leaf, grad, retain_graph=True),
            },
            device.sizes.rounds,
        )
        yield {
            **{"batch": batch, "tokens": tokens, "dtype": str(dtype).removeprefix("torch."), "reverse": reverse},
            **{"worst_y": _worst(found[:1], expected[:1]), "worst_gradient": _worst(found[1:], expected[1:])},
            **{"worst_pytorch": _worst(theirs(), expected), "bound": BOUNDS[dtype]},
            **{"deterministic": _same(found, again), "milliseconds": times},
        }


# ---- times ----------------------------------------------------------------------------------------------------------


def of_backend(backend: object, made: list[ScanArgs]) -> tuple[Callable, Callable]:
    """Forward and backward of both directions by a backend."""
    made = [backend.prepare(each) for each in made]
    _, kept = both_forward(backend, made, keep=True)
    grad = torch.randn_like(made[0].u)
    grad_z = torch.empty_like(made[0].z)
    return (
        partial(both_forward, backend, made, True),
        partial(both_backward, backend, [grad, grad], made, kept, [FROZEN, FROZEN], grad_z),
    )


def of_mamba_kernels(made: list[ScanArgs]) -> tuple[Callable, Callable]:
    """The kernels of mamba-ssm alone, both directions, what the forward keeps handed to the backward; no flips."""
    import selective_scan_cuda

    inputs = [mamba_ssm.kernel_inputs(mamba_ssm.prepare(each)) for each in made]
    grad = torch.randn_like(inputs[0][0])

    def forward() -> list:
        return [selective_scan_cuda.fwd(*each, True) for each in inputs]

    kept = forward()

    def backward() -> None:
        for each, (out, states, _) in zip(inputs, kept, strict=True):
            selective_scan_cuda.bwd(*each, grad, states, out, None, True, False)

    return forward, backward


def times(device: Device) -> Iterator[dict]:
    """Milliseconds of both directions of one mixer; the report adds the bounds."""
    sizes = device.sizes
    for batch, tokens in sizes.scans:
        made = scans(device, batch, tokens, sizes.states)
        contenders = {"triton": of_backend(triton, made)}
        if mamba_ssm.unavailable() is None:
            contenders["mamba_ssm"] = of_mamba_kernels(made)
        if (batch, tokens) == sizes.scans[-1]:
            contenders["chunked"] = of_backend(load("chunked"), made)
        rounds = min(3, sizes.rounds) if "chunked" in contenders else sizes.rounds
        elements = batch * tokens * sizes.channels
        for part, index, moved in (("forward", 0, 14), ("backward", 1, 22)):  # bytes: u, delta, y twice, z once; ...
            yield {
                **{"batch": batch, "tokens": tokens, "part": part},
                "milliseconds": device.milliseconds({name: pair[index] for name, pair in contenders.items()}, rounds),
                **{"bytes": elements * moved, "exponentials": 2 * elements * sizes.states},
            }


def variants(device: Device) -> Iterator[dict]:
    """Milliseconds with other constants than those that ship, which were chosen without a GPU."""
    made = scans(device, *device.sizes.scans[0], device.sizes.states)
    for constants in VARIANTS[:2] if device.dry else VARIANTS:
        with patch.multiple(triton, **constants) if constants else patch.multiple(triton, EVERY=triton.EVERY):
            forward, backward = of_backend(triton, made)
            found = device.milliseconds({"forward": forward, "backward": backward}, min(5, device.sizes.rounds))
        yield {"constants": constants, **found}
