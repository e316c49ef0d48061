"""What flows between blocks, and which row of it is what: the vocabulary that backbone and tuning methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Place = Literal["before_cls", "after_cls", "per_frame", "suffix"]
"""Where a layout can have added rows."""


class Streams(NamedTuple):
    """The two streams between blocks, each (B, L, D)."""

    hidden: Tensor
    residual: Tensor | None


@dataclass(frozen=True)
class TokenLayout:
    """Which row of a stream is what: before_cls, cls, after_cls, then per frame its patches and per_frame, then suffix.

    Patches are in raster order. Only the class token's row reaches the head; every other row acts through the scans.
    """

    frames: int
    grid: tuple[int, int]
    before_cls: int = 0
    after_cls: int = 0
    per_frame: int = 0
    suffix: int = 0

    @property
    def patches(self) -> int:
        """Patches of one frame."""
        return self.grid[0] * self.grid[1]

    @property
    def cls(self) -> int:
        """Row of the class token, the one that reaches the head."""
        return self.before_cls

    @property
    def frames_start(self) -> int:
        """First row of the first frame."""
        return self.before_cls + 1 + self.after_cls

    @property
    def frames_stop(self) -> int:
        """Row after the last frame."""
        return self.frames_start + self.frames * (self.patches + self.per_frame)

    @property
    def length(self) -> int:
        """All rows, L."""
        return self.frames_stop + self.suffix

    def split_frames(self, stream: Tensor) -> Tensor:
        """The rows of the frames as (B, T, patches + per_frame, D), a view of stream (B, L, D)."""
        rows = stream[:, self.frames_start : self.frames_stop]
        return rows.unflatten(1, (self.frames, self.patches + self.per_frame))

    def join_frames(self, stream: Tensor, frames: Tensor) -> Tensor:
        """A new stream with other frame rows: frames (B, T, patches + per_frame, D) in place of stream's own."""
        return torch.cat([stream[:, : self.frames_start], frames.flatten(1, 2), stream[:, self.frames_stop :]], dim=1)

    def set_rows(self, stream: Tensor, place: Place, rows: Tensor) -> Tensor:
        """A new stream with other rows in a place of added rows.

        Args:
            stream: (B, L, D).
            place: one of the layout's fields for added rows.
            rows: (count, D), or (B, count, D); per frame also (B, T, count, D). Taken in the dtype of the stream.
        """
        rows, batch = rows.to(stream.dtype), len(stream)
        if place == "per_frame":
            patches = self.split_frames(stream)[:, :, : self.patches]
            rows = rows.unsqueeze(1) if rows.dim() == 3 else rows
            return self.join_frames(stream, torch.cat([patches, rows.expand(batch, self.frames, -1, -1)], dim=2))
        start = {"before_cls": 0, "after_cls": self.cls + 1, "suffix": self.frames_stop}[place]
        stop = start + rows.shape[-2]
        return torch.cat([stream[:, :start], rows.expand(batch, -1, -1), stream[:, stop:]], dim=1)

    def insert(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + T * patches, D) of the bare backbone with all added rows in their places, zero."""
        batch, _, dim = tokens.shape

        def blank(*rows: int) -> Tensor:
            return tokens.new_zeros(batch, *rows, dim)

        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (self.frames, self.patches))
        frames = torch.cat([patches, blank(self.frames, self.per_frame)], dim=2).flatten(1, 2)
        return torch.cat([blank(self.before_cls), cls, blank(self.after_cls), frames, blank(self.suffix)], dim=1)


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classification head."""
    return name.startswith("head.")


def is_readout(name: str) -> bool:
    """Whether a parameter belongs to the head or the final norm, which train in every method."""
    return is_head(name) or name.startswith("norm_f.")
