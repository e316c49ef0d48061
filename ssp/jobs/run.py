"""`python -m ssp.jobs.run LOG COMMAND ...`: one command of `ssp` as a job of the workflow.

The same command, forked from a process that has imported all it needs where there is one (`ssp.jobs.warm`). What it
took and how it ended is written beside its log, and while it runs, how far it is (`ssp.records.signs`).

Where Slurm has started several processes of it (`ssp.jobs.nodes`), the one of rank 0 writes all that.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ssp.errors import StorageError
from ssp.jobs import attempts
from ssp.jobs.lease import BEGAN
from ssp.jobs.nodes import told_by_srun
from ssp.jobs.warm import hand_over
from ssp.paths import began_mark
from ssp.records.signs import SIGN, telling
from ssp.records.usage import write_usage


def run(log: str, command: list[str], began: float) -> None:
    """Run a command, and write down what it took and how it ended.

    Args:
        log: file that its output goes to.
        command: arguments of `ssp`; the last is the config.
        began: Unix time.
    """
    mistake = error = None
    with suppress(OSError):  # what is noted here is for the next attempt: a full disk is for the command itself to meet
        mistake = attempts.begin(Path(log), Path(command[-1]))
    with suppress(FileNotFoundError):
        os.environ[BEGAN] = str(began_mark(Path(command[-1])).stat().st_mtime)
    sys.argv = ["ssp", *command]
    try:
        if mistake:
            sys.exit(f"error: {mistake} (as before; not tried again)")
        from ssp.cli import main

        with telling(Path(log).with_suffix(SIGN), began):
            main()
    except BaseException as problem:
        error = problem
        raise
    finally:
        with suppress(OSError):
            attempts.end(Path(log), error)
        with suppress(StorageError):
            write_usage(Path(log).with_suffix(".tsv"), began)


def take_part(command: list[str]) -> None:
    """Run a command beside the process of rank 0, which writes."""
    sys.argv = ["ssp", *command]
    from ssp.cli import main

    main()


if __name__ == "__main__":
    began, told = time.time(), told_by_srun(os.environ)
    os.environ.update(told)
    if told.get("RANK", "0") == "0":
        hand_over(sys.argv[1], sys.argv[2:], began)
        run(sys.argv[1], sys.argv[2:], began)
    else:
        take_part(sys.argv[2:])
