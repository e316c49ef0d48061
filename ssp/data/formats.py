"""The members of an archive, whatever its kind, as one stream of items: zip, tar, tar.gz, rar.

Design choices
- The first bytes decide what a file is, not its name.
- Numbered parts of one tar or tar.gz are read as one file.
- A tar must end with its end mark and a gzip with its checksum: a stream that was cut between two members looks
  complete to most tools. For rar see `ssp.data.rar`.
- Readers say what is wrong with a member (a link, a device, encrypted); to refuse it is for the writer.
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from ssp.data.fetch import looks_like_html
from ssp.errors import DataError


class Damaged(Exception):
    """An archive that ends too early or contradicts its checksums; the message says how."""


DAMAGE = (Damaged, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""What the readers raise on a damaged archive."""


class Item(NamedTuple):
    """A member of an archive."""

    name: str
    problem: str | None  # why it has to be refused
    content: IO[bytes] | None  # to be read before the next item is asked for; None: a folder


def read_items(parts: list[Path], title: str) -> Iterator[Item]:
    """The members of an archive.

    Args:
        parts: one file, or the numbered parts of one in order.
        title: which archive that is, for messages.

    Raises:
        DataError: a kind of file that is not read.
        DAMAGE: one of these.
    """
    with _Joined(parts) as stream:
        magic = stream.peek(512)
        if magic.startswith(b"PK"):
            yield from _read_zip(_only_file(parts, title, "zip"))
        elif magic.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=stream) as plain:
                yield from _read_tar(plain)
        elif magic[257:262] == b"ustar":
            yield from _read_tar(stream)
        elif magic.startswith(b"Rar!"):
            from ssp.data.rar import read_rar

            yield from read_rar(_only_file(parts, title, "rar"), title)
        elif looks_like_html(magic):
            raise DataError(f"{title}: an HTML page, not the archive; read what it asks for, then fetch it again")
        else:
            raise DataError(f"{title}: neither zip, rar, tar nor tar.gz, or damaged; delete it and fetch it again")


def _only_file(parts: list[Path], title: str, kind: str) -> Path:
    if len(parts) > 1:
        raise DataError(f"{title}: {kind} archives in parts are not read; join the parts into one file")
    return parts[0]


def _read_zip(archive: Path) -> Iterator[Item]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            problem = None
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link or device"
            elif info.flag_bits & 1:
                problem = "is encrypted"
            name = _zip_name(info)
            if problem or info.is_dir():
                yield Item(name, problem, None)
            else:
                with file.open(info) as content:
                    yield Item(name, None, content)


def _read_tar(stream: IO[bytes]) -> Iterator[Item]:
    tail = _Tail(stream)
    with tarfile.open(fileobj=tail, mode="r|", bufsize=1 << 20) as file:
        for info in file:
            name = _tar_name(info.name)
            if info.isfile():
                yield Item(name, None, file.extractfile(info))
            else:
                yield Item(name, None if info.isdir() else "is a link or device", None)
        while tail.read(1 << 20):  # to the end of the stream, where gzip compares its checksum
            pass
    if tail.end != bytes(1024):
        raise tarfile.ReadError("the end mark is missing")


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the UTF-8 flag are cp437 by the standard, but UTF-8 in what most programs write."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar_name(name: str) -> str:
    """Bytes that are not UTF-8 as Latin-1, so that every name can stand in a table."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
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


class _Tail:
    """Reads through, and remembers the last KiB: where the end mark of a tar must be."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.end = stream, b""

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self.end = (self.end + chunk)[-1024:] if chunk else self.end
        return chunk
