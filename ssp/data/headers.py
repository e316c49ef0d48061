"""Header and checksum of every video, read in child processes.

- In processes, not threads: PyAV holds Python's lock for most of the time that a header takes.
- This module is what a child imports, so it stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssp.data.children import Children
from ssp.data.video import Probe, VideoError, probe
from ssp.errors import DataError
from ssp.files import file_sha256

BATCH = 32  # videos at a time: handing one over takes longer than a header


class Header(NamedTuple):
    """What is known of a file without decoding it: a header of zeros, with the reason, where it cannot be read."""

    probe: Probe
    sha256: str
    reason: str | None


def read_headers(folder: Path, files: list[str], processes: int, limit_s: float) -> Iterator[Header]:
    """The header of every video, in order.

    Args:
        folder: where the videos lie.
        files: their paths below it.
        processes: children at work.
        limit_s: seconds for a batch of videos, and then for each of them alone.

    Raises:
        DataError: a file cannot be read at all.
    """
    with Children(processes, examine, limit_s, BATCH) as children:
        answers = children.map(f"{folder}/{file}" for file in files)
        for file, answer in zip(files, answers, strict=True):
            if isinstance(answer, VideoError):  # it hung, or killed its reader
                yield _broken(f"{folder}/{file}", answer)
            elif isinstance(answer, DataError):
                raise answer
            else:
                yield answer


def examine(path: str) -> Header:
    """The header of one video; what a child does.

    Raises:
        DataError: the file cannot be read at all.
    """
    try:
        return Header(probe(path), _digest(path), None)
    except VideoError as error:
        return _broken(path, error)


def _broken(path: str, error: VideoError) -> Header:
    return Header(Probe(0, 0.0, 0, 0, ""), _digest(path), str(error))


def _digest(path: str) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); unpack the archive again") from None
