"""Visual Prompt Tuning (VPT-deep): learned rows in the input of every block.

- Before each block the prompt rows are set anew; what a block made of the rows of the block before is discarded.
- They are set in the sum: residual rows become the prompts, hidden rows zero. So drop path never touches a prompt.
- Where the rows stand matters in a state-space model (the class token is read last by the backward scan), and the
  benchmarked papers do not say; `position` is therefore an option. The default is the place of the original code.
- `per_frame` puts the same rows behind every frame, so that the number of parameters does not depend on the clip.

Jia et al., Visual Prompt Tuning, ECCV 2022.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.config import Range, Strict
from ssp.tuning import Pass, Streams, TokenLayout, TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


class VisualPromptTuning(TuningMethod):
    """VPT-deep behind the interface of every method."""

    name = "vpt"
    title = "VPT"
    source = "ECCV 2022; KMnP/vpt, and the variant in ShoufaChen/AdaptFormer"
    test_config: ClassVar = {"num_prompts": 3}

    class Options(Strict):
        """80 prompts give the published number of parameters."""

        num_prompts: PositiveInt = Field(default=80, description="Prompt rows per block (per frame if per_frame).")
        position: Literal["after_cls", "before_cls", "suffix", "per_frame"] = Field(
            default="after_cls", description="Where the rows stand."
        )
        init: Literal["uniform", "xavier"] = Field(
            default="uniform",
            description="Uniform with the bound of the original code (it looks at a patch), or of AdaptFormer's.",
        )

    def attach(self, model: VideoMamba) -> None:
        """Register the prompts of all blocks, (depth, num_prompts, D)."""
        dim, pixels = model.cls_token.shape[-1], model.patch_embed.proj.weight[0].numel()
        prompts, count = torch.empty(len(model.layers), self.options.num_prompts, dim), self.options.num_prompts
        bound = (6 / (pixels + dim)) ** 0.5 if self.options.init == "uniform" else (6 / (dim * (count + 1))) ** 0.5
        model.prompt_embeddings = nn.Parameter(nn.init.uniform_(prompts, -bound, bound))

    def sweep_space(self) -> dict[str, Range]:
        """The two initialisations differ six-fold in scale at the default size."""
        return {"init": Range(choices=["uniform", "xavier"])}

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """The prompt rows."""
        return replace(layout, **{self.options.position: self.options.num_prompts})

    def before_block(self, run: Pass, index: int, streams: Streams) -> Streams:
        """Set the prompt rows of the sum to this block's prompts."""
        prompts = run.model.prompt_embeddings[index]
        if streams.residual is None:
            return Streams(self._set(run.layout, streams.hidden, prompts), None)
        return Streams(
            self._set(run.layout, streams.hidden, torch.zeros_like(prompts)),
            self._set(run.layout, streams.residual, prompts),
        )

    def _set(self, layout: TokenLayout, stream: Tensor, rows: Tensor) -> Tensor:
        """A new stream (B, L, D) with `rows` (num_prompts, D) in the prompts' places."""
        rows = rows.to(stream.dtype)
        if self.options.position == "per_frame":
            patches = layout.split_frames(stream)[:, :, : layout.patches]
            return layout.join_frames(stream, torch.cat([patches, rows.expand(*patches.shape[:2], -1, -1)], dim=2))
        start = {"before_cls": 0, "after_cls": layout.cls + 1, "suffix": layout.frames_stop}[self.options.position]
        stop = start + len(rows)
        return torch.cat([stream[:, :start], rows.expand(len(stream), -1, -1), stream[:, stop:]], dim=1)
