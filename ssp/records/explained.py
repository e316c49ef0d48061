"""What SSP attended to in test videos of a data set: facts beside a picture, as `explain` writes and the report reads.

Design choices
- JSON with the words and numbers of a caption, PNG with the picture. The JSON is written last and holds the picture's
  checksum, so a pair that a kill tore apart is noticed.
- It names the predictions of the run that it was made from: a picture of an earlier run is never shown as this one's.
- A failed run has no picture; its facts say why, and the workflow goes on.
- Light, as the Snakefile asks here which data sets there is a picture of: no torch, no pandas.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field, model_validator

from ssp.config import Config
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.record import Record, Stored, load_checked


def explained_datasets(config: Config) -> list[str]:
    """Data sets that an explanation is made of: all, where the config names a row to explain."""
    return list(config.datasets) if config.explained else []


class ExplainedClip(Stored):
    """One clip of the picture, from top to bottom."""

    id: str
    label: int
    name: str = Field(description="Of the label's class.")
    predicted: int = Field(description="What the run named the video, over all of its test views.")
    predicted_name: str
    probability: float = Field(description="Of the predicted class, over all test views.")
    view: int = Field(description="Which test view is shown.")
    gate: list[float] = Field(description="Weight of each frame, mean over blocks; sums to 1.")
    strength: tuple[float, float] = Field(description="|F| / |branch| of a patch, mean over blocks: least, largest.")

    @property
    def right(self) -> bool:
        """Whether the video was named right."""
        return self.predicted == self.label


class Origin(Stored):
    """The run that an explanation belongs to."""

    status: Literal["ok", "failed"]
    reason: str | None = None
    dataset: str
    seed: int
    config_hash: str
    predictions: str = Field(description="SHA-256 of the run's predictions, as its record has it.")

    @classmethod
    def of(cls, record: Record) -> Origin:
        """What a record says of its run."""
        plain = record.model_dump(include=set(cls.model_fields) - {"predictions"})
        return cls(**plain, predictions=record.predictions.sha256)


class Explained(Stored):
    """What SSP attended to in some test videos of a run that is done."""

    made_from: Origin
    weights: str | None = Field(default=None, description="SHA-256 of the tuned weights that were used.")
    picture: str | None = Field(default=None, description="SHA-256 of the picture beside this file.")
    clips: list[ExplainedClip] = Field(default=[])

    @model_validator(mode="after")
    def _status_says_all(self) -> Explained:
        if self.made_from.status == "ok" and not (self.clips and self.picture and self.weights):
            raise ValueError("a run that did not fail needs clips, picture and weights")
        return self


def load_explained(config: Config, record: Record) -> tuple[Explained, bytes]:
    """The explanation of a run, and its picture (PNG); empty where the run failed.

    Raises:
        RecordError: one of the two files is missing, broken, or made from another run.
    """
    paths, dataset = Paths.of(config), record.dataset
    path, again = paths.explained(dataset), f"run: {config.command('explain', dataset=dataset)}"
    explained = load_checked(Explained, path, "explanation", again)
    if explained.made_from != Origin.of(record):
        raise RecordError(f"{path}: made from another run than there is now; {again}")
    if record.status == "failed":
        return explained, b""
    picture = paths.explained_picture(dataset)
    try:
        content = picture.read_bytes()
    except OSError as error:
        raise RecordError(f"{picture}: cannot be read ({error.strerror}); {again}") from None
    if hashlib.sha256(content).hexdigest() != explained.picture:
        raise RecordError(f"{picture}: not the picture that {path.name} was written with; {again}")
    return explained, content
