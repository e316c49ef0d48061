"""The jobs of the workflow, and what each took: measured by itself at its end, and kept beside its log.

Snakemake's own benchmark files look now and then at what runs, and miss what a job takes between its last look and its
end: a third of the processor time of a training of twenty seconds. It need not be there; a test compares the jobs with
those that it plans.
"""

from __future__ import annotations

import csv
import resource
import time
from pathlib import Path
from typing import NamedTuple

from ssp.config import Config
from ssp.files import atomic_path
from ssp.records.explained import explained_datasets


def jobs(config: Config) -> dict[str, list[tuple[str, ...]]]:
    """The jobs of each rule of a config, by what tells them apart; rules in the order of work."""
    used = {name: config.backbone.checkpoints[name] for name in {d.checkpoint for d in config.datasets.values()}}
    studies = [(*cell, *(() if number is None else (str(number),))) for *cell, number in config.studies()]
    found = {
        "generate": [(name,) for name, dataset in config.archived.items() if dataset.generate],
        "fetch": [(name,) for name, dataset in config.archived.items() if dataset.archives],
        "unpack": [(name,) for name, dataset in config.archived.items() if dataset.archives],
        "manifest": [(name,) for name in config.datasets],
        "frames": [(name, str(k)) for name, dataset in config.datasets.items() for k in range(dataset.frames.shards)],
        "build_scan": [()],
        "pretrain": [(name,) for name, checkpoint in sorted(used.items()) if checkpoint.pretrain],
        "fetch_weights": [(c.archive.file,) for _, c in sorted(used.items()) if c.archive],
        "init_tracking": [()],
        "search": [(*study, f"worker{worker}") for study in studies for worker in config.workers(study[0])],
        "sweep": studies,
        "train": [(dataset, row, f"seed{seed}") for dataset, row, seed in config.runs()],
        "costs": [()],
        "tables": [()],
        "ablation": [(name,) for name in config.ablations],
        "ablation_curve": [(name,) for name in config.ablations if config.curve_axis(name)],
        "explain": [(name,) for name in explained_datasets(config)],
        "keep_manifest": [(name,) for name in config.datasets],
        "report": [()],
    }
    return {rule: jobs for rule, jobs in found.items() if jobs}


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
        temporary.write_text("\t".join(Usage._fields) + "\n" + "\t".join(values) + "\n", encoding="utf-8")


def read_usage(path: Path) -> Usage:
    """What a job has written down."""
    with path.open(newline="", encoding="utf-8") as file:
        (line,) = csv.DictReader(file, delimiter="\t")
    return Usage(*(float(line[name]) for name in Usage._fields))
