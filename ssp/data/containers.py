"""How many bytes a video file says it has: the only thing that gives away some files that were cut off.

Matroska, WebM and AVI decode to the last whole frame of what is left and report no error, and Matroska and WebM do not
announce their frames. Their headers hold the length of all that follows. MP4 and MOV need no such help: cut off, they
cannot be opened, or not be decoded to their end. A recorded live stream announces no length: nothing is known of it.
"""

from __future__ import annotations

from pathlib import Path

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # element ids: header of Matroska and WebM, and their body
_AVI_UNKNOWN = (0, 0xFFFFFFFF)


def announced_bytes(path: str | Path) -> int | None:
    """Length that the header of a video file announces, or None where it says nothing."""
    with Path(path).open("rb") as file:
        head = file.read(1024)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        length = int.from_bytes(head[4:8], "little")
        return None if length in _AVI_UNKNOWN else 8 + length
    if head[:4] != _EBML:
        return None
    header = _length(head, 4)
    body = header and sum(header)  # the segment follows the header
    if not body or head[body : body + 4] != _SEGMENT:
        return None
    segment = _length(head, body + 4)
    return sum(segment) if segment else None


def _length(head: bytes, at: int) -> tuple[int, int] | None:
    """A length at some place of an EBML file: (where what it measures begins, bytes); None: unknown or not there."""
    if at >= len(head) or not head[at]:
        return None
    size = 9 - head[at].bit_length()  # leading zero bits count the bytes that follow
    value = int.from_bytes(head[at : at + size], "big") & ((1 << 7 * size) - 1)
    return None if value == (1 << 7 * size) - 1 else (at + size, value)
