"""How the attempts at a job ended, so that the next asks for more of what was short, and of nothing else.

Design choices
- A job writes a line beside its log when it begins and one when it ends by itself. Where the second is missing it was
  killed, and Slurm knows why. A killed job of which Slurm says no more, or that was not Slurm's, may have been short of
  memory and time both.
- A mistake of the user fails again at once, with its one line: no retry mends it. A full disk and a server that is away
  are none.
- What was before the present start of the workflow does not count: the config or the machine may be another. The copy
  of the config says when that was, on the same disk's clock.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssp.errors import ServiceError, SSPError, StorageError
from ssp.files import batch_job
from ssp.training.stopping import ProcessLost

MISTAKE, MEMORY, TIME, ERROR, SUCCESS = "mistake", "memory", "time", "error", "success"
# States of Slurm's jobs that were killed (`squeue`, JOB STATE CODES); more memory or time is a cure for these alone.
_SHORT_OF = {"OUT_OF_MEMORY": {MEMORY}, "FAILED": {MEMORY}, "TIMEOUT": {TIME}, "": {MEMORY, TIME}}


def begin(log: Path, config: Path) -> str | None:
    """Note that an attempt begins.

    Args:
        log: of the job. Snakemake removes it when the next attempt begins, so it gets a second name.
        config: copy of the config, which is written when a workflow starts.

    Returns:
        What to fail with at once, as an earlier attempt has: a mistake of the user.
    """
    history = _history(log)
    if history.exists() and config.exists() and history.stat().st_mtime < config.stat().st_mtime:
        history.unlink()
    said = next((line["said"] for line in _read(log) if line.get("end") == MISTAKE), None)
    _note(log, {"begin": os.getpid(), "job": batch_job()})
    with suppress(OSError):  # there is none, or a disk without hard links
        os.link(log, log.with_name(f"{log.stem}.attempt-{batch_job() or os.getpid()}.log"))
    return said


def end(log: Path, error: BaseException | None) -> None:
    """Note how the attempt of this process has ended: with what error, or without; then no other log matters.

    Where another process of its training was killed nothing is noted: so was this attempt.
    """
    reason, cause = _reason(error)
    if isinstance(error, SystemExit) and isinstance(error.__context__, ProcessLost):
        return
    _note(log, {"end": reason, "of": os.getpid(), "job": batch_job()} | ({"said": str(cause)} if cause else {}))
    if reason == SUCCESS:
        for other in log.parent.glob(f"{glob.escape(log.stem)}.attempt-*.log"):
            other.unlink(missing_ok=True)


def growth(log: Path) -> dict[str, int]:
    """How many times as much memory and time the next attempt needs: one more for each that was short of it."""
    lines = _read(log)
    ended = {(line["of"], line["job"]): line["end"] for line in lines if "end" in line}
    short = [
        {ended[one]} if (one := (line["begin"], line["job"])) in ended else _why_killed(line["job"])
        for line in lines
        if "begin" in line
    ]
    return {what: 1 + sum(what in of for of in short) for what in (MEMORY, TIME)}


def _history(log: Path) -> Path:
    return log.with_suffix(".attempts")


def _read(log: Path) -> list[dict[str, Any]]:
    lines = []
    with suppress(FileNotFoundError):
        for line in _history(log).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the disk was full in the middle of it
                lines.append(json.loads(line))
    return lines


def _note(log: Path, line: dict[str, Any]) -> None:
    """One line at the end, in one piece: another attempt at the same job may be waiting, and write as well."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with _history(log).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _reason(error: BaseException | None) -> tuple[str, BaseException | None]:
    """In one word, and for a mistake the error that says it; the command line exits with it as its context."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return SUCCESS, None
    cause = error.__context__ if isinstance(error, SystemExit) else error
    # A disk may have room the next time, and a server be there again.
    if isinstance(cause, SSPError) and not isinstance(cause, StorageError | ServiceError):
        return MISTAKE, cause
    return MEMORY if isinstance(cause, MemoryError) else ERROR, None


def _why_killed(job: str | None) -> set[str]:
    """What a killed attempt was short of: of nothing where somebody cancelled it, or its node was lost."""
    state = ""
    if job:
        with suppress(OSError, subprocess.SubprocessError):
            ask = ["scontrol", "show", "job", "--oneliner", job]
            said = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
            own = next((line for line in said if line.startswith(f"JobId={job} ")), "")  # or all of an array are shown
            state = next((word.partition("=")[2] for word in own.split() if word.startswith("JobState=")), "")
    return _SHORT_OF.get(state, set())
