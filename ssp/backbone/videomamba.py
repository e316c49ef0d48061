"""VideoMamba: a bidirectional state-space model over the patches of all frames, with the published parameter names.

- Rows: a class token, then the patches of frame 1, frame 2, ... in raster order; the spatial position embedding is
  added per frame (the class token has a place in it), the temporal one to patches only. The head reads the class token.
- A block has no MLP and two streams: residual <- residual + drop_path(hidden); hidden <- mixer(norm(residual)). Between
  blocks `hidden` is the last mixer's branch output. The residual sum is kept in float32 or better.
- Drop path: rates rise linearly over the layers with an extra zero in front, so that block i has the rate of i - 1; the
  full rate applies once more before the final norm (as published).
- A tuning method acts through the hooks of `Tuning` only; nothing here knows which methods there are.

Li et al., VideoMamba: State Space Model for Efficient Video Understanding, ECCV 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssp.backbone.layout import Streams, TokenLayout, is_readout
from ssp.backbone.mixer import Mixer, MixerTuning


class RMSNorm(nn.Module):
    """Root-mean-square norm in the precision of its input, float32 at least; result in the dtype of its weight."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x = at_least_float32(x)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps).to(self.weight.dtype)


class DropPath(nn.Module):
    """Drops a residual branch per clip with probability `rate` while training, and scales the kept ones up.

    `uniform` (B,), in [0, 1), decides for each clip of a pass: who trains draws it, so that a clip's draw is its own
    whatever it shares a pass with. None: it is drawn here, from torch's generator.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.uniform: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Branch (B, ...), with all of a clip kept or dropped."""
        if not self.training or self.rate == 0:
            return branch
        clips, keep = branch.shape[0], 1 - self.rate
        uniform = torch.rand(clips, device=branch.device) if self.uniform is None else self.uniform
        mask = (uniform < keep).to(branch.dtype).view(clips, *(1,) * (branch.dim() - 1))
        return branch * (mask / keep if keep else mask)


class PatchEmbed(nn.Module):
    """Patches of each frame to vectors: (B, 3, T, H, W) to (B, D, T, rows, columns)."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        kernel = (1, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel, stride=kernel)

    def forward(self, video: Tensor) -> Tensor:
        """Embed; a margin narrower than a patch is left out."""
        return self.proj(video)


class Block(nn.Module):
    """Add, norm, mix: (hidden, residual) to (the mixer's output, the sum that was normalised)."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = Mixer(dim)
        self.norm = RMSNorm(dim)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor | None = None,
        tuning: MixerTuning | None = None,
        summed: Callable[[Tensor], Tensor] | None = None,
        normed: Callable[[Tensor], Tensor] | None = None,
    ) -> Streams:
        """Streams (B, L, D) in and out.

        Args:
            hidden: the last mixer's output, or the embedding.
            residual: the running sum without it; None before the first block.
            tuning: what acts inside the mixer.
            summed: what acts on the sum before it is normalised and becomes the next residual.
            normed: what acts on the normalised sum before it is mixed.
        """
        residual = at_least_float32(hidden) if residual is None else residual + self.drop_path(hidden)
        residual = summed(residual) if summed else residual
        rows = normed(self.norm(residual)) if normed else self.norm(residual)
        return Streams(self.mixer(rows, tuning), residual)


@dataclass
class Pass:
    """One forward pass: the model, the layout of its rows, and what the method remembers from hook to hook."""

    model: VideoMamba
    layout: TokenLayout
    memory: dict[str, Any] = field(default_factory=dict)


class Tuning(Protocol):
    """What the backbone calls on its way; `ssp.methods.method.TuningMethod` says what each is for."""

    def attach(self, model: VideoMamba) -> None:
        """Once, when the model is built."""

    def after_loading(self, model: VideoMamba) -> None:
        """Whenever the frozen weights have become those that are tuned."""

    def video(self, current: Pass, video: Tensor) -> Tensor:
        """Before the patch embedding."""

    def layout(self, layout: TokenLayout) -> TokenLayout:
        """Rows to add."""

    def tokens(self, current: Pass, tokens: Tensor) -> Tensor:
        """After embedding."""

    def before_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """Before a block."""

    def summed(self, current: Pass, index: int, total: Tensor) -> Tensor:
        """Between a block's sum and its norm."""

    def normed(self, current: Pass, index: int, rows: Tensor) -> Tensor:
        """Between a block's norm and its mixer."""

    def mixer_tuning(self, current: Pass, index: int) -> MixerTuning | None:
        """Inside a block's mixer."""

    def after_block(self, current: Pass, index: int, streams: Streams) -> Streams:
        """After a block."""


