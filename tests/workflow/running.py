"""Runs and plans of the real Snakefile in folders of their own.

By a copy of a process that has imported Snakemake and PyTorch once (tests/copies.py); the complete small run and those
that are killed are commands of their own.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests import copies

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / "tiny.yaml"
LIMIT_S = 1200


class Done(NamedTuple):
    """What a run of Snakemake returned and said."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines on stderr but the one that names the profile."""
        return [line for line in self.err.splitlines() if line and not line.startswith("Using workflow specific")]

    @property
    def jobs(self) -> Counter:
        """Jobs of each rule, from the table that Snakemake prints first."""
        lines = (self.out + self.err).splitlines()
        jobs: Counter = Counter()
        for line in lines[lines.index("Job stats:") + 3 :] if "Job stats:" in lines else []:
            if not line.strip():
                break
            rule, count = line.split()
            jobs[rule] = int(count)
        del jobs["total"]
        return jobs


def snakemake(folder: Path, *args: str | Path, **environment: str) -> Done:
    """Run the Snakefile with `folder` as working directory; one thread a process, as tests share the machine."""
    with tempfile.TemporaryDirectory() as said:
        out, err = (Path(said) / name for name in ("out", "err"))
        copy = copies.start(_snakemake, _words(folder, *args), folder=folder, out=out, err=err, **environment)
        copy.join(LIMIT_S)
        copy.kill()
        return Done(copy.exitcode, out.read_text(), err.read_text())


def snakemake_command(folder: Path, *args: str | Path) -> Done:
    """The same as a command of its own, as a user gives it."""
    done = subprocess.run(
        command_line(folder, *args), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return Done(done.returncode, done.stdout, done.stderr)


def command_line(folder: Path, *args: str | Path) -> list[str]:
    """What runs the Snakefile in a folder, as a command of its own."""
    return [sys.executable, "-m", "snakemake", *_words(folder, *args)]


def _words(folder: Path, *args: str | Path) -> list[str]:
    return list(map(str, ["--snakefile", ROOT / "Snakefile", "--directory", folder, *args]))


def _snakemake(words: list[str]) -> None:
    """In the copy: Snakemake's own main."""
    from snakemake.cli import main

    sys.argv = ["snakemake", *words]
    try:
        main(words)
    except SystemExit as end:
        if isinstance(end.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)  # without the seconds that Snakemake's timers take to end
        raise
