"""Visual Prompt Tuning: learned rows in the input of every block (deep), or of the first alone (shallow).

- Deep: in the sum of each block the prompt rows are set anew; what a block made of those of the block before is
  discarded. Shallow: set once, in the sum of the first block, and carried on like any other row.
- They are set in the sum, after drop path, which therefore never touches a prompt that is set.
- Where the rows stand matters in a state-space model (the class token is read last by the backward scan), and the
  benchmarked papers do not say. So `position` is an option, and it is searched; the default is the original code's.
  The scale of the start is not searched: the norm in front of a mixer takes most of it away.
- `per_frame` puts the same rows behind every frame, so that the number of parameters does not depend on the clip.
- Of the original code's options, dropout on prompts and a projection of them, both off there, are left out.

Jia et al., Visual Prompt Tuning, ECCV 2022.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssp.backbone.layout import Place, TokenLayout
from ssp.backbone.videomamba import Pass
from ssp.config import Range, Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba


class VisualPromptTuning(TuningMethod):
    """VPT behind the interface of every method."""

    name = "vpt"
    title = "VPT"
    source = "ECCV 2022; KMnP/vpt, and the variant in ShoufaChen/AdaptFormer"
    test_configs: ClassVar = [
        *({"num_prompts": 3, "position": place} for place in get_args(Place)),
        {"num_prompts": 3, "deep": False, "init": "xavier"},
    ]

    class Options(Strict):
        """80 prompts in every block give the published number of parameters."""

        num_prompts: PositiveInt = Field(default=80, description="Prompt rows per block (per frame if per_frame).")
        deep: bool = Field(default=True, description="Prompts of its own for each block, or for the first one alone.")
        position: Place = Field(default="after_cls", description="Where the rows stand; searched.")
        init: Literal["uniform", "xavier"] = Field(
            default="uniform",
            description="Uniform with the bound of the original code (it looks at a patch), or of AdaptFormer's.",
        )

    def attach(self, model: VideoMamba) -> None:
        """Register the prompts, (blocks that have some, num_prompts, D)."""
        dim, pixels = model.cls_token.shape[-1], model.patch_embed.proj.weight[0].numel()
        count = self.options.num_prompts
        prompts = torch.empty(len(model.layers) if self.options.deep else 1, count, dim)
        bound = (6 / (pixels + dim)) ** 0.5 if self.options.init == "uniform" else (6 / (dim * (count + 1))) ** 0.5
        model.prompt_embeddings = nn.Parameter(nn.init.uniform_(prompts, -bound, bound))

    def expected_parameters(self, model: VideoMamba) -> int:
        """Rows of every block, or of one."""
        blocks = len(model.layers) if self.options.deep else 1
        return blocks * self.options.num_prompts * model.cls_token.shape[-1]

    def sweep_space(self) -> dict[str, Range]:
        """Where the rows stand."""
        return {"position": Range(choices=list(get_args(Place)))}

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """The prompt rows."""
        return replace(layout, **{self.options.position: self.options.num_prompts})

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Set the prompt rows of the sum to this block's prompts, if it has some."""
        if index >= len(current.model.prompt_embeddings):
            return total
        return current.layout.set_rows(total, self.options.position, self.rows(current.model.prompt_embeddings[index]))

    def rows(self, prompts: Tensor) -> Tensor:
        """From what a block has learned to the rows that it gets, each (num_prompts, D)."""
        return prompts
