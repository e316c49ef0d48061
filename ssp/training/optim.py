"""Optimizer and learning-rate schedule, the same for every method.

Design choices
- AdamW with betas (0.9, 0.999) and eps 1e-8, fused where possible: one kernel for all tensors, little overhead a step.
- No weight decay for what has no direction to shrink: 1-D tensors and biases (norms, scales), embeddings of position
  and class, and the state matrices A and D of the scan, for which zero is no neutral value (A = -exp(A_log)). The
  published training script does decay A_log, which only concerns full fine-tuning: its marks were overlooked there.
  A method exempts more of its parameters by setting `no_weight_decay = True` on them.
- One peak learning rate for all parameters, no layer-wise decay (for frozen backbones the published one is a no-op).
- Linear warm-up from 0, then a half cosine to 0, per optimizer step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW

EMBEDDINGS = ("cls_token", "pos_embed", "temporal_pos_embedding")
STATE_MATRICES = ("A_log", "A_b_log", "D", "D_b")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter."""
    last = name.rpartition(".")[2]
    exempt = parameter.ndim < 2 or last == "bias" or last in EMBEDDINGS or last in STATE_MATRICES
    return not (exempt or getattr(parameter, "no_weight_decay", False))


def make_optimizer(model: nn.Module, weight_decay: float) -> AdamW:
    """AdamW over everything that trains; learning rates are set step by step from a `Schedule`."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)


@dataclass(frozen=True)
class Schedule:
    """Learning rate of each optimizer step."""

    peak: float
    steps: int
    warmup: int

    def __call__(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
