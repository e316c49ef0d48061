"""Methods by name: the entry-point group `ssp.methods`, listed without importing any of them (nor torch).

The workflow runs from the repository root in environments where this project need not be installed, so the entry points
of this project are read from its own pyproject.toml when that lies beside the package; installed plug-ins come on top.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from ssp.errors import ConfigError

if TYPE_CHECKING:
    from ssp.methods.method import TuningMethod

GROUP = "ssp.methods"


@cache
def _targets() -> dict[str, str]:
    """Method name -> "module:class"."""
    targets = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text()).get("project", {})
        targets |= project.get("entry-points", {}).get(GROUP, {})
    return targets


def method_names() -> list[str]:
    """Names of all registered tuning methods, sorted."""
    return sorted(_targets())


def load_method(name: str) -> type[TuningMethod]:
    """The class of a tuning method.

    Raises:
        ConfigError: no method of that name is registered.
    """
    if name not in _targets():
        raise ConfigError(f"unknown method '{name}'; known: {', '.join(method_names())}")
    module, _, attribute = _targets()[name].partition(":")
    return getattr(import_module(module), attribute)
