"""State Space Prompting (SSP): intra-frame gathering, inter-frame spreading, and an entropy gate.

- Computes what the published code computes, number for number, without its in-place writes.
- Intra-frame gathering (IFG, `inner_prompt`) is one low-rank map for all blocks: every patch row gets a prompt F added,
  and its detached middle, gathered over the whole patch grid, gives one vector I per frame.
- Inter-frame spreading (IFS, `prompt_attentions`) writes prompt rows behind each frame's patches: attention over frames
  of the frame summary (the last patch's row of the previous mixer output, before F is added), times I. Before block 0
  these rows are blank: zeros without any position embedding.
- Entropy gate: frames whose F is sharper than that of others weigh more; a scalar per block (`dynamic_scales`) says by
  how much. No gradient flows through the gate.
- All of this acts on `hidden`, hence on the branch, and passes drop path with it, except before block 0.
- What an ablation leaves out or exchanges is an option, and so is every point where the paper's words say otherwise
  than its code does; the defaults are the code's. Of those words no formula is public beyond the names: each value
  for them is our reading. docs/fidelity.md has the table.
- `entropy_norm` names the one quirk of the published model: entropy is divided by its maximum over the *whole batch*
  ("published"), so that a clip's logits depend on the others, or by its maximum over the clip ("fixed").
- Whoever wants to see what a forward pass did (`ssp.methods.observe`) sets `observer`; it is shown the very tensors.

Zhou et al., State Space Prompting via Gathering and Spreading Spatio-Temporal Information for Video Understanding,
NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from ssp.backbone.layout import Streams, TokenLayout
from ssp.backbone.videomamba import Pass
from ssp.config import Strict
from ssp.methods.method import TuningMethod

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba

HEADS = 8
ENTROPY_EPS = 1e-10

VARIANTS = (  # small, for the contract tests: the published model, then what each other one changes
    {"inner_dim": 12, "attn_dim": 16, "num_prompts": 2},
    {"num_prompts": 0},
    {"gathering": False},
    {"gathering": False, "entropy_of": "patches"},
    {"spreading": False},
    {"gate": False},
    {"kernel": 3, "attached": True},
    {"shared": False, "kernel": 3},
    {"shared": False, "num_prompts": 0},
    {"summary": "mean", "pooling": "variance"},
    {"summary": "cls", "entropy_of": "patches"},
    {"joins": "mixer_input"},
)
Pooling = Literal["learned", "variance"]
Summary = Literal["last_patch", "mean", "cls"]


class Observation(NamedTuple):
    """What SSP used before one block; the last two are None before block 0, which has neither gate nor attention."""

    block: int
    patches: Tensor  # (B, T, patches, D): what F is added to
    prompt: Tensor | None  # F (B, T, patches, D); None without gathering
    gate: Tensor | None  # (B, T), summing to 1 over T; None without a gate
    summary: Tensor | None  # (B, T, D): what the attention over frames is given; None without spreading


class StateSpacePrompting(TuningMethod):
    """SSP behind the interface of every method."""

    name = "ssp"
    title = "SSP"
    source = "NeurIPS 2025; zhoujiahuan1991/NeurIPS2025-SSP"
    test_configs: ClassVar = [{**VARIANTS[0], **changes} for changes in VARIANTS]
    observer: Callable[[Observation], None] | None = None  # called before every block

    class Options(Strict):
        """The defaults are the published sizes and code. Options of a part that is switched off have no effect."""

        inner_dim: PositiveInt = Field(default=384, description="Width of the gathering bottleneck.")
        attn_dim: PositiveInt = Field(default=256, description="Width of the attention over frames; 8 heads.")
        num_prompts: NonNegativeInt = Field(default=3, description="Prompt rows behind each frame; 0: none.")
        entropy_norm: Literal["fixed", "published"] = Field(
            default="fixed", description="Maximum entropy per clip, or over the whole batch as in the published code."
        )
        gathering: bool = Field(
            default=True,
            description="F on the patches, and I, which prompt rows are multiplied by. Without it patches stay as they "
            "are and prompt rows are the attention's output alone.",
        )
        spreading: bool = Field(
            default=True, description="Attention over frames. Without it prompt rows are their own frame's I alone."
        )
        gate: bool = Field(
            default=True,
            description="Weighs frames for spreading; none without spreading, or without what entropy_of names.",
        )
        kernel: Literal[1, 3] = Field(
            default=1,
            description="Side of gathering's depthwise convolution over the patch grid of each frame: 1, a scale and a "
            "shift of each channel, or 3, with the 8 patches around (zeros beyond the frame's edge).",
        )
        shared: bool = Field(default=True, description="One gathering for all blocks, or one for each.")
        pooling: Pooling = Field(
            default="learned",
            description="How gathering makes I of a frame: learned weights over its patch grid, or each channel's "
            "variance over its patches; then a linear map.",
        )
        attached: bool = Field(default=False, description="Let the gradient pass from I to what F is made of.")
        summary: Summary = Field(
            default="last_patch",
            description="What spreading reads of a frame: its last patch's row, the mean over its patches, or the "
            "class token's row, which is the same for all frames.",
        )
        entropy_of: Literal["prompt", "patches"] = Field(
            default="prompt", description="What the gate takes the entropy of: F, or what F is added to."
        )
        joins: Literal["branch", "mixer_input"] = Field(
            default="branch",
            description="Where prompts are read from and put: the last mixer's output, before drop path, sum and norm, "
            "or the normed input of the mixer, which alone sees them then.",
        )

        @field_validator("attn_dim")
        @classmethod
        def _heads_divide(cls, value: int) -> int:
            if value % HEADS:
                raise ValueError(f"must be a multiple of {HEADS}, the number of heads")
            return value

        @model_validator(mode="after")
        def _something_is_left(self) -> StateSpacePrompting.Options:
            if not self.gathering and not (self.spreading and self.num_prompts):
                raise ValueError("nothing is left without gathering and spreading; give one, or take method linear")
            return self

    @property
    def identity_at_start(self) -> bool:
        """F is zero then. Rows that are added, even blank ones, are not the bare backbone."""
        return self.options.num_prompts == 0

    @property
    def spreads(self) -> bool:
        """Whether there is attention over frames."""
        return self.options.spreading and self.options.num_prompts > 0

    @property
    def gated(self) -> bool:
        """Whether there is a gate: something to weigh, and something to take the entropy of."""
        return self.options.gate and self.spreads and (self.options.gathering or self.options.entropy_of == "patches")

    @property
    def explainable(self) -> bool:
        """Whether there are all three: strength of prompts, gate and attention."""
        return self.options.gathering and self.gated

    def attach(self, model: VideoMamba) -> None:
        """Register the maps and the scales under their published names; per block, `inner_prompt` is a list."""
        options, dim, blocks = self.options, model.cls_token.shape[-1], len(model.layers)
        if options.gathering and options.shared:
            model.inner_prompt = self._new_gathering(model, pooled=options.num_prompts > 0)
        elif options.gathering:  # prompt rows before block 0 are blank, so nothing would read its I
            pooled = [options.num_prompts > 0 and index > 0 for index in range(blocks)]
            model.inner_prompt = nn.ModuleList(self._new_gathering(model, pooled=this) for this in pooled)
        if self.gated:
            model.dynamic_scales = nn.ParameterList(torch.zeros(1) for _ in range(blocks - 1))
        if self.spreads:
            model.prompt_attentions = nn.ModuleList(
                InterFrameSpreading(dim, options.attn_dim) for _ in range(options.num_prompts)
            )

    def _new_gathering(self, model: VideoMamba, *, pooled: bool) -> IntraFrameGathering:
        options = self.options
        return IntraFrameGathering(
            model.cls_token.shape[-1],
            options.inner_dim,
            model.bare_layout.grid,
            kernel=options.kernel,
            pooling=options.pooling if pooled else None,
            attached=options.attached,
        )

    def expected_parameters(self, model: VideoMamba) -> int:
        """Gathering once or per block, P times spreading, and a scalar for every block but the first."""
        options, blocks = self.options, len(model.layers)
        dim, k, a = model.cls_token.shape[-1], options.inner_dim, options.attn_dim
        low_rank = (dim * k + k) + (options.kernel**2 * k + k) + (k * dim + dim)
        pooled = (k * model.bare_layout.patches + k if options.pooling == "learned" else 0) + (k * dim + dim)
        spreading = (dim * a + a) + 4 * (a * a + a) + (a * dim + dim) + 1
        total = 0
        if options.gathering:
            total += low_rank * (1 if options.shared else blocks)
            total += pooled * (0 if options.num_prompts == 0 else 1 if options.shared else blocks - 1)
        if self.spreads:
            total += options.num_prompts * spreading
        return total + (blocks - 1 if self.gated else 0)

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Prompt rows behind each frame's patches."""
        return replace(layout, per_frame=self.options.num_prompts)

    def before_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Put the prompts into the branch."""
        if self.options.joins != "branch":
            return streams
        return Streams(self._prompted(current, index, streams.hidden), streams.residual)

    def normed(self, current: Pass, index: int, rows: Tensor) -> Tensor:
        """Put the prompts into what the mixer gets."""
        return self._prompted(current, index, rows) if self.options.joins == "mixer_input" else rows

    def _prompted(self, current: Pass, index: int, rows: Tensor) -> Tensor:
        """Rows (B, L, D) with F added to the patches and, from block 1 on, the prompt rows overwritten."""
        options, model, layout = self.options, current.model, current.layout
        patches, slots = layout.split_frames(rows).split([layout.patches, layout.per_frame], dim=2)
        prompt = gathered = gate = summary = None
        if options.gathering:
            gathering = model.inner_prompt if options.shared else model.inner_prompt[index]
            prompt, gathered = gathering(patches)
        if index > 0 and options.num_prompts:
            if self.gated:
                seen = prompt if options.entropy_of == "prompt" else patches
                gate = entropy_gate(seen.detach(), over_batch=options.entropy_norm == "published")
            if self.spreads:
                summary = summarise(patches, rows[:, layout.cls], options.summary)
                if gate is not None:
                    # The gate is float32 at least, for its entropy; what it acts on stays in the model's precision.
                    scale = model.dynamic_scales[index - 1]
                    summary = summary * (1 + scale * gate[..., None].to(scale.dtype))  # (B, T, D)
            slots = self._prompt_rows(model, summary, gathered)
        if self.observer:
            self.observer(Observation(index, patches, prompt, gate, summary))
        patches = patches if prompt is None else patches + prompt
        return layout.join_frames(rows, torch.cat([patches, slots], dim=2))

    def _prompt_rows(self, model: VideoMamba, summary: Tensor | None, gathered: Tensor | None) -> Tensor:
        """(B, T, P, D) from gated summaries and I, each (B, T, D), one of which may be missing."""
        if summary is None:
            return gathered[:, :, None].expand(-1, -1, self.options.num_prompts, -1)
        spread = [attention(summary) for attention in model.prompt_attentions]
        return torch.stack(spread if gathered is None else [rows * gathered for rows in spread], dim=2)


def summarise(patches: Tensor, cls: Tensor, by: Summary) -> Tensor:
    """One vector a frame (B, T, D), from patches (B, T, N, D) and the class token's row (B, D).

    The last patch is the one that a forward scan has carried the frame to.
    """
    if by == "cls":
        return cls[:, None].expand(-1, patches.shape[1], -1)
    return patches[:, :, -1] if by == "last_patch" else patches.mean(dim=2)


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

    def __init__(
        self,
        dim: int,
        inner_dim: int,
        grid: tuple[int, int],
        *,
        kernel: int = 1,
        pooling: Pooling | None = "learned",
        attached: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.attached = grid, attached
        self.fc1 = nn.Linear(dim, inner_dim)
        edge = kernel // 2
        self.conv = nn.Conv3d(inner_dim, inner_dim, (1, kernel, kernel), padding=(0, edge, edge), groups=inner_dim)
        self.fc2 = nn.Linear(inner_dim, dim)
        if pooling:
            self.inter = FrameGathering(inner_dim, dim, grid) if pooling == "learned" else FrameVariance(inner_dim, dim)
        for parameter in (self.fc1.bias, self.fc2.bias, self.conv.weight, self.conv.bias):
            nn.init.zeros_(parameter)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patches (B, T, N, D) to prompts F (B, T, N, D) and gathered I (B, T, D), None without pooling."""
        middle = self._convolved(self.fc1(patches))
        gathered = self.inter(middle if self.attached else middle.detach()) if hasattr(self, "inter") else None
        return self.fc2(middle), gathered

    def _convolved(self, middle: Tensor) -> Tensor:
        """Middle (B, T, N, inner) to the same, by the depthwise convolution."""
        if self.conv.weight[0].numel() == 1:  # a scale and a shift per channel
            return middle * self.conv.weight.flatten() + self.conv.bias
        planes = middle.flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)  # (B * T, inner, rows, columns)
        padding, channels = self.conv.padding[1:], planes.shape[1]
        planes = F.conv2d(planes, self.conv.weight[:, :, 0], self.conv.bias, padding=padding, groups=channels)
        return planes.flatten(2).transpose(1, 2).unflatten(0, middle.shape[:2])


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


class FrameVariance(nn.Module):
    """One vector per frame: each channel's variance over the patches, then a linear map."""

    def __init__(self, inner_dim: int, dim: int) -> None:
        super().__init__()
        self.heads = nn.Linear(inner_dim, dim)
        nn.init.xavier_normal_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, middle: Tensor) -> Tensor:
        """Middle (B, T, N, inner) to (B, T, D)."""
        return self.heads(middle.var(dim=2, correction=0))


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
