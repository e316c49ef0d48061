"""Frames on the node's own disk: a copy of a data set's frame store in the folder that `compute.stage_to` names.

Design choices
- It decides no result: where there is no such folder or no room, or the copy turns out to be damaged, frames are read
  from the shared store as ever, and one line says so.
- A copy is a folder named by what it was made from (place, extraction, size and time of each shard), so a store that
  is made anew gets another one. It is written under another name, flushed, compared by SHA-256, and renamed.
- A later job looks at sizes and times; each frame has a checksum, which is compared whenever it is read.
- Locks are those of the kernel (`flock`) on the node's own disk, and end with their holder, however that ends. One
  process at a time copies and evicts; each that reads holds its copy as long as it lives.
- Where room is short copies that nobody holds go, those first that were not used for longest; none, if that would not
  do either.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssp.config import Config, slice_hash
from ssp.data.frames import FrameStore
from ssp.errors import DataError
from ssp.files import file_sha256, kernel_lock
from ssp.paths import Paths
from ssp.progress import progress
from ssp.training.stopping import stop_if_asked

LOOK_S = 1.0  # of who waits
PIECE = 1 << 24  # bytes
_SPARE = 20  # one part in so many of the disk is left to others
_held: dict[Path, IO[str] | None] = {}  # copies that this process reads, by their lock; None: could not be made
log = logging.getLogger(__name__)


def frames_of(config: Config, dataset: str) -> FrameStore:
    """The frames of all videos of a data set, from the node's own disk where the config asks for that and it can be.

    Raises:
        DataError: there is no frame store, or it is damaged.
        Interrupted: the process was asked to stop meanwhile.
    """
    shared = FrameStore(Paths.of(config).frames(dataset))
    if config.compute.stage_to is None:
        return shared
    try:
        copy = _copy(shared, dataset, _place(config.compute.stage_to))
    except OSError as error:
        log.warning("compute.stage_to: %s; frames of %s are read from %s", error, dataset, shared.folder)
        return shared
    return StagedStore(copy, shared) if copy else shared


class StagedStore(FrameStore):
    """A copy of a frame store, and the store itself, which takes over as soon as something is wrong with the copy.

    Args:
        folder: of the copy.
        shared: what it was made from.
    """

    def __init__(self, folder: Path, shared: FrameStore) -> None:
        super().__init__(folder)
        self.shared, self._damaged = shared, False

    def read(self, row: int, indices: Sequence[int]) -> np.ndarray:
        """As `FrameStore.read`."""
        return self._ask(super().read, self.shared.read, row, indices)

    def length(self, row: int) -> int:
        """As `FrameStore.length`."""
        return self._ask(super().length, self.shared.length, row)

    def rows(self) -> set[int]:
        """As `FrameStore.rows`."""
        return self._ask(super().rows, self.shared.rows)

    def _ask(self, copy: Callable[..., Any], shared: Callable[..., Any], *about: Any) -> Any:  # noqa: ANN401 - theirs
        if self._damaged:
            return shared(*about)
        try:
            return copy(*about)
        except DataError:
            found = shared(*about)  # raises, where it is not the copy's fault
            self._damaged = True
            log.warning("%s: damaged or gone; frames are read from %s from now on", self.folder, self.shared.folder)
            with suppress(OSError):
                os.utime(_shard(self.folder, 0), (0, 0))  # the next job sees it, and copies anew
            return found

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"shared": self.shared, "_damaged": self._damaged}


def _place(stage_to: str) -> Path:
    """The folder of this user's copies on this node."""
    folder = os.path.expandvars(stage_to)
    if unset := re.search(r"\$\{?\w+\}?", folder):
        raise OSError(f"{unset[0]} is not set here")
    if not folder.startswith("/"):
        raise OSError(f"{stage_to} is no absolute path here, but '{folder}'")
    return Path(folder) / f"ssp-frames-{os.getuid()}"


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard}.lmdb"


def _stamps(folder: Path, shards: int) -> list[tuple[int, int]] | None:
    """Bytes of each shard and when it was made, in seconds, as not every disk knows more; None: not all are there."""
    try:
        found = [_shard(folder, shard).stat() for shard in range(shards)]
    except FileNotFoundError:
        return None
    return [(file.st_size, int(file.st_mtime)) for file in found]


