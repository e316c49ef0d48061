"""What ends a training for a reason of its own: a result with that reason, not a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class TrainingFailed(Exception):
    """Training cannot go on for a reason that belongs into the record; the message is that reason."""


class OutOfMemory(TrainingFailed):
    """Memory ran out."""


@contextmanager
def failures() -> Iterator[None]:
    """Turn running out of memory into `OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"out of memory: {str(error).splitlines()[0] if str(error) else 'host'}") from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how torch's CPU allocator puts it
            raise
        raise OutOfMemory("out of memory: host") from None
