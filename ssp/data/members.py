"""What every archive format gives its reader: a stream of members, or word that the archive is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import IO, NamedTuple

from ssp.errors import DataError

AGAIN = "delete it and run again (where `local` is set, replace it there)"
"""The way out of a damaged archive, for messages."""


class Damaged(Exception):
    """An archive that ends too early or contradicts its checksums; the message says how."""


class NotWhole(DataError):
    """An archive that is damaged or none at all; another download may be the right one.

    `problem` is one line that names it, without a way out; `file` is set by who knows which single file it came from.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}; {AGAIN}")
        self.problem = problem
        self.file: Path | None = None


class Item(NamedTuple):
    """A member of an archive."""

    name: str
    problem: str | None  # why it has to be refused
    content: IO[bytes] | None  # to be read before the next item is asked for; None: a folder
