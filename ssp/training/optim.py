"""Optimizer and learning-rate schedule, the same for every method.

Design choices
- AdamW with betas (0.9, 0.999) and eps 1e-8, fused where possible: one kernel for all tensors, little overhead a step.
- No weight decay for what has no direction to shrink: 1-D tensors and biases (norms, scales), embeddings of position
  and class, and the state matrices A and D of the scan, for which zero is no neutral value (A = -exp(A_log)). The
  published training script does decay A_log, which only concerns full fine-tuning: its marks were overlooked there.
  A method exempts more of its parameters by setting `no_weight_decay = True` on them.
- One peak learning rate for all parameters, but for those that a method slows down (`learning_rate_scale`; the layer
  decay of full fine-tuning, which for frozen backbones is a no-op in the published code).
- Linear warm-up from 0, then a half cosine to 0, per optimizer step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import AdamW

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

EMBEDDINGS = ("cls_token", "pos_embed", "temporal_pos_embedding")
STATE_MATRICES = ("A_log", "A_b_log", "D", "D_b")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies to a parameter."""
    last = name.rpartition(".")[2]
    exempt = parameter.ndim < 2 or last == "bias" or last in EMBEDDINGS or last in STATE_MATRICES
    return not (exempt or getattr(parameter, "no_weight_decay", False))


def make_optimizer(model: VideoMamba, weight_decay: float) -> AdamW:
    """AdamW over everything that trains; learning rates are set step by step from a `Schedule`."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    scale = {name: model.method.learning_rate_scale(model, name) for name, _ in named}
    groups = [
        {
            "params": [p for n, p in named if decays(n, p) == decayed and scale[n] == slowed],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": slowed,
        }
        for slowed in sorted(set(scale.values()), reverse=True)
        for decayed in (True, False)
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
    """Set the learning rate of all groups, each with its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)  # a training begun before there were scales has none
