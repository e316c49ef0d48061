"""One process at a time for a sweep or a training, wherever it runs; and what it has finished, no other can cost it.

Design choices
- A lease is a file in the results folder, which names host, process and batch job. To make it is to hold it: of several
  one wins that, on network disks without locks too. Its holder touches it while it lives.
- Who comes second waits. Where the first finishes it has what the first has made, and need not do it again. Where there
  is other work it may look for that instead (`held`).
- A holder is dead when its process is gone from this host, or when its lease lies untouched for `SILENT_S`.
- Snakemake removes the outputs of a job before it starts, and again when it fails, also those that another process has
  written there: the same job of a workflow that was killed and started again. So outputs are drafted beside the lease,
  appear in their place when all is done, and stay beside the lease under a second link: a job gets back what was
  finished since its workflow began, instead of making it twice. A workflow that was killed goes on when it is started
  again. What is older than it is made anew: somebody asked for that. So is what was made with other settings or data:
  a config may be edited before a killed workflow is started again, and jobs of the old one may end after that.
- What a job continues from is removed when its outputs are in their place, and not before.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ssp.files import SILENT_S, atomic_path, batch_job, process_lives, write_text, writing
from ssp.training.stopping import stop_if_asked

BEGAN = "SSP_WORKFLOW_BEGAN"  # environment variable of the workflow's jobs: Unix time
HEARTBEAT_S = 15.0
SHORTLY_S, LOOK_S = 0.05, 2.0  # of who waits: at first, and in the end
log = logging.getLogger(__name__)


def begin(mark: Path, anew: bool) -> None:
    """Note when a workflow began, for its jobs; one that was killed is gone on with, unless results are wanted anew."""
    if anew or not mark.exists():
        write_text(mark, "A workflow is going on, or was killed. When this was written, it began.\n")


@contextmanager
def lease(
    place: Path, outputs: Sequence[Path], made_with: str, tidy: Callable[[], None] = lambda: None
) -> Iterator[Path | None]:
    """Hold a place while the block runs; waits as long as another process holds it.

    Args:
        place: folder of the lease; a job that must run once at a time has one of its own.
        outputs: files that the block makes, the one that says it is complete last.
        made_with: tells settings and data that outputs are made with from all others.
        tidy: removes what a killed process would have continued from; called when the outputs are there.

    Yields:
        Folder that the block writes the outputs into, by their names; None where another process has just done it, and
        the outputs are there, as they are in the folder of the lease: where they belong they may be removed again.
    """
    since, draft = float(os.environ.get(BEGAN, time.time())), place / "draft"
    with held(place):
        try:
            if _given_back(place, outputs, made_with, since):
                log.info("%s: another process has made it meanwhile", outputs[-1])
                yield None
            else:
                draft.mkdir(exist_ok=True)
                yield draft
                _mark(place).unlink(missing_ok=True)  # while they change, what is kept is of nobody
                for output in outputs:
                    os.replace(draft / output.name, place / output.name)
                write_text(_mark(place), made_with)
                for output in outputs:
                    _link(place / output.name, output)
            tidy()
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def held(place: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a place while the block runs: one process at a time does.

    Args:
        place: a folder.
        wait: as long as another process holds it.

    Yields:
        Whether it is held: without `wait`, not where another process that lives has it.

    Raises:
        Interrupted: this process was asked to stop while it waited.
    """
    holder, told, pause = place / "holder", None, SHORTLY_S
    while not _taken(holder):
        other = _whose(holder)
        if other is None or _cleared(holder, other):
            continue
        if not wait:
            yield False
            return
        if other != told and pause > 4 * SHORTLY_S and (told := other):
            log.info("waiting for %s, which is at it", told)
        stop_if_asked()
        time.sleep(pause)
        pause = min(2 * pause, LOOK_S)
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(holder, over), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        over.set()
        beat.join()
        with suppress(OSError):  # of a disk that does not answer, after whose silence another follows
            if _whose(holder) == _this():
                holder.unlink()


def _this() -> str:
    job = batch_job()
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", batch job {job}" if job else "")


def _taken(holder: Path) -> bool:
    with writing(holder):
        holder.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = holder.open("x", encoding="utf-8")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(_this())
        except OSError:  # a full disk
            holder.unlink()
            raise
    return True


def _whose(holder: Path) -> str | None:
    with suppress(FileNotFoundError):
        return holder.read_text(encoding="utf-8")
    return None


def _cleared(holder: Path, dead: str) -> bool:
    """Whether the lease of a dead holder was removed; one at a time does that, and sees that it is still his."""
    if not _is_dead(holder, dead):
        return False
    alone = holder.with_name("clearing")
    try:
        alone.mkdir()
    except FileExistsError:  # another is at it, or was killed at it
        with suppress(OSError):
            if time.time() - alone.stat().st_mtime > SILENT_S:
                alone.rmdir()
        return False
    try:
        if _whose(holder) == dead and _is_dead(holder, dead):
            log.info("taking over from %s, which is gone", dead)
            holder.unlink()
    finally:
        with suppress(FileNotFoundError):  # the disk did not answer for so long that another has taken over this, too
            alone.rmdir()
    return True


def _is_dead(holder: Path, whose: str) -> bool:
    _, pid, _, host, *_ = whose.replace(",", " ").split() + [""] * 4
    if host == socket.gethostname() and pid.isdigit() and not process_lives(int(pid)):
        return True
    with suppress(FileNotFoundError):
        return time.time() - holder.stat().st_mtime > SILENT_S
    return False


def _beat(holder: Path, over: threading.Event) -> None:
    """Touch the lease until it is over. A process that was suspended for long may have lost it: it must not go on."""
    while not over.wait(HEARTBEAT_S):
        with suppress(OSError):  # a network disk may fail for a moment
            if (other := _whose(holder)) not in (None, _this()):
                log.error("%s has taken over, as this process had not been heard of for %.0f s", other, SILENT_S)
                os._exit(1)
            os.utime(holder)


def _mark(place: Path) -> Path:
    """Says what the outputs that are kept there were made with."""
    return place / "made_with"


def _given_back(place: Path, outputs: Sequence[Path], made_with: str, since: float) -> bool:
    """Whether all outputs were made since then with the same settings and data; those that are gone are put back."""
    kept = [place / output.name for output in outputs]
    with suppress(FileNotFoundError):
        if (
            _mark(place).read_text(encoding="utf-8") == made_with
            and all(path.stat() for path in kept)
            and kept[-1].stat().st_mtime >= since
        ):
            for path, output in zip(kept, outputs, strict=True):
                _link(path, output)
            return True
    return False


def _link(path: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        try:
            os.link(path, temporary)
        except OSError:  # a disk without hard links
            shutil.copy2(path, temporary)
