"""Visual Fourier Prompt Tuning: VPT with some of the prompts taken to the frequency domain.

- Of each block's prompts a share, `fourier`, is replaced at use by the real part of its discrete Fourier transform,
  over channels, then over those rows. Nothing is added: as many parameters as VPT, learned before the transform.
- Nothing is normalised, as published, so at the start these rows are some sqrt(rows * channels / 2) times as long as
  the plain ones: the norm in front of a mixer levels that, the sum keeps it.
- The transform runs in float32 or better: half-precision ones know few sizes.
- Place and start are VPT's. The share is 0.5 in the public configuration and not said for the benchmark; the
  transformed rows come first in it. Left out: its random choice of rows at every step, its variants by layer, and a
  learned linear map instead of the transform.

Zeng et al., Visual Fourier Prompt Tuning, NeurIPS 2024.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.vpt import VisualPromptTuning
from ssp.backbone.videomamba import at_least_float32

AXES = {"both": (-1, -2), "channels": (-1,), "rows": (-2,)}


class VisualFourierPromptTuning(VisualPromptTuning):
    """VFPT behind the interface of every method."""

    name = "vfpt"
    title = "VFPT"
    source = "NeurIPS 2024; runtsang/VFPT"
    test_configs: ClassVar = [
        {"num_prompts": 4, "position": "before_cls"},
        {"num_prompts": 4, "position": "suffix", "axes": "channels", "first": False},
        {"num_prompts": 4, "position": "per_frame", "axes": "rows", "fourier": 0.8, "deep": False},
    ]

    class Options(VisualPromptTuning.Options):
        """80 prompts in every block give the published number of parameters."""

        fourier: float = Field(
            default=0.5, ge=0, le=1, description="Share of the prompts that is transformed, rounded down to whole rows."
        )
        axes: Literal["both", "channels", "rows"] = Field(default="both", description="What the transform runs over.")
        first: bool = Field(default=True, description="Whether transformed rows stand in front of the plain ones.")

    def rows(self, prompts: Tensor) -> Tensor:
        """Transform the first or the last of the prompts."""
        count = int(len(prompts) * self.options.fourier)
        if count == 0:
            return prompts
        split = [count, len(prompts) - count] if self.options.first else [len(prompts) - count, count]
        parts = list(at_least_float32(prompts).split(split))
        chosen = 0 if self.options.first else 1
        for axis in AXES[self.options.axes]:
            parts[chosen] = torch.fft.fft(parts[chosen], dim=axis)
        parts[chosen] = parts[chosen].real
        return torch.cat(parts)
