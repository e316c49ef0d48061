"""The training loop of a data set, and the hyper-parameters that all methods share."""

from __future__ import annotations

from pydantic import Field, PositiveInt, field_validator

from ssp.config.sections.common import Fraction, Precision, Strict


class Augmentation(Strict):
    """Training-time transforms; one draw of parameters for all frames of a clip."""

    randaugment: str | None = Field(default=None, description="For example rand-m7-n4-mstd0.5-inc1; null: off.")
    scale: tuple[float, float] = Field(default=(0.08, 1.0), description="Area share of the random resized crop.")
    ratio: tuple[float, float] = Field(default=(0.75, 4 / 3), description="Aspect ratio of the random resized crop.")
    flip: Fraction = Field(default=0.5, description="Probability of a horizontal flip; 0 where direction is the class.")
    erasing: Fraction = Field(default=0.0, description="Probability of random erasing.")
    mixup: float = Field(default=0.0, ge=0, description="Beta parameter of mixup; 0: off.")
    cutmix: float = Field(default=0.0, ge=0, description="Beta parameter of CutMix; 0: off.")
    mix_videos: PositiveInt | None = Field(
        default=None, description="Videos of a step that share a draw of mixup or CutMix (even); null: all of them."
    )
    repeats: PositiveInt = Field(
        default=1, description="Augmented clips drawn from one decode (repeated augmentation)."
    )

    @field_validator("mix_videos")
    @classmethod
    def _whole_pairs(cls, videos: int | None) -> int | None:
        if videos and videos % 2:
            raise ValueError("tears mixing pairs apart; give an even number")
        return videos


class CoBatched(Strict):
    """Which clips share a forward pass in evaluation: what a gate over the batch (published) makes logits depend on."""

    devices: PositiveInt = Field(
        description="Clips are dealt out in turn, one view of all videos after the other, to as many devices' batches."
    )
    validation: PositiveInt = Field(description="Clips of a batch where an epoch is measured.")
    test: PositiveInt = Field(description="Clips of a batch at test.")


class Recipe(Strict):
    """The training loop of a data set, the same for every method."""

    epochs: PositiveInt = Field(description="Passes over the training videos.")
    warmup_epochs: float = Field(default=0, ge=0, description="Epochs in which the learning rate rises to its peak.")
    batch_size: PositiveInt = Field(description="Videos per optimizer step, whatever the number of devices.")
    micro_batch: PositiveInt | None = Field(default=None, description="Videos per forward pass; null: the whole batch.")
    co_batched: CoBatched | None = Field(
        default=None, description="Batches of evaluation; null: clips in order, twice as many as videos a forward pass."
    )
    label_smoothing: Fraction = Field(default=0.1, description="Share of the label that all classes get equally.")
    clip_grad: float | None = Field(default=None, gt=0, description="Largest gradient norm; null: not clipped.")
    precision: Precision = Field(default="auto", description="auto: bfloat16 autocast on GPU, float32 on CPU.")
    augmentation: Augmentation = Field(default=Augmentation(), description="Training-time transforms.")

    @property
    def warmup_share(self) -> float:
        """Share of a training that warms up, however many epochs it has."""
        return min(self.warmup_epochs / self.epochs, 1.0)


class Hyperparameters(Strict):
    """The shared hyper-parameters; a method adds its own by naming options in its space."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.05, ge=0, description="Of matrices; biases and vectors have none.")
    drop_path: Fraction = Field(default=0.0, description="Drop path rate of the last block (linear from 0).")
