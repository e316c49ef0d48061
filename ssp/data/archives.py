"""Unpacking archives that come from the open internet.

Design choices
- Every format becomes one stream of items (`ssp.data.formats`); one writer checks and writes, so no format has its own
  idea of safety. Refused: absolute names, `..`, links, devices, a name that is there twice, expansion beyond reason.
- An archive inside an archive (one .rar a class in hmdb51_org.rar) is unpacked where it lies and then removed.
- Numbered parts (`name-00`, `name-01`, ...) are joined into one stream; a missing part is an error, not a short result.
- A folder in place of an archive is taken over file by file; whoever has the videos need not pack them first.
- Everything is written to a temporary folder that takes its final name at the end; the list of members is written last.
"""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ssp.config import Config
from ssp.data.fetch import link_or_copy, place_of
from ssp.data.formats import DAMAGE, Item, read_items
from ssp.errors import DataError
from ssp.files import atomic_path, remove_leftovers, write_json
from ssp.paths import Paths
from ssp.progress import progress

# Video does not compress; annotation files do, about tenfold.
MAX_EXPANSION = 20
FREE_EXPANSION = 1 << 28  # bytes below which the ratio is not looked at
MAX_MEMBERS = 5_000_000
MAX_DEPTH = 3  # of archives in archives
_INNER = (".zip", ".rar", ".tar", ".tar.gz", ".tgz")  # members that are unpacked too
_PART = re.compile(r"(?P<stem>.+)[-.](?P<number>\d{2,3})")


class Member(NamedTuple):
    """A file of an archive: its path below the folder, and its bytes."""

    path: str
    size: int


def unpack_dataset(config: Config, dataset: str) -> None:
    """Unpack all archives of a data set into its videos folder and list what came out.

    Raises:
        DataError: an archive is missing, damaged, of an unknown kind or not to be trusted; nothing is kept then.
    """
    paths, settings = Paths.of(config), config.datasets[dataset]
    archives = [place_of(archive, settings, paths.archives(dataset)) for archive in settings.archives]
    listing, folder = paths.unpacked(dataset), paths.videos(dataset)
    _group_parts(archives)  # archives may be removed once unpacked: without them, what was unpacked stays
    listing.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    remove_leftovers(folder)
    members = unpack(archives, folder)
    write_json(listing, {"files": len(members), "bytes": sum(m.size for m in members), "members": members})


def unpack(archives: list[Path], folder: Path) -> list[Member]:
    """Unpack archives into a new folder.

    Args:
        archives: zip, rar and (compressed) tar files; numbered parts of one file are joined. Folders: what is in
            them is taken over under their names.
        folder: must not exist; it appears when all is unpacked.

    Returns:
        All files, sorted by path.

    Raises:
        DataError: one line that names the archive, the member where there is one, and the fix.
    """
    members: dict[str, Member] = {}
    groups = _group_parts(archives)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for parts in groups:
            _unpack_one(parts, temporary, members)
    return [members[path] for path in sorted(members)]


def _unpack_one(parts: list[Path], folder: Path, members: dict[str, Member]) -> None:
    """Write the members of one archive (given as its parts) below a folder."""
    if parts[0].is_dir():
        _take_over(parts[0], folder, members)
        return
    total = sum(part.stat().st_size for part in parts)
    with progress(f"unpacking {parts[0].name}, MiB") as report:
        writer = _Writer(folder, members, FREE_EXPANSION + MAX_EXPANSION * total)
        for _ in writer.unpack(parts, str(parts[0])):
            report(writer.written >> 20, max(writer.written, total) >> 20)


def _take_over(source: Path, folder: Path, members: dict[str, Member]) -> None:
    """The files of a folder that was unpacked by hand: no second copy on disk where the file system has hard links."""
    files = sorted(path for path in source.rglob("*") if path.is_symlink() or not path.is_dir())
    with progress(f"taking over {source.name}, files") as report:
        for done, file in enumerate(files, start=1):
            path = file.relative_to(source.parent).as_posix()
            if not file.is_file():
                raise DataError(f"{file}: a device, or a link to a folder or to nothing; put files there")
            if path in members:
                raise DataError(f"{source}: '{path}' is there already; rename one of the folders")
            if path.lower().endswith(_INNER):
                writer = _Writer(folder, members, FREE_EXPANSION + MAX_EXPANSION * file.stat().st_size)
                deque(writer.unpack([file], str(file), str(PurePosixPath(path).parent), depth=2), maxlen=0)
            elif not _is_litter(path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(file, folder / path)
                members[path] = Member(path, file.stat().st_size)
            report(done, len(files))


@dataclass
class _Writer:
    """Writes an archive, with all archives inside, below a folder."""

    root: Path
    members: dict[str, Member]  # of all archives of the data set
    allowed: int  # bytes that may come out
    written: int = 0

    def unpack(self, parts: list[Path], title: str, below: str = "", depth: int = 1) -> Iterator[str]:
        """Write the members to the folder `below` of `root`, then unpack those that are archives in turn.

        `title` says in messages which archive it is: its path, then the names of the archives inside.

        Yields:
            The path of every file once it is written.
        """
        inner = []
        try:
            for item in read_items(parts, title):
                path = PurePosixPath(below, _safe_path(item, title)).as_posix()
                if _is_litter(path):
                    continue
                if item.content is None:
                    (self.root / path).mkdir(parents=True, exist_ok=True)
                    continue
                if path in self.members or path in inner:
                    raise DataError(f"{title}: '{path}' is there twice; fetch the archive from another address")
                size = _write(item.content, self.root / path, self.allowed - self.written)
                self.written += size
                if self.written > self.allowed or len(self.members) >= MAX_MEMBERS:
                    raise DataError(f"{title}: expands beyond reason at '{path}'; this is not the published file")
                if path.lower().endswith(_INNER):
                    inner.append(path)
                else:
                    self.members[path] = Member(path, size)
                yield path
        except DAMAGE as error:
            raise DataError(f"{title}: truncated or damaged ({error}); delete it and fetch it again") from None
        except OSError as error:  # no space, a name too long, a file where a folder is needed
            reason = error.strerror or error
            raise DataError(f"{title}: cannot be unpacked into {self.root.parent} ({reason})") from None
        for path in inner:
            if depth == MAX_DEPTH:
                raise DataError(f"{title}: too many archives in archives at '{path}'; this is not the published file")
            yield from self.unpack([self.root / path], f"{title}: {path}", str(PurePosixPath(path).parent), depth + 1)
            (self.root / path).unlink()


def _safe_path(item: Item, archive: str) -> str:
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


def _group_parts(archives: list[Path]) -> list[list[Path]]:
    """Archives in order, numbered parts of one file together.

    Raises:
        DataError: an archive or a part is missing; names it.
    """
    for archive in archives:
        if not archive.exists():
            raise DataError(f"{archive}: no such file; fetch it first")
    groups: dict[tuple[Path, str], list[Path]] = {}
    for archive in archives:
        match = None if archive.is_dir() else _PART.fullmatch(archive.name)
        groups.setdefault((archive.parent, match["stem"] if match else archive.name), []).append(archive)
    for (folder, stem), parts in groups.items():
        if parts[0].is_dir() or not _PART.fullmatch(parts[0].name):
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
