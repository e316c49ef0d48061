"""State Space Prompting (SSP): intra-frame gathering, inter-frame spreading, and an entropy gate.

- Computes what the published code computes, number for number, without its in-place writes.
- Intra-frame gathering (IFG, `inner_prompt`) is one low-rank map for all blocks: every patch row gets a prompt F added,
  and its detached middle, gathered over the whole patch grid, gives one vector I per frame.
- Inter-frame spreading (IFS, `prompt_attentions`) writes prompt rows behind each frame's patches: attention over frames
  of the frame summary (the last patch's row of the previous mixer output, before F is added), times I. Before block 0
  these rows are blank: zeros without any position embedding.
- Entropy gate: frames whose F is sharper than that of others weigh more; a scalar per block (`dynamic_scales`) says by
  how much. No gradient flows through the gate.
- `entropy_norm` names the one quirk of the published model: entropy is divided by its maximum over the *whole batch*
  ("published"), so that a clip's logits depend on the others, or by its maximum over the clip ("fixed").
- All of this acts on `hidden`, hence on the branch, and passes drop path with it, except before block 0.
- Whoever wants to see what a forward pass did (`ssp.methods.observe`) sets `observer`; it is shown the very tensors.

Zhou et al., State Space Prompting via Gathering and Spreading Spatio-Temporal Information for Video Understanding,
NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn

from ssp.backbone.layout import Streams, TokenLayout
from ssp.backbone.videomamba import Pass
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

HEADS = 8
ENTROPY_EPS = 1e-10


class Observation(NamedTuple):
    """What SSP used before one block; the last two are None before block 0, which has neither gate nor attention."""

    block: int
    patches: Tensor  # (B, T, patches, D): the branch output that F is added to
    prompt: Tensor  # F (B, T, patches, D)
    gate: Tensor | None  # (B, T), summing to 1 over T
    summary: Tensor | None  # (B, T, D): what the attention over frames is given


class StateSpacePrompting(TuningMethod):
    """SSP behind the interface of every method."""

    name = "ssp"
    explainable = True
    title = "SSP"
    source = "NeurIPS 2025; zhoujiahuan1991/NeurIPS2025-SSP"
    test_configs: ClassVar = [{"inner_dim": 12, "attn_dim": 16, "num_prompts": 2}]
    observer: Callable[[Observation], None] | None = None  # called before every block

    class Options(Strict):
        """The defaults are the published sizes."""

        inner_dim: PositiveInt = Field(default=384, description="Width of the gathering bottleneck.")
        attn_dim: PositiveInt = Field(default=256, description="Width of the attention over frames; 8 heads.")
        num_prompts: PositiveInt = Field(default=3, description="Prompt rows behind each frame.")
        entropy_norm: Literal["fixed", "published"] = Field(
            default="fixed", description="Maximum entropy per clip, or over the whole batch as in the published code."
        )

        @field_validator("attn_dim")
        @classmethod
        def _heads_divide(cls, value: int) -> int:
            if value % HEADS:
                raise ValueError(f"must be a multiple of {HEADS}, the number of heads")
            return value

    def attach(self, model: VideoMamba) -> None:
        """Register the shared maps and the scales under their published names, and choose the parts."""
        options, dim = self.options, model.cls_token.shape[-1]
        model.inner_prompt = IntraFrameGathering(dim, options.inner_dim, model.bare_layout.grid)
        model.dynamic_scales = nn.ParameterList(torch.zeros(1) for _ in range(len(model.layers) - 1))
        model.prompt_attentions = nn.ModuleList(
            InterFrameSpreading(dim, options.attn_dim) for _ in range(options.num_prompts)
        )
        self.parts = Parts(
            gather=model.inner_prompt,
            summarise=last_patch,
            gate=partial(entropy_gate, over_batch=options.entropy_norm == "published"),
            spread=partial(spread_by_attention, model.prompt_attentions),
        )

    def expected_parameters(self, model: VideoMamba) -> int:
        """Gathering, P times spreading, and a scalar for every block but the first."""
        dim, k, a = model.cls_token.shape[-1], self.options.inner_dim, self.options.attn_dim
        gathering = (dim * k + k) + 2 * k + (k * dim + dim) + (k * model.bare_layout.patches + k) + (k * dim + dim)
        spreading = (dim * a + a) + 4 * (a * a + a) + (a * dim + dim) + 1
        return gathering + self.options.num_prompts * spreading + len(model.layers) - 1

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Prompt rows behind each frame's patches."""
        return replace(layout, per_frame=self.options.num_prompts)

    def before_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Add F to the patch rows and, from block 1 on, overwrite the prompt rows."""
        frames = current.layout.split_frames(streams.hidden)
        patches, slots = frames.split([current.layout.patches, current.layout.per_frame], dim=2)
        prompt, gathered = self.parts.gather(patches)
        gate = summary = None
        if index > 0:
            gate = self.parts.gate(prompt.detach())
            scale = current.model.dynamic_scales[index - 1]
            # The gate is float32 at least, for its entropy; what it acts on stays in the model's precision.
            summary = self.parts.summarise(patches) * (1 + scale * gate[..., None].to(scale.dtype))  # (B, T, D)
            slots = self.parts.spread(summary, gathered)
        if self.observer:
            self.observer(Observation(index, patches, prompt, gate, summary))
        frames = torch.cat([patches + prompt, slots], dim=2)
        return Streams(current.layout.join_frames(streams.hidden, frames), streams.residual)


class Parts(NamedTuple):
    """What SSP is made of, chosen once in `attach`: a variant exchanges a part, and `before_block` stays as it is."""

    gather: Callable[[Tensor], tuple[Tensor, Tensor]]  # patches (B, T, N, D) to F (B, T, N, D) and I (B, T, D)
    summarise: Callable[[Tensor], Tensor]  # patches (B, T, N, D) to one vector a frame (B, T, D)
    gate: Callable[[Tensor], Tensor]  # F (B, T, N, D) to the weight of each frame (B, T)
    spread: Callable[[Tensor, Tensor], Tensor]  # gated summaries and I, each (B, T, D), to prompt rows (B, T, P, D)


def last_patch(patches: Tensor) -> Tensor:
    """The last patch's row of each frame, which a forward scan has carried the frame to: (B, T, N, D) to (B, T, D)."""
    return patches[:, :, -1]


