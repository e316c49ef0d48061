"""Unpacking archives that come from the open internet.

Design choices
- Every format becomes one stream of items (`ssp.data.formats`); one writer checks and writes, so no format has its own
  idea of safety. Refused: absolute names, `..`, links, devices, two files of one name, absurd expansion, no files.
- An archive inside an archive (one .rar a class in hmdb51_org.rar) is unpacked where it lies and then removed.
- Numbered parts (`name-00`, `name-01`, ...) are joined into one stream; a missing part is an error, not a short result.
- A folder in place of an archive is taken over file by file; whoever has the videos need not pack them first.
- What cannot be unpacked is no longer taken for fetched: the next run, also of the workflow, verifies it again. A
  damaged download that no checksum tells from a right one is moved aside, so that this run fetches it anew.
- Everything is written to a temporary folder that takes its final name at the end; the list of members is written last.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ssp.config import Config, Dataset, slice_hash
from ssp.data.fetch import link_or_copy, place_of
from ssp.data.formats import DAMAGE, read_items, readable, shown
from ssp.data.members import Damaged, Item, NotWhole
from ssp.data.verify import has_checksum
from ssp.errors import DataError
from ssp.files import atomic_path, storage_error, write_json, writing
from ssp.paths import Paths
from ssp.progress import progress

# Video does not compress; annotation files do, about tenfold.
MAX_EXPANSION = 20
FREE_EXPANSION = 1 << 28  # bytes below which the ratio is not looked at
MAX_MEMBERS = 5_000_000  # of an archive, folders too
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
        DataError: an archive is missing, damaged, of an unknown kind or not to be trusted; nothing is kept then, and
            `fetched.done` is removed. What a plain rerun can download anew is moved aside, to `<file>.damaged`.
        StorageError: the disk is full or read-only.
    """
    paths, settings = Paths.of(config), config.archived[dataset]
    archives = [place_of(archive, settings, paths.archives(dataset)) for archive in settings.archives]
    listing, folder = paths.unpacked(dataset), paths.videos(dataset)
    try:
        _group_parts(archives)  # archives may be removed once unpacked: without them, what was unpacked stays
        listing.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        members = unpack(archives, folder)
    except DataError as error:
        paths.fetched(dataset).unlink(missing_ok=True)
        if isinstance(error, NotWhole) and error.file and _comes_again(error.file, settings):
            kept = error.file.with_name(f"{error.file.name}.damaged")
            with writing(kept):
                os.replace(error.file, kept)
            raise DataError(f"{error.problem}; kept as {kept.name}, run again to fetch it") from None
        raise
    made = {"config_hash": slice_hash(config.archive_slice(dataset))}
    write_json(listing, made | {"files": len(members), "bytes": sum(m.size for m in members), "members": members})


def _comes_again(file: Path, settings: Dataset) -> bool:
    """Whether fetching would take a damaged archive as it is, but has an address, and no other name of it exists."""
    entry = next(archive for archive in settings.archives if archive.file == file.name)
    is_only_name = not file.is_symlink() and file.stat().st_nlink == 1
    return settings.local is None and bool(entry.urls) and not has_checksum(entry) and is_only_name


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
        StorageError: the disk is full or read-only.
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
        try:
            for _ in writer.unpack(parts, str(parts[0])):
                report(writer.written >> 20, max(writer.written, total) >> 20)
        except NotWhole as error:
            if len(parts) == 1:  # which part is damaged cannot be said
                error.file = parts[0]
            raise


def _take_over(source: Path, folder: Path, members: dict[str, Member]) -> None:
    """The files of a folder that was unpacked by hand: no second copy on disk where the file system has hard links."""
    files = [file for file in walk(source) if not is_litter(file.relative_to(source).as_posix())]
    if not files:
        raise DataError(f"{source}: no files in it; put them there")
    with progress(f"taking over {source.name}, files") as report:
        for done, file in enumerate(files, start=1):
            path = readable(file.relative_to(source.parent).as_posix())
            if not file.is_file():
                raise DataError(f"{shown(str(file))}: a device, or a link to nothing; put files there")
            if path in members:
                raise DataError(f"{source}: '{shown(path)}' is there already; rename one of the folders")
            if path.lower().endswith(_INNER):
                writer = _Writer(folder, members, FREE_EXPANSION + MAX_EXPANSION * file.stat().st_size)
                deque(writer.unpack([file], shown(str(file)), str(PurePosixPath(path).parent), depth=2), maxlen=0)
            else:
                with _placing(path, folder, str(source)):
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(file, folder / path)
                members[path] = Member(path, file.stat().st_size)
            report(done, len(files))


