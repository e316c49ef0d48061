"""Visual Prompt Tuning (VPT-deep): learned rows in the input of every block.

- Before each block the prompt rows are set anew; what a block made of the rows of the block before is discarded.
- They are set in the sum, after drop path, which therefore never touches a prompt.
- Where the rows stand matters in a state-space model (the class token is read last by the backward scan), and the
  benchmarked papers do not say; `position` is therefore an option. The default is the place of the original code.
- `per_frame` puts the same rows behind every frame, so that the number of parameters does not depend on the clip.

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
    """VPT-deep behind the interface of every method."""

    name = "vpt"
    title = "VPT"
    source = "ECCV 2022; KMnP/vpt, and the variant in ShoufaChen/AdaptFormer"
    test_configs: ClassVar = [{"num_prompts": 3, "position": place} for place in get_args(Place)]

    class Options(Strict):
        """80 prompts give the published number of parameters."""

        num_prompts: PositiveInt = Field(default=80, description="Prompt rows per block (per frame if per_frame).")
        position: Place = Field(default="after_cls", description="Where the rows stand.")
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

    def expected_parameters(self, model: VideoMamba) -> int:
        """Rows of every block."""
        return len(model.layers) * self.options.num_prompts * model.cls_token.shape[-1]

    def sweep_space(self) -> dict[str, Range]:
        """The two initialisations differ six-fold in scale at the default size."""
        return {"init": Range(choices=["uniform", "xavier"])}

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """The prompt rows."""
        return replace(layout, **{self.options.position: self.options.num_prompts})

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Set the prompt rows of the sum to this block's prompts."""
        return current.layout.set_rows(total, self.options.position, current.model.prompt_embeddings[index])
