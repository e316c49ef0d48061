"""Selective scan: one function, several backends, one place that chooses.

- `selective_scan` is the operation, `both` the pair of them that a bidirectional mixer needs; `available_backends`
  lists what works here; `choose_backend` says what would be taken and why (a run's record keeps that sentence).
- One file a backend: `reference` (plain PyTorch loop), `chunked` (vectorised PyTorch), `cpu` (a C kernel),
  `triton` (our kernels for GPUs), `mamba_ssm` (those of the package of that name); and `shapes`, for tensors without
  numbers. Only `dispatch` knows them all.
- Names load on first use: `python -m ssp.scan.build` must run before PyTorch is needed, and quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssp.scan.dispatch import BackendChoice, available_backends, both, choose_backend, selective_scan
    from ssp.scan.interface import BackendError, ScanArgs

__all__ = [
    "BackendChoice",
    "BackendError",
    "ScanArgs",
    "available_backends",
    "both",
    "choose_backend",
    "selective_scan",
]

_HOME = dict.fromkeys(__all__, "ssp.scan.dispatch") | dict.fromkeys(("BackendError", "ScanArgs"), "ssp.scan.interface")


def __getattr__(name: str) -> object:
    """Import an exported name from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
