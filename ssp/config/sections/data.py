"""What a data set contains, how it is split, decoded and cut into clips."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ssp.config.sections.common import Fraction, OfSplits, Strict


class Expected(Strict):
    """What the published data set contains; the manifest is compared with it."""

    classes: PositiveInt = Field(description="Classes of the data set, outputs of the head.")
    train: Annotated[PositiveInt, OfSplits] = Field(
        description="Videos of the training list (before validation is carved from it); a list for a list of splits."
    )
    test: Annotated[PositiveInt, OfSplits] = Field(description="Videos of the test list; a list for a list of splits.")
    # Left out of every copy where it is not given: a manifest does not depend on it then.
    clips: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda clips: clips is None,
        description="Videos among the unpacked files, whether a split uses them or not; null: not compared.",
    )


class Generate(Strict):
    """Demo and rehearsal: a rule generates the archives of this data set from a seed instead of fetching them."""

    seed: NonNegativeInt = Field(description="Of the videos; other data sets should have others.")
    train: PositiveInt = Field(description="Training videos over all classes.")
    test: PositiveInt = Field(description="Test videos over all classes.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="Width and height in pixels.")
    seconds: tuple[float, float] = Field(description="Shortest and longest duration.")
    fps: PositiveInt = Field(description="Frames per second.")
    # Left out of every copy where it is not given: no demo depends on it.
    classes: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda classes: classes is None,
        description="Rehearsal: classes that the lists name; the first and the last have videos. null: the demo's own.",
    )


class CarvedTest(Strict):
    """Own videos without a split: how test is carved from all of them, as validation is from train."""

    fraction: float = Field(
        default=0.25, gt=0, lt=1, description="Share of each class's videos, as nearly as whole groups allow."
    )
    seed: NonNegativeInt = Field(default=0, description="Of the draw of groups.")


class Validation(Strict):
    """How validation is carved from train: whole groups, stratified over classes, seeded."""

    fraction: Fraction = Field(
        default=0.2,
        description="Share of each class's training videos, as nearly as whole groups allow; 0: none, for no search.",
    )
    seed: NonNegativeInt = Field(
        default=0, description="Of the draw of groups, and of the part of the training videos that a rung may take."
    )
    folds: PositiveInt = Field(
        default=1,
        description="Disjoint sets of groups that a trial is validated on, each after a training on all other videos; "
        "the first is the one of 1.",
    )

    @model_validator(mode="after")
    def _folds_fit(self) -> Validation:
        if self.folds * self.fraction > 1 + 1e-9:
            raise ValueError(
                f"folds: {self.folds} of {self.fraction:g} of the videos are more than there are; ask for fewer"
            )
        return self


class Frames(Strict):
    """The frame store: every video decoded once into JPEG frames."""

    shards: PositiveInt = Field(description="Jobs the decoding is scattered over.")
    short_side: PositiveInt | None = Field(default=None, description="Shrink to this short side; never enlarges.")
    jpeg_quality: int = Field(
        default=95,
        ge=1,
        le=100,
        description="At 95 logits move about as little as at 100, with half the bytes (benchmarks/jpeg_quality.py).",
    )
    max_broken: Fraction = Field(default=0.01, description="Share of undecodable videos above which the job fails.")
    timeout_s: float = Field(default=120, gt=0, description="Time limit for one video.")


class Clips(Strict):
    """Which frames of a video make a clip, and the views that a test prediction is averaged over."""

    sampling: Literal["dense", "sparse", "kinetics_sparse"] = Field(
        description="Windows of consecutive frames; one frame a segment; the same with segments of fractional length."
    )
    num_frames: PositiveInt = Field(description="Frames of a clip.")
    stride: PositiveInt = Field(default=1, description="Frames between two samples (dense only).")
    test_segments: PositiveInt = Field(default=1, description="Temporal views at test.")
    test_crops: PositiveInt = Field(default=1, description="Spatial views at test.")
