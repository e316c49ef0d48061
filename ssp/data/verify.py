"""What is checked of a file that is fetched: room on the disk before, and that it is the right one after.

Design choices
- Size and checksum decide what a file is; where it came from does not matter.
- No checksum makes an error page right: HTML and empty files are refused whatever is known.
- Where no checksum is known, the first bytes must be those of the kind that the name says (zip, rar, gzip).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from pathlib import Path, PurePath

from ssp.config import Archive
from ssp.errors import DataError
from ssp.progress import progress

START = 1 << 12  # bytes that tell what a file is
CHUNK = 1 << 20
_BEGINNINGS = {".zip": b"PK", ".rar": b"Rar!", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}
# Byte order mark, blanks, <?xml ...?> and comments may come first.
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?(?>\s|<\?.*?\?>|<!--.*?-->)*<(?:!doctype\s+html|html|head|title|body)\b",
    re.DOTALL | re.IGNORECASE,
)


def has_checksum(archive: Archive) -> bool:
    """Whether the config can tell this file from any other."""
    return bool(archive.sha256 or archive.md5)


def looks_like_html(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page: a login, a licence, "not found"."""
    return _PAGE.match(start) is not None


def wrong_start(start: bytes, archive: Archive, media_type: str = "") -> str | None:
    """What the first bytes of a file say against it, or None.

    Args:
        start: up to `START` bytes.
        archive: the file's entry in the config.
        media_type: what the server calls the file, such as "text/html"; empty where nobody said.
    """
    suffix = PurePath(archive.file).suffix.lower()
    beginning = _BEGINNINGS.get(suffix)
    if beginning and start.startswith(beginning):
        return None
    if not start:
        return "an empty file"
    called_page = media_type == "text/html" and not has_checksum(archive)  # a checksum knows better than the server
    if suffix not in (".html", ".htm") and (called_page or looks_like_html(start)):
        return "an HTML page instead of the file"
    if beginning and not has_checksum(archive):
        return f"no {suffix} file (it begins with {start[:8]!r})"
    return None


def file_start(path: Path) -> bytes:
    """The first bytes of a file, at most `START`."""
    with path.open("rb") as file:
        return file.read(START)


def defect(path: Path, archive: Archive) -> str | None:
    """What is wrong with a file, or None. The checksum comes last: the rest is free."""
    size = path.stat().st_size
    if problem := wrong_start(file_start(path), archive):
        return problem
    if archive.size is not None and size != archive.size:
        return wrong_size(archive, size)
    digests = {name: hashlib.new(name) for name in ("sha256", "md5") if getattr(archive, name)}
    if digests:
        with path.open("rb") as file, progress(f"verifying {path.name}, MiB") as report:
            while chunk := file.read(CHUNK):
                for digest in digests.values():
                    digest.update(chunk)
                report(file.tell() >> 20, size >> 20)
    for name, digest in digests.items():
        expected = getattr(archive, name).lower()
        if digest.hexdigest() != expected:
            return f"wrong checksum, expected {name} {expected}, found {digest.hexdigest()}"
    return None


def wrong_size(archive: Archive, found: int) -> str:
    """The words for a file of another size than the config says, both in bytes."""
    return f"wrong size, expected {archive.size} bytes, found {found}"


def check_space(folder: Path, needed: int) -> None:
    """Stop before a file is begun that cannot fit.

    Raises:
        DataError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: {_amount(needed)} needed, {_amount(free)} free ({os.strerror(errno.ENOSPC)}); make room there"
        )


def _amount(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
