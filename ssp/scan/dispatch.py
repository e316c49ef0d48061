"""The one place that knows all scan backends, chooses between them and says why.

- Order of preference: on a CPU `cpu` (C kernels), on a GPU `triton` and `mamba_ssm` (kernels), anywhere `chunked` and
  `reference`: the first that is usable here and takes the dtype and device. `chunked` takes everything, so the
  automatic choice never fails.
- Overrides: `backend=` (must be usable and fit, else `BackendError`), then the environment variable
  SSP_SCAN_BACKEND (must be usable; where it does not fit a dtype or device the automatic choice steps in).
- Tensors on the meta device, which has no numbers, go to `shapes` whatever is asked for; it is no choice elsewhere.
- Said once each: the choice, by logging; a GPU or a CPU left without its kernel, as a warning, because everything
  then takes many times as long.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ssp.scan.function import ScanFunction
from ssp.scan.interface import BackendError, ScanArgs, arithmetic_dtype, both_forward, check_args

BACKENDS = ("cpu", "triton", "mamba_ssm", "chunked", "reference")
KERNELS = {"cpu": ("cpu",), "cuda": ("triton", "mamba_ssm")}  # what is fast, by device
META = "shapes"
VARIABLE = "SSP_SCAN_BACKEND"
log = logging.getLogger("ssp.scan")
_said: set[str] = set()


class BackendChoice(NamedTuple):
    """Name of the backend, and the sentence that says why it was taken."""

    name: str
    reason: str


def load(name: str) -> ModuleType:
    """The module of a backend; BackendError for an unknown name."""
    if name not in (*BACKENDS, META):
        raise BackendError(f"unknown scan backend {name!r}; there are: {', '.join(BACKENDS)}")
    return import_module(f"ssp.scan.{name}")


def available_backends() -> list[str]:
    """Names of the backends usable on this machine, in order of preference."""
    return [name for name in BACKENDS if load(name).unavailable() is None]


def _obstacle(name: str, dtype: torch.dtype, device: torch.device) -> str | None:
    module = load(name)
    return module.unavailable() or module.unsupported(dtype, device)


def choose_backend(
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", backend: str | None = None
) -> BackendChoice:
    """Choose the backend for tensors of a dtype on a device.

    `dtype` half precision counts as float32, which is what it is computed in. `backend` insists on one:
    BackendError, in one line, when it is unknown, unusable here or cannot take the tensors. The environment variable
    SSP_SCAN_BACKEND insists likewise, except that it yields where it does not fit the dtype or device.
    """
    device = torch.device(device)
    dtype = dtype if dtype == torch.float64 else torch.float32
    return _choose(dtype, device, backend, os.environ.get(VARIABLE))


@cache
def _choose(dtype: torch.dtype, device: torch.device, backend: str | None, wanted: str | None) -> BackendChoice:
    if device.type == "meta":
        return BackendChoice(META, "the meta device has no numbers")
    if backend is not None:
        obstacle = _obstacle(backend, dtype, device)
        if obstacle:
            raise BackendError(f"scan backend {backend!r} cannot be used: {obstacle}")
        return _say(BackendChoice(backend, "asked for by argument"), dtype, device)
    passed = []
    if wanted:
        missing = load(wanted).unavailable()
        if missing:
            raise BackendError(f"{VARIABLE}={wanted}: scan backend {wanted!r} cannot be used: {missing}")
        unfit = load(wanted).unsupported(dtype, device)
        if unfit is None:
            return _say(BackendChoice(wanted, f"asked for by {VARIABLE}"), dtype, device)
        passed.append(f"{VARIABLE}={wanted} does not fit: {unfit}")
    for name in BACKENDS:
        obstacle = _obstacle(name, dtype, device)
        if obstacle is None:
            why = f"first that fits {str(dtype).removeprefix('torch.')} on {device.type}"
            choice = BackendChoice(name, "; ".join([why, *passed]))
            _warn_if_slow(choice, dtype, device)
            return _say(choice, dtype, device)
        if name != wanted:
            passed.append(f"not {name}: {obstacle}")
    raise AssertionError("the reference backend takes everything")


def _say(choice: BackendChoice, dtype: torch.dtype, device: torch.device) -> BackendChoice:
    line = f"scan backend for {dtype} on {device.type}: {choice.name} ({choice.reason})"
    if line not in _said:
        _said.add(line)
        log.info(line)
    return choice


def _warn_if_slow(choice: BackendChoice, dtype: torch.dtype, device: torch.device) -> None:
    kernels = KERNELS.get(device.type, ())
    if not kernels or dtype == torch.float64 or choice.name in kernels or device.type in _said:
        return
    _said.add(device.type)
    warnings.warn(
        f"no accelerated selective scan on {device.type}: {load(kernels[0]).unavailable()}. "
        f"Using {choice.name!r}, which is many times slower.",
        RuntimeWarning,
        stacklevel=4,
    )


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    *,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Selective state-space scan (Gu and Dao, 2023), differentiable once in all tensors.

    With d = softplus(delta + delta_bias), or without softplus if `delta_softplus` is false:
    h_t = exp(d_t A) h_(t-1) + d_t B_t u_t and y_t = (C_t . h_t + D u_t) silu(z_t).

    Shapes: u, delta, z (B, D, L); A (D, N), negative; B, C (B, N, L); D, delta_bias (D,). Any strides; a transposed
    view of channel-last storage is the fastest. Returns y (B, D, L) in the dtype of u.
    `reverse` scans from the last token to the first. `backend` insists on one backend (see `choose_backend`).
    Raises ValueError for shapes or devices that do not fit together, BackendError for a backend that cannot be used.
    """
    return _run([ScanArgs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)], backend)[0]


def both(forward: ScanArgs, backward: ScanArgs) -> tuple[Tensor, Tensor]:
    """The two scans of a bidirectional mixer, differentiable like `selective_scan`; at once where a backend can.

    Returns y (B, D, L) of each.
    """
    if forward.u.device == backward.u.device and arithmetic_dtype(forward) == arithmetic_dtype(backward):
        return _run([forward, backward])
    return *_run([forward]), *_run([backward])


def _run(scans: Sequence[ScanArgs], backend: str | None = None) -> tuple[Tensor, ...]:
    """Y of scans whose arithmetic is in one dtype on one device: one, or two."""
    for args in scans:
        check_args(args)
    module = load(choose_backend(arithmetic_dtype(scans[0]), scans[0].u.device, backend).name)
    tensors = [tensor for args in scans for tensor in args[:8]]
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return ScanFunction.apply(module, tuple((args.delta_softplus, args.reverse) for args in scans), *tensors)
    prepared = [module.prepare(args) for args in scans]
    ys = [module.forward(prepared[0], False)[0]] if len(scans) == 1 else both_forward(module, prepared, False)[0]
    return tuple(y.to(args.u.dtype) for y, args in zip(ys, scans, strict=True))
