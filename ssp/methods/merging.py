"""What a method learned, folded into the backbone's own weights, so that inference costs what the backbone costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ssp.backbone.layout import is_readout
from ssp.backbone.videomamba import Pass
from ssp.methods.registry import load_method

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


@torch.no_grad()
def fold(model: VideoMamba) -> None:
    """Write the weights that each mixer is given into the mixer, take away what the method added, leave a linear probe.

    For methods whose effect is all in `MixerTuning.weights`. Only head and final norm train afterwards. A bias that
    the mixer's layers did not have is a parameter of theirs from then on, and counts as added.
    """
    method, before = model.method, {id(parameter) for parameter in model.parameters()}
    current = Pass(model, method.layout(model.bare_layout))
    tunings = [method.mixer_tuning(current, index) for index in range(len(model.layers))]
    for block, tuning in zip(model.layers, tunings, strict=True):
        if tuning is not None:
            block.mixer.set_weights(tuning.weights(block.mixer.weights()))
    for name in {name.partition(".")[0] for name in model.added}:
        delattr(model, name)
    model.added = frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    model.method = load_method("linear")()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_readout(name))
