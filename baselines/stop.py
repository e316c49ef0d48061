"""STOP: prompts made from the clip, in its pixels (intra-frame) and behind each frame (inter-frame).

- Intra-frame: a stack of wide convolutions over the clip gives three channels P; frame + 0.05 P (1 + M) is what is
  embedded. M marks the cells that a convolution of its own scores highest: 6 of each frame's, 32 pixels wide in
  the original. As M comes from comparisons, that convolution never gets a gradient; it counts as published.
- Inter-frame, once a pass, from the embedded patches: attention over all patches of all frames; then two convolutions
  over (frame, patch, channel) and a map from patches to 4 slots give S; 0.05 S (1 + m) are the prompts, m the score of
  each frame, between 0 and 1. Scores come from the attention's output, patches under M counted twice.
- In the sum of every block these prompts, with learned base rows of that block added, are set behind each frame. (The
  original has them behind each frame's class token; VideoMamba has none.)
- `frame_norm` names a quirk: scores are brought to 0..1 over the *whole batch* ("published"), so that logits depend on
  the other clips, or over the clip ("fixed"). With two frames or one, "fixed" scores are 0 and 1, or 0, always.
- The published number of parameters leaves the setting open. It is met by one base row a block, shared by slots and
  frames; the original has one for each slot (`base: slots`), and four global rows in front, set once (`global_rows`).
- Dropout in the intra-frame part is 0.5, as published. Its repository also switches on a bottleneck beside every MLP by
  default, which is no part of the method: left out.

Liu et al., STOP: Integrated Spatial-Temporal Dynamic Prompting for Video Understanding, CVPR 2025.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor, nn

from ssp.backbone.layout import TokenLayout
from ssp.backbone.videomamba import at_least_float32
from ssp.config import Strict
from ssp.errors import ConfigError
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import Pass, VideoMamba

STRENGTH = 0.05  # of both kinds of prompts
PIXEL_CHANNELS = (9, 9, 9, 16)
VOLUME_CHANNELS, SLOT_WIDTH = 9, 16
SCORE_KERNEL = (5, 11, 11)


class SpatialTemporalDynamicPrompting(TuningMethod):
    """STOP behind the interface of every method."""

    name = "stop"
    title = "STOP"
    source = "CVPR 2025; zhoujiahuan1991/CVPR2025-STOP"
    test_configs: ClassVar = [
        {"heads": 4, "slots": 2, "pixel_kernel": 3, "volume_kernel": [3, 5], "cell": 1, "masked": 2},
        {"heads": 2, "slots": 3, "pixel_kernel": 3, "volume_kernel": [3, 5], "base": "slots", "global_rows": 2},
        {"heads": 2, "pixel_kernel": 3, "volume_kernel": [3, 5], "base": "none", "frame_norm": "published"},
    ]

    class Options(Strict):
        """The defaults give the published number of parameters."""

        slots: PositiveInt = Field(default=4, description="Prompt rows behind each frame.")
        heads: PositiveInt = Field(default=12, description="Of the attention over all patches; divides the width.")
        base: Literal["shared", "slots", "none"] = Field(
            default="shared", description="Learned rows of each block: one for all slots, one for each, none. A guess."
        )
        global_rows: NonNegativeInt = Field(
            default=0, description="Learned rows in front of the class token, set in the first block alone. A guess."
        )
        cell: PositiveInt = Field(
            default=2, description="Side of a cell of the mask in patches (2 of 16 pixels: the original's 32). A guess."
        )
        masked: NonNegativeInt = Field(default=6, description="Marked cells of a frame.")
        pixel_kernel: PositiveInt = Field(default=11, description="Side of the pixel convolutions; odd.")
        volume_kernel: list[PositiveInt] = Field(
            default=[15, 25],
            min_length=2,
            max_length=2,
            description="Patches and channels that the inter-frame convolutions span; odd.",
        )
        dropout: float = Field(default=0.5, ge=0, lt=1, description="In the intra-frame part, while training.")
        frame_norm: Literal["fixed", "published"] = Field(
            default="fixed", description="Frame scores to 0..1 per clip, or over the whole batch as in the public code."
        )

        @field_validator("pixel_kernel", "volume_kernel")
        @classmethod
        def _odd(cls, value: int | list[int]) -> int | list[int]:
            if not all(size % 2 for size in (value if isinstance(value, list) else [value])):
                raise ValueError("must be odd")
            return value

    def attach(self, model: VideoMamba) -> None:
        """Register both parts and the rows."""
        options, dim, depth = self.options, model.cls_token.shape[-1], len(model.layers)
        if dim % options.heads:
            raise ConfigError(f"methods.{self.name}.options.heads: {options.heads} does not divide the width, {dim}")
        bound = (6 / (model.patch_embed.proj.weight[0].numel() + dim)) ** 0.5
        model.intra_prompt = IntraFramePrompt(options.pixel_kernel, options.dropout)
        model.inter_prompt = InterFramePrompt(
            dim, model.bare_layout.patches, options.slots, options.heads, options.volume_kernel
        )
        if options.base != "none":
            rows = torch.empty(depth, 1 if options.base == "shared" else options.slots, dim)
            model.base_prompts = nn.Parameter(nn.init.uniform_(rows, -bound, bound))
        if options.global_rows:
            model.global_prompts = nn.Parameter(nn.init.uniform_(torch.empty(options.global_rows, dim), -bound, bound))

    def without_gradient(self, model: VideoMamba) -> dict[str, str]:
        """The mask's scores, and what the norm of frame scores takes away."""
        layout = model.bare_layout
        compared = "the mask comes from comparing scores"
        found = dict.fromkeys(("intra_prompt.scores.weight", "intra_prompt.scores.bias"), compared)
        if not any(side % self.options.cell for side in layout.grid):
            found["inter_prompt.scores.bias"] = "as many patches are marked in every frame, and only differences count"
        if layout.frames <= 2 and self.options.frame_norm == "fixed":
            ends = "the scores of two frames are 0 and 1, whatever they were, and that of one is 0"
            found |= dict.fromkeys(("inter_prompt.scores.weight", "inter_prompt.scores.bias"), ends)
        return found

    def expected_parameters(self, model: VideoMamba) -> int:
        """Pixel part, attention, volume part, scores, and rows."""
        options, dim, patches = self.options, model.cls_token.shape[-1], model.bare_layout.patches
        last, wide, narrow, scored = PIXEL_CHANNELS[-1], VOLUME_CHANNELS, SLOT_WIDTH, prod(SCORE_KERNEL)
        area, volume = 3 * options.pixel_kernel**2, 3 * prod(options.volume_kernel)
        # What stands alone is a PReLU's slope.
        pixels = sum(area * a * b + b for a, b in pairwise((3, *PIXEL_CHANNELS))) + 1 + 1
        pixels += (last * last + last) + 1 + (last * 3 + 3) + (3 * scored + 1)
        attention = 4 * (dim * dim + dim)
        convs = (volume * wide + wide) + 1 + (wide * volume + 1)
        slots = (patches * narrow + narrow) + 1 + (narrow * options.slots + options.slots)
        rows = {"shared": 1, "slots": options.slots, "none": 0}[options.base] * len(model.layers) + options.global_rows
        return pixels + attention + convs + slots + (scored + 1) + rows * dim

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Slots behind each frame, and global rows."""
        return replace(layout, per_frame=self.options.slots, before_cls=self.options.global_rows)

    def video(self, current: Pass, video: Tensor) -> Tensor:
        """Add the intra-frame prompt to the pixels, and remember the mask."""
        part, (rows, columns) = current.model.intra_prompt, current.layout.grid
        side = current.model.patch_embed.proj.kernel_size[-1]
        height, width = rows * side, columns * side  # of what is embedded: a margin narrower than a patch is not
        scores = part.scores(video.detach())[..., :height, :width]
        cells = highest_cells(scores, self.options.cell * side, self.options.masked)
        marked = enlarge(cells, self.options.cell)[..., :rows, :columns]  # (B, T, rows, columns)
        current.memory["marked patches"] = marked.flatten(2).to(video.dtype)
        margin = (0, video.shape[-1] - width, 0, video.shape[-2] - height)
        prompt = part(video)
        mask = F.pad(enlarge(marked, side)[:, None].to(prompt.dtype), margin)
        return video + STRENGTH * (prompt * (1 + mask)).to(video.dtype)

    def tokens(self, current: Pass, tokens: Tensor) -> Tensor:
        """Make the inter-frame prompts, (B, T, slots, D)."""
        patches = current.layout.split_frames(tokens)[:, :, : current.layout.patches]
        over_batch = self.options.frame_norm == "published"
        prompts = current.model.inter_prompt(patches, current.memory["marked patches"], over_batch)
        current.memory["prompts"] = STRENGTH * prompts
        return tokens

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Set the rows behind each frame and, in the first block, the global rows."""
        model, rows = current.model, current.memory["prompts"]
        if self.options.base != "none":
            rows = rows + model.base_prompts[index]
        if self.options.global_rows and index == 0:
            total = current.layout.set_rows(total, "before_cls", model.global_prompts)
        return current.layout.set_rows(total, "per_frame", rows)