class VideoMamba(nn.Module):
    """Backbone, head and, once attached, a tuning method: video (B, 3, T, H, W) to logits (B, classes)."""

    def __init__(
        self,
        method: Tuning,
        *,
        embed_dim: int,
        depth: int,
        patch_size: int,
        num_classes: int,
        num_frames: int,
        img_size: tuple[int, int],
        drop_path: float,
    ) -> None:
        """Build and initialise; `img_size` is (height, width) in pixels. Use `build_model`, which also freezes."""
        super().__init__()
        self.method, self.img_size = method, img_size
        grid = (img_size[0] // patch_size, img_size[1] // patch_size)
        self.bare_layout = TokenLayout(num_frames, grid)
        self.patch_embed = PatchEmbed(embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.bare_layout.patches, embed_dim))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        rates = [0.0] + [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.layers = nn.ModuleList(Block(embed_dim, rates[i]) for i in range(depth))
        self.drop_path = DropPath(drop_path)
        self.norm_f = RMSNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self._initialise()
        # The method comes last: it keeps its own initialisation, and the backbone's draws do not depend on it.
        published = {name for name, _ in self.named_parameters()}
        method.attach(self)
        self.added = frozenset(name for name, _ in self.named_parameters() if name not in published)

    def _initialise(self) -> None:
        """As published: linear layers normal(0.02), zero bias (dt_proj's too); out_proj uniform, over sqrt(depth)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.layers:
            weight = block.mixer.out_proj.weight
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            with torch.no_grad():
                weight /= math.sqrt(len(self.layers))

    def embed(self, video: Tensor) -> Tensor:
        """Tokens (B, 1 + T * patches, D) of a video (B, 3, T, H, W)."""
        expected = (3, self.bare_layout.frames, *self.img_size)
        if video.dim() != 5 or tuple(video.shape[1:]) != expected:
            raise ValueError(f"this model takes videos of shape (batch, {', '.join(map(str, expected))}), "
                             f"not {tuple(video.shape)}")  # fmt: skip
        patches = self.patch_embed(video).flatten(3).permute(0, 2, 3, 1)  # (B, T, patches, D)
        patches = patches + self.pos_embed[:, 1:] + self.temporal_pos_embedding[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(video.shape[0], -1, -1)
        return torch.cat([cls, patches.flatten(1, 2)], dim=1)

    def forward_features(self, video: Tensor) -> Tensor:
        """Class-token row (B, D) of the final sum, which final norm and head, trained in every method, read."""
        current = Pass(self, self.method.layout(self.bare_layout))
        video = self.method.video(current, video)
        streams = Streams(self.method.tokens(current, current.layout.insert(self.embed(video))), None)
        for index, block in enumerate(self.layers):
            streams = self.method.before_block(current, index, streams)
            summed, normed = (partial(hook, current, index) for hook in (self.method.summed, self.method.normed))
            streams = block(*streams, self.method.mixer_tuning(current, index), summed, normed)
            streams = self.method.after_block(current, index, streams)
        row = current.layout.cls
        return streams.residual[:, row] + self.drop_path(streams.hidden[:, row])

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether nothing in front of the final norm changes in training: no parameter there, and no buffer."""
        trained = [name for name, p in self.named_parameters() if p.requires_grad]
        return all(map(is_readout, (*trained, *(name for name, _ in self.named_buffers()))))

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of what `forward_features` gives."""
        return self.head(self.norm_f(features))

    def forward(self, video: Tensor) -> Tensor:
        """Logits (B, classes) of normalised videos (B, 3, T, H, W)."""
        return self.forward_head(self.forward_features(video))


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision, else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
