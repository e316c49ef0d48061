"""Writing files so that a kill at any moment leaves either the old file or the new one, never half of one.

What keeps a file from being written or read (a full or read-only disk, no permission) becomes one line, a
`StorageError`.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ssp.errors import SSPError, StorageError

_ROOM = "make room there and run again"
_RIGHT = "make it writable for this user, or run where it is"
_FIXES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EIO: "see whether the disk is well and the quota not used up, and run again",
    errno.EROFS: _RIGHT,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
}
_AMBIGUOUS = {  # what a file that is read may meet as well, and what to do where nobody knows which it was
    errno.EIO: _FIXES[errno.EIO],
    errno.EACCES: "give this user the right to, or run as one who has it",
    errno.EPERM: "give this user the right to, or run as one who has it",
}
_TEMPORARY = re.compile(r"\.(.+)\.\d+(?:@[^@]+)?\.tmp")
SILENT_S = 180.0  # after which who should give a sign is dead: on network disks one's age may be a minute off
_LONG_S = 3600.0  # without a byte written: nobody is at it any more
_FULL = 1 << 16  # bytes: less than this is free on a full disk


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes its place when the block ends without error.

    Works for files and, where `path` does not exist yet, for folders. Parent folders are made. The temporary name holds
    process id and host, so that two jobs never write into each other's; what killed ones left there is removed.

    Raises:
        StorageError: as `writing`, or another process removed what was written.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        with writing(path):  # inside: what went wrong is found out before cleaning makes room again
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            yield temporary
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                raise StorageError(f"{path}: another process is writing it as well; let one finish") from None
    finally:
        _remove(temporary)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """A block that writes `path`, perhaps through a library.

    Raises:
        StorageError: the disk is full or read-only, or permission is missing; the message names the file.
    """
    try:
        yield
    except SSPError:
        raise
    except Exception as error:
        if problem := storage_error(error, Path(path)):
            raise problem from None
        raise


def storage_error(error: Exception, path: Path | None = None) -> StorageError | None:
    """What an error says about the disk, or None where it is about something else.

    Args:
        error: libraries that write by themselves (torch, LMDB, safetensors) raise their own kinds.
        path: what was being written, None where that is not known; the error may name another file, which was read.
    """
    code = getattr(error, "errno", None)
    if code not in _FIXES and path is not None:
        named = (number for number in _FIXES if os.strerror(number) in str(error))
        code = next(named, errno.ENOSPC if _is_full(path) else None)
    if code not in _FIXES:
        return None
    place = Path(getattr(error, "filename", None) or path or "disk")
    if meant := _TEMPORARY.fullmatch(place.name):  # nobody knows our temporary names
        place = place.with_name(meant[1])
    if code in _AMBIGUOUS and (path is None or not _on_the_way(place, path)):
        return StorageError(f"{place}: cannot be read or written ({os.strerror(code)}); {_AMBIGUOUS[code]}")
    return StorageError(f"{place}: cannot be written ({os.strerror(code)}); {_FIXES[code]}")


def _on_the_way(place: Path, path: Path) -> bool:
    """Whether who writes a path writes there: one of its folders, what is beside it, or what is in it."""
    return path.is_relative_to(place) or place.is_relative_to(path.parent)


def _is_full(path: Path) -> bool:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free < _FULL


def temporary_path(path: Path) -> Path:
    """The name of this process beside `path`, until what is written there is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed processes left under temporary names of `path`, but nothing of one that may still write."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)(?:@([^@]+))?\.tmp.*")  # SQLite adds its own endings
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        if (owner := name.fullmatch(leftover.name)) and not _may_be_written(leftover, *owner.groups()):
            _remove(leftover)


def _may_be_written(leftover: Path, pid: str, host: str | None) -> bool:
    """By another process than this one."""
    if host is None or (int(pid), host) == (os.getpid(), socket.gethostname()):
        return False
    return writer_lives(leftover, int(pid), host, _LONG_S)


def writer_lives(path: Path, pid: int, host: str, silent_s: float) -> bool:
    """Whether the process that writes a file may live: on this host it is looked for, on another only time tells.

    Args:
        path: the file.
        pid: number of the process.
        host: where it runs.
        silent_s: seconds without a byte written after which a process of another host is taken for dead.
    """
    if host == socket.gethostname():
        return process_lives(pid)
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < silent_s
    return False


def process_lives(pid: int) -> bool:
    """Whether there is a process of this number on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def kernel_lock(path: Path, *, shared: bool = False) -> IO[str] | None:
    """A file of this machine's own disk, locked until it is closed or all that have it open end.

    Args:
        path: made if need be.
        shared: others may have it so, too.

    Returns:
        None where another process has locked it.
    """
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if isinstance(error, BlockingIOError):
            return None
        raise
    return file


def file_sha256(path: str | Path) -> str:
    """64 hex digits that tell a file's content from any other.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_json(path: str | Path, data: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write indented JSON atomically."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Indented JSON."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically, in UTF-8 as all readers take it, whatever the locale."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # on a read-only disk even removing nothing is an error
        path.unlink()


def batch_job() -> str | None:
    """Number of the batch job that this process is of."""
    return os.environ.get("SLURM_JOB_ID")
