"""What all sections share: a model without tolerance, and the types of values that several of them hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

Quirk = Literal["fixed", "published"]
Precision = Literal["auto", "float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_NUMBER = {"type": "integer", "exclusiveMinimum": 0}
# A file may also hold a list, a number for each split; `ssp.config.splits` takes it apart before anything is checked.
OfSplits = WithJsonSchema({"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER, "minItems": 1}]})
LocalPath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # ~ is the user's home
T = TypeVar("T")
OrEmpty = Annotated[T, BeforeValidator(lambda given: {} if given is None else given)]  # as `Strict` does for itself


class Strict(BaseModel):
    """A model without tolerance: unknown keys, silently converted types, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_has_no_keys(cls, data: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """`linear:` with nothing behind it is what YAML makes of a section whose keys are all left out."""
        return {} if data is None else data