def _copy(shared: FrameStore, dataset: str, place: Path) -> Path | None:
    """Folder of the copy, which this process holds from then on; None: this process could not make it before."""
    shards, folder = shared.meta["shards"], shared.folder.resolve()
    if (stamps := _stamps(folder, shards)) is None:  # reading says which is missing
        return None
    copy = place / f"{dataset}-{slice_hash({'folder': str(folder), 'meta': shared.meta, 'shards': stamps})}"
    if copy in _held:
        return copy if _held[copy] else None
    _held[copy] = None
    place.mkdir(parents=True, exist_ok=True)
    holding = _lock(_lock_file(copy), shared=True)
    try:
        if _stamps(copy, shards) != stamps:
            with _lock(place / "busy"):
                if _stamps(copy, shards) != stamps:  # nobody has made it meanwhile
                    _make(copy, folder, stamps)
    except BaseException:
        holding.close()
        raise
    log.info("frames of %s are read from %s", dataset, copy)
    os.utime(_lock_file(copy))
    _held[copy] = holding
    return copy


def _lock_file(copy: Path) -> Path:
    """Locked by who reads a copy; stays when that is evicted; its time is that of the latest use."""
    return copy.with_name(copy.name + ".lock")


def _lock(path: Path, *, shared: bool = False) -> IO[str]:
    """A file that is locked until it is closed; waits for that."""
    told = False
    while not (file := kernel_lock(path, shared=shared)):
        if not told:
            log.info("waiting for another process, which copies frames to %s", path.parent)
            told = True
        stop_if_asked()
        time.sleep(LOOK_S)
    return file


def _make(copy: Path, source: Path, stamps: list[tuple[int, int]]) -> None:
    """Copy a store, by the one process that may."""
    began, temporary, size = time.monotonic(), copy.with_name("copying"), sum(size for size, _ in stamps)
    for left in (temporary, copy):  # of one that was killed; and damaged
        if left.exists():
            shutil.rmtree(left)
    _make_room(copy, size)
    try:
        temporary.mkdir()
        with progress(f"copying frames to {copy}, MB") as report:
            done = 0
            for shard, (bytes_, made) in enumerate(stamps):
                _copy_file(
                    _shard(source, shard),
                    _shard(temporary, shard),
                    lambda now, done=done: report((done + now) // 10**6, size // 10**6),
                )
                os.utime(_shard(temporary, shard), (made, made))
                done += bytes_
        os.replace(temporary, copy)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%.1f MB of frames copied to %s in %.1f s", size / 1e6, copy, time.monotonic() - began)


def _copy_file(source: Path, target: Path, report: Callable[[int], None]) -> None:
    """Copy a file to the disk, and compare what is there then."""
    read = hashlib.sha256()
    with source.open("rb") as theirs, target.open("xb") as ours:
        while piece := theirs.read(PIECE):
            stop_if_asked()
            read.update(piece)
            ours.write(piece)
            report(ours.tell())
        ours.flush()
        os.fsync(ours.fileno())
        if hasattr(os, "posix_fadvise"):  # or what is compared would come from memory
            os.posix_fadvise(ours.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if file_sha256(target) != read.hexdigest():
        raise OSError(f"{target}: does not hold what was written into it")


def _make_room(copy: Path, size: int) -> None:
    """Evict until there is room for a copy of so many bytes.

    Raises:
        OSError: even then there would be none.
    """
    disk = shutil.disk_usage(copy.parent)
    lacking = size + disk.total // _SPARE - disk.free
    others = [folder for folder in copy.parent.iterdir() if folder.is_dir() and folder != copy]
    evicted: list[tuple[Path, IO[str]]] = []
    try:
        for other in sorted(others, key=_last_used):
            if lacking <= 0:
                break
            if file := kernel_lock(_lock_file(other)):  # else somebody reads it
                evicted.append((other, file))
                lacking -= sum(path.stat().st_size for path in other.iterdir())
        if lacking > 0:
            raise OSError(f"{copy.parent}: {lacking / 1e6:.1f} MB are lacking for a copy of {size / 1e6:.1f} MB")
        for other, _ in evicted:
            log.info("evicting %s, to make room", other)
            shutil.rmtree(other)
    finally:
        for _, file in evicted:
            file.close()


def _last_used(copy: Path) -> float:
    with suppress(FileNotFoundError):
        return _lock_file(copy).stat().st_mtime
    return 0.0
