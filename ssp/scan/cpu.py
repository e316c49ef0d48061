"""C kernel for float32 on a CPU (not written yet: says so, and is passed over)."""

import torch


def unavailable() -> str | None:
    """Return why it cannot be used."""
    return "the C kernel is not built"


def unsupported(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why it cannot take these tensors."""
    return None