def spread_by_attention(spreads: Iterable[InterFrameSpreading], summary: Tensor, gathered: Tensor) -> Tensor:
    """Prompt rows (B, T, P, D): attention over frames of the summaries, by each of P maps, times what was gathered."""
    return torch.stack([spread(summary) * gathered for spread in spreads], dim=2)


def entropy_gate(prompt: Tensor, *, over_batch: bool) -> Tensor:
    """Weight of each frame, (B, T), summing to 1 over T, from the prompts F (B, T, patches, D) of its patches."""
    prompt = prompt.to(torch.promote_types(prompt.dtype, torch.float32))
    shares = prompt.softmax(dim=-1)
    entropy = -(shares * torch.log(shares + ENTROPY_EPS)).sum(dim=-1)  # (B, T, patches)
    # Per clip, a clip whose every F is a single spike (entropy 0) gets equal weights; the published code divides by 0.
    largest = entropy.max() if over_batch else entropy.amax(dim=(1, 2), keepdim=True).clamp(min=ENTROPY_EPS)
    return (1 - entropy / largest).mean(dim=-1).softmax(dim=1)


class IntraFrameGathering(nn.Module):
    """Low-rank prompt of each patch, and one gathered vector per frame."""

    def __init__(self, dim: int, inner_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner_dim)
        self.conv = nn.Conv3d(inner_dim, inner_dim, kernel_size=1, groups=inner_dim)
        self.fc2 = nn.Linear(inner_dim, dim)
        self.inter = FrameGathering(inner_dim, dim, grid)
        for parameter in (self.fc1.bias, self.fc2.bias, self.conv.weight, self.conv.bias):
            nn.init.zeros_(parameter)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, T, N, D) to prompts F (B, T, N, D) and gathered I (B, T, D)."""
        # A depthwise 1x1x1 convolution is a scale and a shift per channel.
        middle = self.fc1(patches) * self.conv.weight.flatten() + self.conv.bias
        return self.fc2(middle), self.inter(middle.detach())


class FrameGathering(nn.Module):
    """One vector per frame: a depthwise convolution as large as the patch grid, then a linear map."""

    def __init__(self, inner_dim: int, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.convs = nn.Conv3d(inner_dim, inner_dim, kernel_size=(1, *grid), groups=inner_dim)
        self.heads = nn.Linear(inner_dim, dim)
        nn.init.xavier_normal_(self.heads.weight)
        for parameter in (self.heads.bias, self.convs.weight, self.convs.bias):
            nn.init.zeros_(parameter)

    def forward(self, middle: Tensor) -> Tensor:
        """Middle (B, T, N, inner) to (B, T, D)."""
        # The kernel covers the grid exactly: one weighted sum over the patches, per channel.
        summed = torch.einsum("btnc,cn->btc", middle, self.convs.weight.flatten(1)) + self.convs.bias
        return self.heads(summed)


class InterFrameSpreading(nn.Module):
    """Prompt of each frame from the summaries of all frames, by low-rank attention."""

    def __init__(self, dim: int, attn_dim: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(dim, attn_dim)
        self.attention = nn.MultiheadAttention(attn_dim, HEADS)
        self.up_proj = nn.Linear(attn_dim, dim)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, summary: Tensor) -> Tensor:
        """Summaries (B, T, D) to prompts (B, T, D)."""
        x, _ = self._attend(summary, need_weights=False)
        return self.up_proj(x.transpose(0, 1)) * self.scale

    def weights(self, summary: Tensor) -> Tensor:
        """Attention weights (B, heads, T, T) of summaries (B, T, D): what each frame (row) takes from each frame."""
        return self._attend(summary, need_weights=True)[1]

    def _attend(self, summary: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        x = self.down_proj(summary).transpose(0, 1)  # frames first
        return self.attention(x, x, x, need_weights=need_weights, average_attn_weights=False)