class IntraFramePrompt(nn.Module):
    """Pixels from pixels, and scores of pixels for the mask."""

    def __init__(self, kernel: int, dropout: float) -> None:
        super().__init__()
        first, second, third, last = PIXEL_CHANNELS

        def conv(inputs: int, outputs: int) -> nn.Conv3d:
            return nn.Conv3d(inputs, outputs, (3, kernel, kernel), padding="same")

        self.convs = nn.Sequential(
            conv(3, first), conv(first, second), nn.PReLU(), conv(second, third), nn.PReLU(), conv(third, last)
        )
        self.colours = nn.Sequential(nn.Linear(last, last), nn.PReLU(), nn.Linear(last, 3))
        self.scores = nn.Conv3d(3, 1, SCORE_KERNEL, padding="same")
        self.dropout = nn.Dropout(dropout)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, H, W) to the same shape; dropout once before, twice behind the last map, as published."""
        pixels = self.dropout(self.convs(video)).movedim(1, -1)
        return self.dropout(self.dropout(self.colours(pixels))).movedim(-1, 1)


class InterFramePrompt(nn.Module):
    """Rows for each frame from the patches of all frames."""

    def __init__(self, dim: int, patches: int, slots: int, heads: int, kernel: list[int]) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.convs = nn.Sequential(
            nn.Conv3d(1, VOLUME_CHANNELS, (3, *kernel), padding="same"),
            nn.PReLU(),
            nn.Conv3d(VOLUME_CHANNELS, 1, (3, *kernel), padding="same"),
        )
        self.slots = nn.Sequential(nn.Linear(patches, SLOT_WIDTH), nn.PReLU(), nn.Linear(SLOT_WIDTH, slots))
        self.scores = nn.Conv3d(1, 1, SCORE_KERNEL, padding="same")

    def forward(self, patches: Tensor, marked: Tensor, over_batch: bool) -> Tensor:
        """Patches (B, T, N, D) and which are marked (B, T, N) to rows (B, T, slots, D), without their strength."""
        volume = self.attend(patches.flatten(1, 2)).unflatten(1, patches.shape[1:3])[:, None]  # (B, 1, T, N, D)
        rows = self.slots(self.convs(volume)[:, 0].transpose(2, 3)).transpose(2, 3)  # (B, T, slots, D)
        scores = at_least_float32(self.scores(volume)[:, 0]).mean(dim=-1)  # (B, T, N)
        scores = (scores * (1 + marked)).mean(dim=-1)
        return rows * (1 + between_0_and_1(scores, over_batch)[..., None, None].to(rows.dtype))

    def attend(self, x: Tensor) -> Tensor:
        """Attention over a sequence (B, L, D), which is long: weights are never held, not in evaluation either."""
        layer = self.attention
        inputs = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        query, key, value = inputs.unflatten(-1, (3, layer.num_heads, layer.head_dim)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, L, D / heads)
        return layer.out_proj(mixed.transpose(1, 2).flatten(2))


@torch.no_grad()
def highest_cells(scores: Tensor, side: int, count: int) -> Tensor:
    """Which cells score above all but `count` of their frame: (B, 1, T, H, W) to (B, T, rows, columns), bool.

    Cells at the lower and right edge may be smaller. There is always one that is not marked.
    """
    cells = F.avg_pool2d(at_least_float32(scores[:, 0]), side, ceil_mode=True)
    ordered = cells.flatten(2).sort(dim=-1, descending=True).values
    bar = ordered[..., min(count, ordered.shape[-1] - 1)]
    return cells > bar[..., None, None]


def enlarge(cells: Tensor, side: int) -> Tensor:
    """Each cell (..., rows, columns) as a square of that side."""
    return cells.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)


def between_0_and_1(scores: Tensor, over_batch: bool) -> Tensor:
    """Scores (B, T), the lowest of a clip, or of the batch, at 0 and the highest at 1; all 0 where they are equal."""
    axes = (0, 1) if over_batch else (1,)
    lowest, highest = scores.amin(axes, keepdim=True), scores.amax(axes, keepdim=True)
    return (scores - lowest) / (highest - lowest).clamp(min=torch.finfo(scores.dtype).tiny)
