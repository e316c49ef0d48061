"""Data sources by name, none of them imported: the modules in ssp/data/sources, and the entry points of `ssp.sources`.

Not beside those modules: importing their package takes numpy, and configs are read where that need not be.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules

GROUP = "ssp.sources"
PACKAGE = "ssp.data.sources"


@cache
def source_modules() -> dict[str, str]:
    """Name of a source -> the module that reads it."""
    folder = Path(__file__).resolve().parents[1] / "data" / "sources"
    own = {module.name: f"{PACKAGE}.{module.name}" for module in iter_modules([str(folder)])}
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | own


def source_names() -> list[str]:
    """Names of all data sources, sorted."""
    return sorted(source_modules())
