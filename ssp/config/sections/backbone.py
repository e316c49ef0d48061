"""The pre-trained model that every method tunes, and where its weights come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ssp.config.sections.archives import Archive
from ssp.config.sections.common import Fraction, LocalPath, Name, Strict


class Architecture(Strict):
    """A VideoMamba that is not one of the published sizes."""

    embed_dim: PositiveInt = Field(description="Width of a token, D.")
    depth: PositiveInt = Field(description="Blocks.")
    patch_size: PositiveInt = Field(default=16, description="Side of a square patch in pixels.")


class Pretrain(Strict):
    """Demo only: pre-training on generated source classes, disjoint from the classes of every data set."""

    seed: NonNegativeInt = Field(description="Of the clips and of the training.")
    clips: PositiveInt = Field(description="Generated training clips.")
    held_out: PositiveInt = Field(description="Generated clips that measure the result.")
    steps: PositiveInt = Field(description="Optimizer steps.")
    batch_size: PositiveInt = Field(description="Clips per optimizer step.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    warmup: Fraction = Field(default=0.1, description="Share of the steps that warm up.")
    weight_decay: float = Field(default=0.05, ge=0, description="As in `start`.")
    clip_grad: float = Field(default=1.0, gt=0, description="Largest gradient norm.")


class Checkpoint(Strict):
    """Where a pre-trained backbone comes from: addresses, a local file, or a pre-training run."""

    num_frames: PositiveInt = Field(description="Frames of the clips that it was pre-trained on.")
    archive: Archive | None = Field(default=None, description="A file to fetch.")
    local: LocalPath | None = Field(default=None, description="A file that is already here; nothing is fetched then.")
    pretrain: Pretrain | None = Field(default=None, description="A run on generated source classes.")

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        if sum(x is not None for x in (self.archive, self.local, self.pretrain)) != 1:
            raise ValueError("give exactly one of archive, local, pretrain")
        return self


class Backbone(Strict):
    """The pre-trained video state-space model that every method tunes."""

    architecture: Literal["videomamba_tiny", "videomamba_small", "videomamba_middle"] | Architecture = Field(
        description="A published size, or a mapping of embed_dim, depth and patch_size."
    )
    image_size: PositiveInt = Field(description="Side of the square clips in pixels.")
    checkpoints: dict[Name, Checkpoint] = Field(
        description="Pre-trained weights by name; data sets say which they tune."
    )
