"""The jobs of a config, and what Snakemake measured of them (`benchmark:` files).

- Snakemake need not be there; a test compares the jobs with those that it plans.
- Light: no torch, no pandas.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from ssp.config import Config
from ssp.records.explained import explained_datasets


class Measured(NamedTuple):
    """What Snakemake measured of one job; None where the job was too short to be measured."""

    seconds: float
    memory_mb: float | None
    cpu_seconds: float | None


def jobs(config: Config) -> dict[str, list[tuple[str, ...]]]:
    """The jobs of each rule of a config, by what tells them apart; rules in the order of work."""
    used = {name: config.backbone.checkpoints[name] for name in {d.checkpoint for d in config.datasets.values()}}
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
        "sweep": [(*cell, *(() if number is None else (str(number),))) for *cell, number in config.studies()],
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


def read_benchmark(path: Path) -> Measured:
    """The last line of one of Snakemake's benchmark files (a repeated job has one line for each time)."""
    with path.open(newline="") as file:
        line = list(csv.DictReader(file, delimiter="\t"))[-1]
    return Measured(float(line["s"]), _known(line["max_rss"]), _known(line["cpu_time"]))


def _known(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # NA
        return None
