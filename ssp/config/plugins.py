"""Tuning methods and data sources by name, none of them imported: what a config may name, in an instant.

- Methods are the entry points of `ssp.methods`. The workflow runs from the repository root in environments where this
  project need not be installed, so its own are read from the pyproject.toml beside the package, where there is one.
- Sources are the modules in ssp/data/sources and the entry points of `ssp.sources`. This is not beside those modules,
  because importing their package takes numpy.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules

METHODS, SOURCES = "ssp.methods", "ssp.sources"
PACKAGE = Path(__file__).resolve().parents[1]


@cache
def method_targets() -> dict[str, str]:
    """Name of a method -> "module:class"."""
    targets = {entry.name: entry.value for entry in entry_points(group=METHODS)}
    pyproject = PACKAGE.parent / "pyproject.toml"
    if pyproject.is_file():
        project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
        targets |= project.get("entry-points", {}).get(METHODS, {})
    return targets


def method_names() -> list[str]:
    """Names of all registered tuning methods, sorted."""
    return sorted(method_targets())


@cache
def source_modules() -> dict[str, str]:
    """Name of a source -> the module that reads it."""
    folder = PACKAGE / "data" / "sources"
    own = {module.name: f"ssp.data.sources.{module.name}" for module in iter_modules([str(folder)])}
    return {entry.name: entry.value for entry in entry_points(group=SOURCES)} | own


def source_names() -> list[str]:
    """Names of all data sources, sorted."""
    return sorted(source_modules())
