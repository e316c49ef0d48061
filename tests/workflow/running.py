"""Runs of the real Snakefile in folders of their own."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).parent / "tiny.yaml"


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
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, *args]
    env = os.environ | environment
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return Done(done.returncode, done.stdout, done.stderr)
