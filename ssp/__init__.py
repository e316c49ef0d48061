"""State Space Prompting and the benchmark around it: parameter-efficient tuning of video state-space models.

Light to import: torch is loaded when the first model is built or the first weights are read.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "build_model": "ssp.methods.build",
    "load": "ssp.use.loading",
    "load_weights": "ssp.backbone.checkpoint",
    "parameter_counts": "ssp.methods.parameters",
}
_SUBMODULES = ("config", "data", "scan")

__all__ = [*_LAZY, *_SUBMODULES]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562: whatever the name stands for
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _SUBMODULES:
        return import_module(f"ssp.{name}")
    raise AttributeError(f"module 'ssp' has no attribute '{name}'")
