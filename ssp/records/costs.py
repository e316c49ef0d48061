"""What training and using each row of a config costs, as `costs` measured it.

Design choices
- One JSON file for a config: rows were measured in turn, in one job on one machine, so that they can be compared.
- Every time that was taken is there, round by round; tables take medians of them.
- What a count or a time depends on is beside it: the clips, device, threads, precision, scan backend, versions.
- Light: no torch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ssp.config import Config, slice_hash
from ssp.errors import RecordError
from ssp.files import write_json
from ssp.paths import Paths
from ssp.records.record import Git, Parameters, Scan, Stored, load_checked


class RowCosts(Stored):
    """What one row costs."""

    method: str = Field(description="Registered name.")
    options: dict[str, Any] = Field(description="Its options, as the config has them.")
    parameters: Parameters
    flops: int | None = Field(description="Of a forward pass of one clip as in training; null: not countable.")
    merged_flops: int | None = Field(default=None, description="Once folded into the weights; null: nothing folds.")
    saved_bytes: PositiveInt = Field(description="Of the file of tuned weights, head and final norm included.")
    memory_bytes: PositiveInt | None = Field(default=None, description="Peak of optimizer steps, libraries left out.")
    step_seconds: list[PositiveFloat] = Field(default=[], description="Of an optimizer step, one a round.")
    inference_seconds: list[PositiveFloat] = Field(
        default=[], description="Of a clip, merged if it folds; one a round."
    )
    reason: str | None = Field(default=None, description="Why memory or times are missing.")

    @model_validator(mode="after")
    def _complete_or_told_why(self) -> RowCosts:
        if self.parameters.tuned is None:
            raise ValueError("parameters.tuned is missing")
        if not self.reason and not (self.memory_bytes and self.step_seconds and self.inference_seconds):
            raise ValueError("a row without a reason needs memory_bytes, step_seconds and inference_seconds")
        return self


class Clips(Stored):
    """What was trained on and looked at: random numbers of this shape."""

    frames: PositiveInt
    image_size: PositiveInt = Field(description="Side in pixels.")
    classes: PositiveInt
    videos: PositiveInt = Field(description="Of an optimizer step.")
    at_once: PositiveInt = Field(description="Videos of a training pass.")
    repeats: PositiveInt = Field(description="Clips of each video.")
    inference: PositiveInt = Field(description="Clips of an inference pass.")


class Costs(Stored):
    """The costs of all rows of a config."""

    schema_version: Literal[1] = 1
    config: dict[str, Any] = Field(description="The slice of the config that decides them.")
    config_hash: str
    clips: Clips
    device: str
    threads: PositiveInt
    precision: Literal["float32", "bfloat16"]
    scan: Scan
    git: Git
    versions: dict[str, str]
    rows: dict[str, RowCosts] = Field(description="By row of the tables.")
    probe: RowCosts | None = Field(default=None, description="The linear probe, measured besides where no row is one.")
    started: str = Field(description="UTC, ISO 8601.")
    seconds: float
    host: str

    @model_validator(mode="after")
    def _rows_can_be_compared(self) -> Costs:
        if self.probe is None and all(row.method != "linear" for row in self.rows.values()):
            raise ValueError("no row is a linear probe, and probe is null")
        for times in ("step_seconds", "inference_seconds"):
            rounds = {len(getattr(row, times)) for row in (*self.rows.values(), self.linear) if not row.reason}
            if len(rounds) > 1:
                raise ValueError(f"rows differ in the number of {times}; all take part in each round")
        return self

    @property
    def linear(self) -> RowCosts:
        """What times and memory are given relative to."""
        return self.probe or next(row for row in self.rows.values() if row.method == "linear")


def save_costs(config: Config, costs: Costs) -> None:
    """Write the costs of a config atomically."""
    write_json(Paths.of(config).costs, costs.model_dump(mode="json"))


def load_costs(config: Config) -> Costs:
    """Read and check the costs of a config.

    Raises:
        RecordError: they are missing, broken, or were measured under another config; the message has the command.
    """
    paths = Paths.of(config)
    again = f"measure them: {config.command('costs')}"
    costs = load_checked(Costs, paths.costs, "record of costs", again)
    if costs.config_hash != slice_hash(config.costs_slice()) or set(costs.rows) != set(config.methods):
        raise RecordError(f"{paths.costs}: stale, measured under another config than '{config.name}' is now; {again}")
    return costs
