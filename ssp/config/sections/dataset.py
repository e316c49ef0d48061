"""One data set, from its archives to the recipe that models are trained with on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from ssp.config.sections.archives import Archive
from ssp.config.sections.common import LocalPath, Name, OfSplits, Strict
from ssp.config.sections.data import CarvedTest, Clips, Expected, Frames, Generate, Validation
from ssp.config.sections.search import Fidelity
from ssp.config.sections.training import Hyperparameters, Recipe


class Dataset(Strict):
    """One data set: where it comes from, how it is read, and how models are trained on it."""

    source: str = Field(description="Module under ssp/data/sources that knows layout and annotation format.")
    expected: Expected | None = Field(
        default=None,
        description="What the data set contains. Without it, which own videos alone may be, what is there is taken.",
    )
    archives: list[Archive] = Field(default=[], description="Files that a published data set comes in.")
    videos: LocalPath | None = Field(
        default=None,
        description="Own videos in place of archives: their folder (source `folder`) or a CSV beside them (source "
        "`table`). They are read where they are.",
    )
    layout: str | None = Field(
        default=None,
        description="Source `folder` alone: how paths below it read; null: `{class}/**`, or `{split}/{class}/**`.",
    )
    test: CarvedTest | None = Field(
        default=None, description="Own videos without a split: how test is carved; null: the split is there."
    )
    local: LocalPath | None = Field(
        default=None,
        description="Folder that holds these archives already, or folders of their names; nothing is fetched.",
    )
    licence_page: str | None = Field(
        default=None, description="Where a person accepts the licence and downloads archives that have no urls."
    )
    generate: Generate | None = Field(default=None, description="Demo and rehearsal: make the archives from a seed.")
    split: Annotated[PositiveInt, OfSplits] = Field(
        default=1,
        description="Number of the published split. A list: each is trained on, and tables show the mean over them.",
    )
    # Left out of every copy where it is not given, and decides nothing that `split` does not.
    split_of: Name | None = Field(
        default=None,
        exclude_if=lambda name: name is None,
        description="Set by a list of splits: the data set that this is a split of.",
    )
    stereo_channels: Literal[1, 2] = Field(
        default=1, description="Breakfast alone: channels of its stereo camera that are listed; the lists have one."
    )
    validation: Validation = Field(default=Validation(), description="How validation is carved from train.")
    frames: Frames = Field(description="The frame store.")
    clips: Clips = Field(description="Which frames make a clip.")
    checkpoint: Name = Field(description="Which of backbone.checkpoints is tuned.")
    recipe: Recipe = Field(description="The training loop.")
    fidelity: Fidelity = Field(
        default=None, description="Rungs of the search on this data set; go before what `sweep` says."
    )
    start: Hyperparameters = Field(
        description="First trial of rows that say nothing else; drop path and weight decay of all without a search."
    )

    @field_validator("archives")
    @classmethod
    def _each_once(cls, archives: list[Archive]) -> list[Archive]:
        files = [archive.file for archive in archives]
        twice = next((file for file in files if files.count(file) > 1), None)
        if twice:
            raise ValueError(f"'{twice}' is there twice; remove one")
        return archives
