"""Rows of the tables, and ablations of them. What they come to: `ssp.config.rows`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, field_validator

from ssp.config.sections.common import Name, OrEmpty, Strict
from ssp.config.sections.search import Space, Start


class Method(Strict):
    """A row of the tables: a named setting of a tuning method, and where its hyper-parameters are searched."""

    method: str | None = Field(default=None, description="The tuning method, as registered; null: the row's name.")
    title: str | None = Field(
        default=None,
        min_length=1,
        description="What tables and figures print; null: the name, of a known method as one writes it.",
    )
    published: Literal[False] | str | None = Field(
        default=None, description="Which of the paper's rows it stands beside; null: that of its name; false: none."
    )
    options: OrEmpty[dict[str, Any]] = Field(default={}, description="Options of the method that differ from its own.")
    space: Space = Field(default={}, description="Over shared hyper-parameters and options; goes before `sweep.space`.")
    start: OrEmpty[Start] = Field(default=Start(), description="First trial; goes before `start` of the data set.")
    starts: OrEmpty[dict[Name, Start]] = Field(default={}, description="By data set; goes before `start`.")


class AblationPoint(Strict):
    """One point of an ablation: options that differ from the base row's."""

    title: str | None = Field(default=None, min_length=1, description="What tables print; null: the options.")
    options: dict[str, Any] = Field(min_length=1, description="Options that differ from those of the base row.")


class Ablation(Strict):
    """Trainings that differ from a row in options of its method, each compared with that row."""

    title: str = Field(min_length=1, description="One line for tables, figures and the report.")
    of: Name = Field(description="The base row, one of `methods`.")
    vary: list[AblationPoint] | dict[str, list[Any]] = Field(
        min_length=1, description="Named points; or one option with its values; or two options, for a grid of both."
    )
    hyperparameters: Literal["inherit", "search"] = Field(
        default="inherit", description="inherit: those that the base row's study chose; search: a study for each point."
    )
    datasets: list[Name] | None = Field(default=None, min_length=1, description="Fewer data sets; null: all.")
    seeds: list[NonNegativeInt] | None = Field(default=None, min_length=1, description="Fewer seeds; null: all.")

    @field_validator("vary", mode="before")
    @classmethod
    def _either(cls, vary: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """One sentence here, in place of what either of the two shapes would say."""
        if not isinstance(vary, list | dict) or (isinstance(vary, dict) and not 1 <= len(vary) <= 2):
            raise ValueError("give a list of points, or one or two options with a list of values each")
        axes = vary.items() if isinstance(vary, dict) else ()
        wrong = [name for name, values in axes if not isinstance(values, list) or not values]
        if wrong:
            raise ValueError(f"'{wrong[0]}' needs a list of values, such as {wrong[0]}: [1, 2]")
        return vary
