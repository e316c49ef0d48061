"""What is searched over for a row: the shared space, the method's own, and what the config says about the row."""

from __future__ import annotations

from ssp.config import Config, Hyperparameters, Range
from ssp.errors import ConfigError
from ssp.methods.registry import load_method


def search_space(config: Config, name: str) -> dict[str, Range]:
    """Shared space, then the method's own, then what the config says about this row; without what an ablation varies.

    Raises:
        ConfigError: an option that is unknown or wrong, or a space over what is neither a shared hyper-parameter nor an
            option of the method.
    """
    row = config.rows[name]
    kind, where = load_method(row.method), _where(config, name)
    own = kind(row.options, where=f"{where}.options").sweep_space()
    known = [*Hyperparameters.model_fields, *kind.Options.model_fields]
    for key in row.space:
        if key not in known:
            raise ConfigError(f"{where}.space.{key}: no such hyper-parameter or option; known: {', '.join(known)}")
    space = dict(config.sweep.space) | own | row.space
    return {key: r for key, r in space.items() if key not in row.varied}


def _where(config: Config, name: str) -> str:
    """Where a config says what a row is."""
    if name in config.methods:
        return f"methods.{name}"
    return next(f"ablations.{key}" for key, points in config.points.items() if name in {point.row for point in points})