def walk(folder: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All that is no folder, below a folder and below the folders that its links lead to."""
    around = (*around, folder.resolve())
    try:
        entries = [(entry, entry.is_dir()) for entry in sorted(folder.iterdir())]
    except OSError as error:
        raise DataError(f"{shown(str(folder))}: cannot be read ({error.strerror}); make it readable") from None
    for entry, is_folder in entries:
        if not is_folder:
            yield entry
        elif entry.resolve() in around:
            raise DataError(f"{shown(str(entry))}: a link to a folder that it lies in; remove it")
        else:
            yield from walk(entry, around)


@dataclass
class _Writer:
    """Writes an archive, with all archives inside, below a folder."""

    root: Path
    members: dict[str, Member]  # of all archives of the data set
    allowed: int  # bytes that may come out
    written: int = 0
    entries: int = 0

    def unpack(self, parts: list[Path], title: str, below: str = "", depth: int = 1) -> Iterator[str]:
        """Write the members to the folder `below` of `root`, then unpack those that are archives in turn.

        `title` says in messages which archive it is: its path, then the names of the archives inside.

        Yields:
            The path of every member once it is there.
        """
        inner, found = [], False
        try:
            for item in read_items(parts, title):
                path = PurePosixPath(below, _safe_path(item, title)).as_posix()
                litter = is_litter(path)
                size = None if litter else self._place(item, path, title)
                self.entries += 1
                self.written += size or 0
                if self.written > self.allowed or self.entries > MAX_MEMBERS:
                    raise DataError(
                        f"{title}: expands beyond reason at '{shown(path)}'; this is not the published file"
                    )
                if size is not None and path.lower().endswith(_INNER):
                    inner.append(path)
                elif size is not None:
                    self.members[path] = Member(path, size)
                found |= item.content is not None and not litter
                yield path
        except DAMAGE as error:
            raise NotWhole(f"{title}: truncated or damaged ({shown(str(error))})") from None
        except OSError as error:
            raise DataError(
                f"{title}: cannot be read ({error.strerror or error}); make it readable, or replace it"
            ) from None
        if not found:
            raise NotWhole(f"{title}: no files in it")
        for path in inner:
            if depth == MAX_DEPTH:
                raise DataError(
                    f"{title}: too many archives in archives at '{shown(path)}'; this is not the published file"
                )
            below = str(PurePosixPath(path).parent)
            yield from self.unpack([self.root / path], f"{title}: {shown(path)}", below, depth + 1)
            (self.root / path).unlink()

    def _place(self, item: Item, path: str, title: str) -> int | None:
        """Write a member.

        Returns:
            Its bytes; None where there is nothing new, for a folder, or a file that is there with the same content.
        """
        target = self.root / path
        with _placing(path, self.root, title):
            if item.content is None:
                target.mkdir(parents=True, exist_ok=True)
            elif not target.is_file():
                return _write(item.content, target, self.allowed - self.written)
            elif not _is_content(item.content, target):
                raise DataError(
                    f"{title}: '{shown(path)}' is there twice, with different content; fetch the archive from another "
                    "address, or remove one of two archives from the config"
                )
        return None


@contextmanager
def _placing(path: str, root: Path, title: str) -> Iterator[None]:
    """A block that writes a member; what keeps it from being written names the member."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's, but a decompressor's
            raise Damaged(str(error)) from None
        raise storage_error(error, root) or DataError(
            f"{title}: member '{shown(path)}' cannot be unpacked into {root.parent} ({error.strerror}); fetch the "
            "archive from another address, or name another data_root"
        ) from None


def _safe_path(item: Item, archive: str) -> str:
    """The member's path below the folder, or an error where it would not stay there."""
    path, problem = PurePosixPath(item.name), item.problem
    if path.is_absolute():
        problem = "has an absolute name"
    elif ".." in path.parts:
        problem = "leaves the folder"
    elif not path.parts and item.content is not None:
        problem = "has no name"
    elif "\0" in item.name:
        problem = "has no possible name"
    if problem:
        raise DataError(
            f"{archive}: member '{shown(item.name)}' {problem}; refused, fetch the archive from another address"
        )
    return str(path)


def is_litter(path: str) -> bool:
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


def _is_content(content: IO[bytes], path: Path) -> bool:
    """Whether a member is the same as a file."""
    with path.open("rb") as file:
        while chunk := content.read(1 << 20):
            if file.read(len(chunk)) != chunk:
                return False
        return not file.read(1)


def _group_parts(archives: list[Path]) -> list[list[Path]]:
    """Archives in order, numbered parts of one file together.

    Raises:
        DataError: an archive or a part is missing; names it.
    """
    for archive in archives:
        if not archive.exists():
            raise DataError(f"{archive}: no such file; run again to fetch it")
    groups: dict[tuple[Path, str, bool], list[Path]] = {}
    for archive in archives:
        match = None if archive.is_dir() else _PART.fullmatch(archive.name)
        key = archive.parent, match["stem"] if match else archive.name, match is not None
        groups.setdefault(key, []).append(archive)
    for (folder, stem, numbered), parts in groups.items():
        if not numbered or len(parts) == 1:  # a name may end in a number
            continue
        parts.sort(key=lambda part: int(_PART.fullmatch(part.name)["number"]))
        numbers = [int(_PART.fullmatch(part.name)["number"]) for part in parts]
        absent = sorted(set(range(numbers[0], numbers[-1])) - set(numbers))
        if absent:
            width = len(_PART.fullmatch(parts[0].name)["number"])
            raise DataError(
                f"{folder / stem}: part {absent[0]:0{width}} is missing; put all parts there and in the config"
            )
    return list(groups.values())
