"""rar archives: libarchive decompresses, and an independent table of contents says whether all of it is right.

Design choices
- No free program writes rar, several read it. libarchive reads what the published archives use (rar 3 and 5, not
  encrypted, one volume), streams, and comes with every distribution; its Python binding is called here.
- libarchive alone is not enough: it compares no checksum of members stored without compression (videos often are), and
  takes an archive that was cut between two members for complete. So `rarfile` parses the headers by itself, and every
  member is compared with what they say: name, kind, size, checksum; the end mark must be there.
- Names come from `rarfile`: libarchive's depend on the locale.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import rarfile

from ssp.data.members import Damaged, Item
from ssp.errors import DataError

_END_MARKS = {rarfile.RAR_BLOCK_ENDARC, rarfile.RAR5_BLOCK_ENDARC}
rarfile.RAR_MAX_COMMENT = 0  # comments are skipped: to decompress one it would look for a program
_ELSEWHERE = "unpack it with unrar or unar and pack the same tree as zip"
_VOLUME = "one volume of several, which is not read; unpack all with unrar or unar and pack the same tree as zip"
_UNREADABLE = ("solid", "ncrypt", "filters")  # in libarchive's messages about kinds of rar that it does not read


def read_rar(archive: Path, title: str) -> Iterator[Item]:
    """The members of a rar archive; `title` says in messages which one it is.

    Raises:
        DataError: libarchive is not installed, or the archive is of a kind that is not read.
        Damaged: it is cut, or contradicts its checksums.
    """
    libarchive = import_libarchive(title)
    members = _contents(archive, title)

    @contextmanager
    def translated() -> Iterator[None]:
        try:
            yield
        except libarchive.ArchiveError as error:
            reason = getattr(error, "msg", None) or str(error)
            if any(word in reason for word in _UNREADABLE):
                raise DataError(
                    f"{title}: a kind of rar that libarchive does not read ({reason}); {_ELSEWHERE}"
                ) from None
            raise Damaged(reason) from None

    with translated(), libarchive.file_reader(str(archive)) as entries:
        walk = iter(entries)
        for member in members:
            entry = next(walk, None)
            if entry is None or entry.isdir != member.is_dir():
                raise Damaged(f"'{member.filename}' stands in the headers only")
            problem = _problem(member)
            if problem or member.is_dir():
                yield Item(member.filename, problem, None)
            else:
                yield Item(member.filename, None, _Content(member, entry.get_blocks(1 << 20), translated))
        if next(walk, None) is not None:
            raise Damaged("it holds members without headers")


def import_libarchive(title: str) -> Any:  # noqa: ANN401 - a module
    """The binding of the system's libarchive, or of the one in this conda environment.

    Raises:
        DataError: it is not there; the message begins with the title.
    """
    own = Path(sys.prefix) / "lib" / "libarchive.so"
    if own.exists():
        os.environ.setdefault("LIBARCHIVE", str(own))  # where ctypes does not look by itself
    try:
        import libarchive
    except (ImportError, OSError, AttributeError, TypeError):  # the binding fails in one of these ways without it
        raise DataError(
            f"{title}: rar archives need the system library libarchive; install it (Debian: apt install "
            "libarchive13, conda: libarchive), or use the zip form of the same tree"
        ) from None
    return libarchive


def _contents(archive: Path, title: str) -> list[rarfile.RarInfo]:
    """All members by their headers, in order."""
    blocks = []
    try:
        with rarfile.RarFile(archive, errors="strict", info_callback=blocks.append) as file:
            if file.needs_password():
                raise DataError(f"{title}: is encrypted; fetch it from another address")
            members, volumes = file.infolist(), file.volumelist()
    except (rarfile.Error, ValueError, LookupError, ArithmeticError, struct.error) as error:  # damaged headers
        if isinstance(error, rarfile.NeedFirstVolume) or "volume" in str(error):
            raise DataError(f"{title}: {_VOLUME}") from None
        raise Damaged(str(error)) from None
    if len(volumes) > 1:
        raise DataError(f"{title}: {_VOLUME}")
    if not any(block.type in _END_MARKS for block in blocks):
        if _is_old(blocks):
            raise DataError(f"{title}: rar 2 or older, which is not read; {_ELSEWHERE}")
        raise Damaged("the end mark is missing")
    if sum(block.type == rarfile.RAR_BLOCK_FILE for block in blocks) > len(members):  # `rarfile` leaves them out
        raise DataError(f"{title}: holds older versions of its files, which is not read; {_ELSEWHERE}")
    return members


def _is_old(blocks: list[rarfile.RarInfo]) -> bool:
    """Whether rar 2 or older wrote it: a member compressed as rar 3 does not, or a comment where rar 3 has none."""
    files = [block for block in blocks if block.type == rarfile.RAR_BLOCK_FILE]
    # What is not compressed is marked as readable by rar 2 also in rar 3.
    return any(file.extract_version < 29 and file.compress_type != rarfile.RAR_M0 for file in files) or any(
        block.type == rarfile.RAR_BLOCK_MAIN and block.flags & rarfile.RAR_MAIN_COMMENT for block in blocks
    )


def _problem(member: rarfile.RarInfo) -> str | None:
    if member.is_symlink() or getattr(member, "file_redir", None) or not (member.is_dir() or member.is_file()):
        return "is a link, a copy of another member, or a device"
    return None


class _Content:
    """The bytes of a member, compared with its header when they end."""

    def __init__(
        self,
        member: rarfile.RarInfo,
        blocks: Iterator[bytes],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._member, self._blocks, self._translated = member, blocks, translated
        self._size, self._crc = 0, 0
        self._blake = rarfile.Blake2SP() if getattr(member, "blake2sp_hash", None) else None

    def read(self, _size: int = -1) -> bytes:
        """The next block, whatever its size; empty at the end."""
        with self._translated():
            block = next(self._blocks, b"")
        if block:
            self._size += len(block)
            self._crc = zlib.crc32(block, self._crc)
            if self._blake:
                self._blake.update(block)
            return block
        member = self._member
        right = self._blake.digest() == member.blake2sp_hash if self._blake else self._crc == (member.CRC or 0)
        if self._size != member.file_size or not right:
            raise Damaged(f"'{member.filename}' does not have its size and checksum")
        return b""
