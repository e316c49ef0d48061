"""BitFit: the biases that are there already train, and nothing is added.

- VideoMamba has biases in each direction's convolution and step-size projection, and in the patch embedding; the other
  projections have none. Which of them train is an option.

Ben Zaken et al., BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models, ACL 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssp.backbone.layout import is_readout
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

ENDS = {
    "dt_proj": (".dt_proj.bias", ".dt_proj_b.bias"),
    "conv1d": (".conv1d.bias", ".conv1d_b.bias"),
    "patch_embed": ("patch_embed.proj.bias",),
}


class BitFit(TuningMethod):
    """BitFit behind the interface of every method."""

    name = "bitfit"
    title = "BitFit"
    source = "ACL 2022; which biases a Mamba has: sony/MambaPEFT"
    test_configs: ClassVar = [{}, {"biases": ["dt_proj"]}]
    identity_at_start = True
    mergeable = True

    class Options(Strict):
        """All biases of the backbone."""

        biases: list[Literal["dt_proj", "conv1d", "patch_embed"]] = Field(
            default=["dt_proj", "conv1d", "patch_embed"], min_length=1, description="Whose biases train."
        )

    def trainable_parameters(self, model: VideoMamba) -> list[str]:
        """The biases, head and final norm."""
        ends = tuple(end for layer in self.options.biases for end in ENDS[layer])
        names = [name for name, _ in model.named_parameters()]
        return [name for name in names if name.endswith(ends) or is_readout(name)]
