"""Clips of noise."""

import numpy as np
import torch


def rng(seed=0):
    return np.random.default_rng(seed)


def clip_of(height, width, frames=4):
    """uint8 (frames, 3, height, width)."""
    return torch.from_numpy(rng().integers(0, 256, (frames, 3, height, width), dtype=np.uint8))
