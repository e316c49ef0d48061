"""What is searched over for a method: the shared space, the method's own, and what the config says about it."""

from __future__ import annotations

from ssp.config import Config, Hyperparameters, Range
from ssp.errors import ConfigError
from ssp.methods.registry import load_method


def search_space(config: Config, method: str) -> dict[str, Range]:
    """Shared space, then the method's own, then what the config says about this method.

    Raises:
        ConfigError: an option that is unknown or wrong, or a space over what is neither a shared hyper-parameter nor an
            option of the method.
    """
    kind = load_method(method)
    own = kind(config.method_options(method)).sweep_space()
    space = dict(config.sweep.space) | own | config.methods[method].space
    known = [*Hyperparameters.model_fields, *kind.Options.model_fields]
    for name in space:
        if name not in known:
            raise ConfigError(
                f"methods.{method}.space.{name}: no such hyper-parameter or option; known: {', '.join(known)}"
            )
    return space
