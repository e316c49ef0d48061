"""What results that were packed or joined say of that: weights that were left out, and who contributed which record.

Light: no torch, no pandas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssp.config import Config
from ssp.files import write_json
from ssp.paths import Paths
from ssp.records.record import Stored, load_checked


class LeftOut(Stored):
    """Tuned weights that are not here, though records have their checksums. Nothing else may be left out."""

    schema_version: Literal[1] = 1
    weights: list[Annotated[str, Field(pattern=r"^weights/[^/]+/[^/]+/seed\d+\.safetensors$")]]


class Contributor(Stored):
    """Results that others were joined with."""

    title: str
    sums: str | None = Field(description="SHA-256 of their SHA256SUMS; null: they had none.")


class Contributors(Stored):
    """Where joined results come from."""

    schema_version: Literal[1] = 1
    contributors: dict[str, Contributor] = Field(description="By the name that they were given.")
    records: dict[str, list[str]] = Field(description="Who has contributed each: several where all had the same.")

    @model_validator(mode="after")
    def _everybody_is_there(self) -> Contributors:
        named = {name for names in self.records.values() for name in names}
        if unknown := named - set(self.contributors):
            raise ValueError(f"records: '{min(unknown)}' is none of contributors")
        return self

    def counts(self) -> dict[str, int]:
        """Records of each contributor."""
        return {name: sum(name in names for names in self.records.values()) for name in self.contributors}


def load_left_out(config: Config) -> list[str]:
    """Weights that were left out, as they are called in the folder; none where nothing was packed.

    Raises:
        RecordError: the file is no such list.
    """
    path = Paths.of(config).left_out
    if not path.is_file():
        return []
    return load_checked(LeftOut, path, "list of what was left out", "unpack the archive again").weights


def load_contributors(config: Config) -> Contributors | None:
    """Where joined results come from; None where they were not joined.

    Raises:
        RecordError: the file is no such list.
    """
    path = Paths.of(config).contributors
    return load_checked(Contributors, path, "list of contributors", "join again") if path.is_file() else None


def save_shared(what: LeftOut | Contributors, path: Path) -> None:
    """Write either of them atomically."""
    write_json(path, what.model_dump(mode="json"))


def record_name(dataset: str, method: str, seed: int) -> str:
    """What a record is called among contributors: its name in the folder."""
    return Paths(Path(), Path()).record(dataset, method, seed).as_posix()


def check_shared(config: Config) -> list[tuple[Path, str]]:
    """What contradicts the records: files, and what is wrong with them.

    Raises:
        RecordError: a file is not valid.
    """
    paths, wrong = Paths.of(config), []
    for name in load_left_out(config):
        if (paths.results / name).exists():
            wrong.append((paths.left_out, f"says that {name} was left out, but it is there"))
    if (joined := load_contributors(config)) is not None:
        names = {record_name(*run) for run in config.runs()}
        for name in sorted(names ^ set(joined.records)):
            wrong.append((paths.contributors, f"{'does not say' if name in names else 'says'} who contributed {name}"))
    return wrong


def joined_words(config: Config) -> str:
    """Whose records these are, as a sentence; empty where nothing was joined.

    Raises:
        RecordError: as `load_contributors`.
    """
    joined = load_contributors(config)
    if joined is None:
        return ""
    return f"Joined from {', '.join(f'{name} ({count} runs)' for name, count in joined.counts().items())}."
