"""Norm tuning: the weights of the norms train, and nothing is added.

- One weight a channel and block; the final norm trains in every method.

Basu et al., Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning, AAAI 2024 (on transformers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssp.backbone.layout import is_readout
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


class NormTuning(TuningMethod):
    """The norms of all blocks train."""

    name = "norm_tuning"
    title = "Norm tuning"
    source = "AAAI 2024, on transformers; here on VideoMamba's RMSNorm"
    identity_at_start = True
    mergeable = True

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """The weights of the blocks' norms, head and final norm."""
        names = [name for name, _ in model.named_parameters()]
        return [name for name in names if name.endswith(".norm.weight") or is_readout(name)]
