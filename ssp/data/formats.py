"""The members of an archive, whatever its kind, as one stream of items: zip, tar, tar.gz, rar.

Design choices
- The first bytes decide what a file is, not its name.
- Numbered parts of one tar or tar.gz are read as one file.
- A tar must end with its end mark and only zeros behind it; in a gzip its checksum says as well that it was not cut.
  A zip must hold as many members as it says. What was cut between two members, or has one damaged header, looks
  complete to most tools. For rar see `ssp.data.rar`.
- Between two members of a tar only so much is read: a name of gigabytes is a few megabytes of gzip.
- Readers say what is wrong with a member (a link, a device, encrypted); to refuse it is for the writer.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ssp.data.members import AGAIN, Damaged, Item, NotWhole
from ssp.data.rar import read_rar
from ssp.data.verify import looks_like_html
from ssp.errors import DataError

MAX_GAP = 1 << 22  # bytes between two members of a tar (headers, long names)
MAX_PADDING = 1 << 32  # bytes of zeros behind the last; `tar -b` and tapes want full records
_WINDOWS, _UNIX = (0, 10), (3, 19)  # what programs that wrote a zip say of their system; 0: DOS, 19: macOS
_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}  # Python's sign for a byte that is not UTF-8: the byte


DAMAGE = (Damaged, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What the readers raise on a damaged archive."""


def read_items(parts: list[Path], title: str) -> Iterator[Item]:
    """The members of an archive.

    Args:
        parts: one file, or the numbered parts of one in order.
        title: which archive that is, for messages.

    Raises:
        DataError: a kind of file that is not read; `NotWhole`: no archive.
        DAMAGE: one of these.
    """
    try:
        yield from _items(parts, title)
    except NotImplementedError as error:
        raise DataError(
            f"{title}: a kind of archive that is not read ({error}); unpack it with another program and pack the same "
            "tree as plain zip"
        ) from None
    except (ValueError, OverflowError, RecursionError, struct.error) as error:  # numbers and names in damaged headers
        raise Damaged(str(error)) from None


def shown(name: str) -> str:
    """A name from an archive in a message: on one line, without control characters, not too long."""
    return repr(name if len(name) <= 1000 else f"{name[:1000]}...")[1:-1]


def readable(name: str) -> str:
    """Bytes of a file name that are not UTF-8 as Latin-1, so that every name can stand in a table."""
    return name.translate(_LATIN_1)


def _items(parts: list[Path], title: str) -> Iterator[Item]:
    with _Joined(parts) as stream:
        magic = stream.peek(512)
        if magic.startswith(b"PK"):
            yield from _read_zip(_only_file(parts, title, "zip"))
        elif magic.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=stream) as plain:
                yield from _read_tar(plain, has_checksum=True)
        elif magic[257:262] == b"ustar" or _is_tar_header(magic[: tarfile.BLOCKSIZE]):
            yield from _read_tar(stream, has_checksum=False)
        elif magic.startswith(b"Rar!"):
            yield from read_rar(_only_file(parts, title, "rar"), title)
        elif looks_like_html(magic):
            raise DataError(f"{title}: an HTML page, not the archive; read what it asks for, then {AGAIN}")
        else:
            start = "the first part is missing, or it is " if len(parts) > 1 else ""
            raise NotWhole(f"{title}: {start}neither zip, rar, tar nor tar.gz, or damaged")


def _is_tar_header(block: bytes) -> bool:
    """By its checksum: tar as of Unix v7 has no other mark."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _only_file(parts: list[Path], title: str, kind: str) -> Path:
    if len(parts) > 1:
        raise DataError(f"{title}: {kind} archives in parts are not read; join the parts into one file")
    return parts[0]


def _read_zip(archive: Path) -> Iterator[Item]:
    with zipfile.ZipFile(archive) as file:
        _compare_count(archive, len(file.infolist()))
        for info in file.infolist():
            name = _zip_name(info)
            is_folder = name.endswith("/")
            mode = info.external_attr >> 16 if info.create_system in _UNIX else 0
            problem = None
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link or device"
            elif info.flag_bits & 1:
                problem = "is encrypted"
            elif is_folder and info.file_size:
                problem = "is a folder with content"
            if problem or is_folder:
                yield Item(name, problem, None)
            else:
                with file.open(info) as content:
                    yield Item(name, None, content)


def _compare_count(archive: Path, found: int) -> None:
    """`zipfile` reads as much of the table of contents as its size says, and leaves the number of members out."""
    with archive.open("rb") as file:
        said = zipfile._EndRecData(file)[zipfile._ECD_ENTRIES_TOTAL]
    if (said - found) % (1 << 16):  # some programs write the last 16 bits only
        raise Damaged(f"{found} members instead of {said}")


def _read_tar(stream: IO[bytes], *, has_checksum: bool) -> Iterator[Item]:
    """`has_checksum`: the stream fails where it was cut; not every program writes the end mark."""
    ahead = _Ahead(stream)
    with tarfile.open(fileobj=ahead, mode="r|", bufsize=1 << 20) as file:
        for info in iter(file.next, None):
            file.members.clear()  # it would keep the headers of all members
            ahead.limit = file.offset + MAX_GAP  # there the next header starts
            name = readable(info.name)
            if info.isfile():
                yield Item(name, None, file.extractfile(info))
            else:
                yield Item(name, None if info.isdir() else "is a link or device", None)
        ahead.limit = file.offset + MAX_PADDING
        # A damaged header looks like the end to `tarfile`; only then is there something behind it.
        while ahead.zeros_from <= file.offset and ahead.read(1 << 20):  # to the end, where gzip compares its checksum
            pass
    if ahead.zeros_from > file.offset:
        raise Damaged("a header is damaged, or something follows the end mark")
    if not has_checksum and ahead.size - file.offset < 2 * tarfile.BLOCKSIZE:
        raise Damaged("the end mark is missing")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the UTF-8 flag are cp437 by the standard, but UTF-8 in what most programs write.

    PowerShell 5 and old .NET separate folders by backslashes.
    """
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    if info.create_system in _WINDOWS and "/" not in name:
        name = name.replace("\\", "/")
    return name


class _Joined(io.RawIOBase):
    """The bytes of several files one after the other, read forward."""

    def __init__(self, parts: list[Path]) -> None:
        super().__init__()
        self._parts, self._file = iter(parts), None
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (chunk := self._next(size)):
            self._ahead += chunk
        return self._ahead

    def readinto(self, buffer: memoryview) -> int:
        if self._ahead:
            chunk, self._ahead = self._ahead[: len(buffer)], self._ahead[len(buffer) :]
        else:
            chunk = self._next(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _next(self, size: int) -> bytes:
        while True:
            if self._file is None:
                part = next(self._parts, None)
                if part is None:
                    return b""
                self._file = part.open("rb")
            if chunk := self._file.read(size):
                return chunk
            self._file.close()
            self._file = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


class _Ahead:
    """Reads through, no further than a limit, and remembers from where on there are only zeros."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.limit = stream, MAX_GAP
        self.size, self.zeros_from = 0, 0

    def read(self, size: int) -> bytes:
        if self.size > self.limit:
            raise Damaged(
                f"more than {MAX_GAP >> 20} MiB between two members, or {MAX_PADDING >> 20} MiB behind the last"
            )
        chunk = self._stream.read(size)
        if some := len(chunk.rstrip(b"\0")):
            self.zeros_from = self.size + some
        self.size += len(chunk)
        return chunk
