"""BitFit: the biases that are there already train, and nothing is added.

- VideoMamba has biases in each direction's convolution and step-size projection, and in the patch embedding; the other
  projections have none.

Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models, ACL 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssp.backbone.layout import is_readout
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


class BitFit(TuningMethod):
    """BitFit behind the interface of every method."""

    name = "bitfit"
    title = "BitFit"
    source = "ACL 2022; which biases a Mamba has: sony/MambaPEFT"
    identity_at_start = True

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """All biases, head and final norm."""
        names = [name for name, _ in model.named_parameters()]
        return [name for name in names if name.endswith(".bias") or is_readout(name)]
