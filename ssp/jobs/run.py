"""`python -m ssp.jobs.run LOG COMMAND ...`: one command of `ssp` as a job of the workflow.

The same command, forked from a process that has imported all it needs where there is one (`ssp.jobs.warm`); what it
took is written beside its log, and while it runs, how far it is (`ssp.records.signs`).
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from ssp.jobs.lease import BEGAN
from ssp.jobs.warm import hand_over
from ssp.paths import began_mark
from ssp.records.signs import SIGN, telling
from ssp.records.usage import write_usage


def run(log: str, command: list[str], began: float) -> None:
    """Run a command, and write down what it took.

    Args:
        log: file that its output goes to.
        command: arguments of `ssp`; the last is the config.
        began: Unix time.
    """
    from ssp.cli import main

    with suppress(FileNotFoundError):
        os.environ[BEGAN] = str(began_mark(Path(command[-1])).stat().st_mtime)
    sys.argv = ["ssp", *command]
    try:
        with telling(Path(log).with_suffix(SIGN), began):
            main()
    finally:
        write_usage(Path(log).with_suffix(".tsv"), began)


if __name__ == "__main__":
    began = time.time()
    hand_over(sys.argv[1], sys.argv[2:], began)
    run(sys.argv[1], sys.argv[2:], began)
