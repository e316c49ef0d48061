"""A file to fetch."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ssp.config.sections.common import Strict


def _one_name(file: str) -> str:
    """A name that stays in its folder, and that no temporary file of ours can have."""
    if not file or file.startswith(".") or "/" in file or not file.isprintable():
        raise ValueError("give the name of one file, without folders, without a dot in front")
    return file


FileName = Annotated[str, AfterValidator(_one_name)]


class Archive(Strict):
    """One file to fetch: the places to try in order, and what proves that it is the right one."""

    file: FileName = Field(description="File name under the data set's `archives/` folder.")
    urls: list[str] = Field(default=[], description="Addresses, tried in order. Empty: never fetched (licence).")
    size: int | None = Field(default=None, gt=0, strict=True, description="Bytes, where known.")
    sha256: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{64}$", description="Checksum, where known.")
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9A-Fa-f]{32}$",
        description="Published checksum of an older kind, where that is all there is.",
    )
