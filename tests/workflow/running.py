"""Runs and plans of the real Snakefile in folders of their own.

A plan is made by a copy of a process that has imported Snakemake and PyTorch once (tests/copies.py). A run, and what is
planned in another environment, is a command of its own.
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
PLANS = {"-n", "--lint", "--rulegraph"}  # options with which no job runs
LIMIT_S = 120  # for a plan


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
    words = list(map(str, ["--snakefile", ROOT / "Snakefile", "--directory", folder, *args]))
    if PLANS & set(words) and not environment:
        with tempfile.TemporaryDirectory() as said:
            out, err = (Path(said) / name for name in ("out", "err"))
            copy = copies.start(_plan, words, folder=folder, out=out, err=err)
            copy.join(LIMIT_S)
            copy.kill()
            return Done(copy.exitcode, out.read_text(), err.read_text())
    command = [sys.executable, "-m", "snakemake", *words]
    env = os.environ | environment
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Done(done.returncode, done.stdout, done.stderr)


def _plan(words: list[str]) -> None:
    """In the copy: Snakemake's own main."""
    from snakemake.cli import main

    sys.argv = ["snakemake", *words]
    main(words)
