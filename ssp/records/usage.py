"""What a job of the workflow took: measured by the job itself at its end, and kept beside its log.

Snakemake's own benchmark files look now and then at what runs, and miss what a job takes between its last look and its
end: a third of the processor time of a training of twenty seconds.
"""

from __future__ import annotations

import csv
import resource
import time
from pathlib import Path
from typing import NamedTuple

from ssp.files import atomic_path


class Usage(NamedTuple):
    """Of a job with all its processes; memory is that of the largest."""

    s: float  # seconds of wall time
    max_rss: float  # MB
    cpu_time: float  # seconds


def write_usage(path: Path, began: float) -> None:
    """Write down what this process and those that it waited for have taken since it began (Unix time)."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = max(own.ru_maxrss, children.ru_maxrss) / 1024
    cpu = sum(used.ru_utime + used.ru_stime for used in (own, children))
    with atomic_path(path) as temporary:
        values = (f"{value:.2f}" for value in Usage(time.time() - began, memory, cpu))
        temporary.write_text("\t".join(Usage._fields) + "\n" + "\t".join(values) + "\n")


def read_usage(path: Path) -> Usage:
    """What a job has written down."""
    with path.open(newline="") as file:
        (line,) = csv.DictReader(file, delimiter="\t")
    return Usage(*(float(line[name]) for name in Usage._fields))
