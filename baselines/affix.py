"""Affix tuning: learned columns in front of every scan, between in_proj and the convolution.

- A column is what in_proj would give for one more token, (x, z). Each direction has its k columns where its own scan
  starts (the backward one behind the last token), its convolution and state read them first, and what the scan puts
  out for them is discarded. So no other block sees them.
- Since that output is discarded, so is its gate: the z half of a column is never read. The published code has it, and
  the published number of parameters counts it (`gates`); it gets no gradient, and nothing changes without it.
- `each` direction has its own columns (published as "dual"), or both `share` them ("single").
- The start is standard normal, as an embedding's. The published reparametrisation of the columns by an MLP (some 345
  million parameters while training) is left out, like its infix and centre, which assume a class token in the middle.
- Something is put before the class token, the first of the forward scan, so the start is not the frozen backbone.

Yoshimura et al., MambaPEFT: Exploring Parameter-Efficient Fine-Tuning for Mamba, ICLR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.backbone.mixer import MixerTuning, in_front
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba


class AffixTuning(TuningMethod):
    """Affix tuning behind the interface of every method."""

    name = "affix"
    title = "Affix"
    source = "ICLR 2025; sony/MambaPEFT"
    test_configs: ClassVar = [{"columns": 2}, {"columns": 5, "directions": "share", "gates": False, "std": 0.1}]

    class Options(Strict):
        """Three columns, of each direction its own, without projection: published for images."""

        columns: PositiveInt = Field(default=3, description="Columns in front of each scan, k.")
        directions: Literal["each", "share"] = Field(
            default="each", description="Columns of its own for each direction, or the same for both."
        )
        gates: bool = Field(default=True, description="Have the z half, never read, as published.")
        std: float = Field(default=1.0, ge=0, description="Standard deviation of the start; published: 1. A guess.")

    def attach(self, model: VideoMamba) -> None:
        """Register the columns, (blocks, 1 or 2 directions, k, E or 2E), in the order of their scan."""
        shape = self._shape(model)
        model.affix = nn.Parameter(nn.init.normal_(torch.empty(shape), std=self.options.std))

    def expected_parameters(self, model: VideoMamba) -> int:
        """2E numbers a column, or E without gates."""
        blocks, directions, columns, width = self._shape(model)
        return blocks * directions * columns * width

    def _shape(self, model: VideoMamba) -> tuple[int, int, int, int]:
        directions = 2 if self.options.directions == "each" else 1
        width = (4 if self.options.gates else 2) * model.cls_token.shape[-1]
        return len(model.layers), directions, self.options.columns, width

    def sweep_space(self) -> dict[str, Range]:
        """How far from zero the columns start."""
        return {"std": Range(choices=[0.02, 0.2, 1.0])}

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning:
        """The columns of a block."""
        return InFront(current.model.affix[index])


class InFront(MixerTuning):
    """Columns (1 or 2, k, E or 2E) in front of the scans of one block."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns

    def streams(self, direction: str, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Longer (x, z), each (B, E, L + k)."""
        columns = self.columns[-1 if direction == "backward" else 0]  # (k, E or 2E)
        columns = F.pad(columns, (0, 2 * x.shape[1] - columns.shape[-1]))
        of_x, of_z = columns.t().chunk(2)
        return in_front(x, of_x, direction), in_front(z, of_z, direction)
