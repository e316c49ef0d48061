"""Methods by name: listed without importing any of them, loaded when one is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ssp.config.plugins import method_names, method_targets
from ssp.errors import ConfigError

if TYPE_CHECKING:
    from ssp.methods.method import TuningMethod

__all__ = ["load_method", "method_names"]


def load_method(name: str) -> type[TuningMethod]:
    """The class of a tuning method.

    Raises:
        ConfigError: no method of that name is registered.
    """
    targets = method_targets()
    if name not in targets:
        raise ConfigError(f"unknown method '{name}'; known: {', '.join(method_names())}")
    module, _, attribute = targets[name].partition(":")
    return getattr(import_module(module), attribute)
