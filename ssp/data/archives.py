"""Unpacking archives that come from the open internet.

Design choices
- Every format becomes one stream of (name, problem, content); one writer checks and writes, so no format has its own
  idea of safety. Refused: absolute names, `..`, links, devices, a name that is there twice, expansion beyond reason.
- Numbered parts (`name-00`, `name-01`, ...) are joined into one stream; a missing part is an error, not a short result.
- A tar must end with its end mark and a gzip with its checksum: a stream that was cut between two members looks
  complete to most tools.
- Everything is written to a temporary folder that takes its final name at the end; the list of members is written last.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ssp.config import Config
from ssp.errors import DataError
from ssp.files import atomic_path, write_json
from ssp.paths import Paths
from ssp.progress import progress

# Video does not compress; annotation files do, about tenfold.
MAX_EXPANSION = 20
FREE_EXPANSION = 1 << 28  # bytes below which the ratio is not looked at
MAX_MEMBERS = 5_000_000
_PART = re.compile(r"(?P<stem>.+)[-.](?P<number>\d{2,3})")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Member(NamedTuple):
    """A file of an archive: its path below the folder, and its bytes."""

    path: str
    size: int


class _Item(NamedTuple):
    name: str
    problem: str | None  # why this member is refused
    content: IO[bytes] | None  # None: a folder


def unpack_dataset(config: Config, dataset: str) -> None:
    """Unpack all archives of a data set into its videos folder and list what came out.

    Raises:
        DataError: an archive is missing, damaged, of an unknown kind or not to be trusted; nothing is kept then.
    """
    paths = Paths.of(config)
    archives = [paths.archives(dataset) / archive.file for archive in config.datasets[dataset].archives]
    listing, folder = paths.unpacked(dataset), paths.videos(dataset)
    listing.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    members = unpack(archives, folder)
    write_json(listing, {"files": len(members), "bytes": sum(m.size for m in members), "members": members})


def unpack(archives: list[Path], folder: Path) -> list[Member]:
    """Unpack archives into a new folder.

    Args:
        archives: zip and (compressed) tar files; numbered parts of one file are joined.
        folder: must not exist; it appears when all is unpacked.

    Returns:
        All files, sorted by path.

    Raises:
        DataError: one line that names the archive, the member where there is one, and the fix.
    """
    for archive in archives:
        if not archive.is_file():
            raise DataError(f"{archive}: no such file; fetch it first")
    members: dict[str, Member] = {}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for parts in _group_parts(archives):
            _unpack_one(parts, temporary, members)
    return [members[path] for path in sorted(members)]


def _unpack_one(parts: list[Path], folder: Path, members: dict[str, Member]) -> None:
    """Write the members of one archive (given as its parts) below a folder."""
    archive, total = parts[0], sum(part.stat().st_size for part in parts)
    allowed, written = FREE_EXPANSION + MAX_EXPANSION * total, 0
    try:
        with progress(f"unpacking {archive.name}, MiB") as report:
            for item in _read(parts):
                path = _safe_path(item, archive)
                if _is_litter(path):
                    continue
                if item.content is None:
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                if path in members:
                    raise DataError(f"{archive}: '{path}' is there twice; fetch the archive from another address")
                size = _write(item.content, folder / path, allowed - written)
                written += size
                if written > allowed or len(members) >= MAX_MEMBERS:
                    raise DataError(f"{archive}: expands beyond reason at '{path}'; this is not the published file")
                members[path] = Member(path, size)
                report(written >> 20, max(written, total) >> 20)
    except _DAMAGE as error:
        raise DataError(f"{archive}: truncated or damaged ({error}); delete it and fetch it again") from None
    except OSError as error:  # no space, a name too long, a file where a folder is needed
        raise DataError(f"{archive}: cannot be unpacked into {folder.parent} ({error.strerror or error})") from None


def _safe_path(item: _Item, archive: Path) -> str:
    """The member's path below the folder, or an error where it would not stay there."""
    path, problem = PurePosixPath(item.name), item.problem
    if path.is_absolute():
        problem = "has an absolute name"
    elif ".." in path.parts:
        problem = "leaves the folder"
    elif not path.parts and item.content is not None:
        problem = "has no name"
    if problem:
        raise DataError(f"{archive}: member '{item.name}' {problem}; refused, fetch the archive from another address")
    return str(path)


def _is_litter(path: str) -> bool:
    """What macOS adds to archives; two archives of a data set may both have it."""
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or (bool(parts) and (parts[-1] == ".DS_Store" or parts[-1].startswith("._")))


def _write(content: IO[bytes], path: Path, allowed: int) -> int:
    """Copy a member; stops soon after `allowed` bytes. Returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while written <= allowed and (chunk := content.read(1 << 20)):
            written += file.write(chunk)
    return written


def _read(parts: list[Path]) -> Iterator[_Item]:
    """The members of an archive, whatever its kind."""
    archive = parts[0]
    with _Joined(parts) as stream:
        magic = stream.peek(512)
        if magic.startswith(b"PK"):
            yield from _read_zip(parts)
        elif magic.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=stream) as plain:
                yield from _read_tar(plain, archive)
        elif magic[257:262] == b"ustar":
            yield from _read_tar(stream, archive)
        elif magic.startswith(b"Rar!"):
            raise DataError(f"{archive}: rar archives are not read; use the .zip form of the same tree")
        else:
            raise DataError(f"{archive}: neither zip, tar nor tar.gz, or damaged; delete it and fetch it again")


def _read_zip(parts: list[Path]) -> Iterator[_Item]:
    if len(parts) > 1:
        raise DataError(f"{parts[0]}: zip archives in parts are not read; join the parts into one file")
    with zipfile.ZipFile(parts[0]) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            problem = None
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                problem = "is a link or device"
            elif info.flag_bits & 1:
                problem = "is encrypted"
            name = _zip_name(info)
            if problem or info.is_dir():
                yield _Item(name, problem, None)
            else:
                with file.open(info) as content:
                    yield _Item(name, None, content)


def _read_tar(stream: IO[bytes], archive: Path) -> Iterator[_Item]:
    tail = _Tail(stream)
    with tarfile.open(fileobj=tail, mode="r|", bufsize=1 << 20) as file:
        for info in file:
            name = _tar_name(info.name)
            if info.isfile():
                yield _Item(name, None, file.extractfile(info))
            else:
                yield _Item(name, None if info.isdir() else "is a link or device", None)
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


def _group_parts(archives: list[Path]) -> list[list[Path]]:
    """Archives in order, numbered parts of one file together.

    Raises:
        DataError: a part is missing; names it.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for archive in archives:
        match = _PART.fullmatch(archive.name)
        groups.setdefault((archive.parent, match["stem"] if match else archive.name), []).append(archive)
    for (folder, stem), parts in groups.items():
        if not _PART.fullmatch(parts[0].name):
            continue
        parts.sort(key=lambda part: int(_PART.fullmatch(part.name)["number"]))
        numbers = [int(_PART.fullmatch(part.name)["number"]) for part in parts]
        absent = sorted(set(range(numbers[-1] + 1)) - set(numbers))
        if absent:
            width = len(_PART.fullmatch(parts[0].name)["number"])
            raise DataError(
                f"{folder / stem}: part {absent[0]:0{width}} is missing; put all parts there and in the config"
            )
    return list(groups.values())


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
