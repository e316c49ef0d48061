"""What is made of frozen weights once and used in every pass: casts to half precision, A = -exp(A_log).

A training casts a frozen backbone's weights once, not once a pass. What is kept belongs to the contents of a parameter:
loading weights, moving or converting the model, and letting the parameter train make it anew.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class _Made(NamedTuple):
    source: Tensor
    state: tuple[int, int]
    value: Tensor


def _state(source: Tensor) -> tuple[int, int]:
    """Changes with the contents: writes in place are counted, and `module.to` gives a parameter other storage."""
    return source._version, source.data_ptr()


class Kept:
    """Values by name, each made of one parameter."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    def get(self, name: str, source: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """`make(source)`: of a frozen parameter the same as long as that has not changed, of anything else anew."""
        if not isinstance(source, nn.Parameter) or source.requires_grad or source.is_meta or source.is_inference():
            return make(source)
        made = self._made.get(name)
        if made is None or made.source is not source or made.state != _state(source):
            # A training may use what an evaluation has made: not in its inference mode, then.
            with torch.inference_mode(False), torch.no_grad():
                made = _Made(source, _state(source), make(source))
            self._made[name] = made
        return made.value
