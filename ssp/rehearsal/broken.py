"""What broke in a run: jobs that Snakemake saw fail, and rows that failed with a reason and let the others go on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssp.config import Config
from ssp.paths import Paths

_FAILED = re.compile(r"Error in rule (\w+):\n(.*?)(?=\n\S|\Z)", re.DOTALL)
_LOG = re.compile(r"^\s+log: (\S+)", re.MULTILINE)
_FRAME = re.compile(r"^\s|^Traceback|^RuleException|^\[|^$")  # of a traceback, not what it says


class Broken(NamedTuple):
    """One thing that broke."""

    job: str
    reason: str
    log: Path

    def told(self) -> str:
        """Three lines: what, why, and the command that shows more."""
        return f"{self.job}: {self.reason}\n    log: {self.log}\n    more: tail -n 50 {self.log}"


def find_broken(config: Config, folder: Path, code: int, said: str) -> list[Broken]:
    """Everything that broke, each job once.

    Args:
        config: what was run.
        folder: where.
        code: with which Snakemake ended.
        said: all that it printed.
    """
    found: dict[str, Broken] = {}
    for broken in (*_jobs(config, folder, said), *_rows(config, folder)):
        found.setdefault(broken.job, broken)
    if code and not found:
        lines = [line for line in said.splitlines() if line.strip()]
        return [Broken("snakemake", lines[-1] if lines else f"ended with {code}", folder / "snakemake.log")]
    return list(found.values())


def _jobs(config: Config, folder: Path, said: str) -> Iterator[Broken]:
    """Jobs that ended with an error."""
    home = Paths.of(config).log("x").parent
    for rule, block in _FAILED.findall(said):
        named = _LOG.search(block)
        log = Path(named[1]) if named else Path("snakemake.log")
        parts = log.with_suffix("").relative_to(home).parts if log.is_relative_to(home) else (rule,)
        yield Broken(" ".join(parts), _last_words(folder / log), folder / log)


def _last_words(log: Path) -> str:
    """The last line of a log that is no part of a traceback's stack."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    words = [line for line in lines if not _FRAME.match(line)]
    return words[-1].strip() if words else "no word in its log"


def _rows(config: Config, folder: Path) -> Iterator[Broken]:
    """Searches, trainings and measurements that failed for a reason of their own."""
    paths = Paths.of(config)
    for dataset, row, number in config.studies():
        parts = ("sweep", dataset, row, *(() if number is None else (str(number),)))
        trials = _json(folder / paths.choice(dataset, row, number)).get("trials", [])
        reasons = [trial["reason"] for trial in trials if trial["state"] == "failed"]
        if reasons:
            yield Broken(" ".join(parts), reasons[0], folder / paths.log(*parts))
    for dataset, row, seed in config.runs():
        reason = _json(folder / paths.record(dataset, row, seed)).get("reason")
        if reason and not reason.startswith("sweep: "):
            log = folder / paths.log("train", dataset, row, f"seed{seed}")
            yield Broken(f"train {dataset} {row} seed{seed}", reason, log)
    for row, costs in _json(folder / paths.costs).get("rows", {}).items():
        if costs.get("reason"):
            yield Broken(f"costs {row}", costs["reason"], folder / paths.log("costs"))


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
