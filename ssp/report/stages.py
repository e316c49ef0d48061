"""Section: the workflow, and the wall time and memory of its stages as its jobs measured them (`ssp.jobs.run`).

Design choices
- Only the jobs of this config count: a file of a method that the config no longer names is left alone.
- A job without a file was not run here (made for another config over the same data, or by hand): it is counted, so that
  a sum over half of the jobs is not taken for the whole. The report itself is still being made: it has no numbers.
"""

from __future__ import annotations

from typing import Any

from ssp.records.usage import jobs as jobs_of
from ssp.records.usage import read_usage
from ssp.report import dag
from ssp.report.results import Results

DOES = {
    "generate": "archives of the generated data sets",
    "fetch": "archives fetched and verified",
    "unpack": "archives unpacked",
    "manifest": "videos listed: labels, splits, groups, checksums",
    "frames": "videos decoded into the frame store",
    "build_scan": "selective scan compiled for this CPU",
    "pretrain": "backbone trained on generated source classes",
    "fetch_weights": "published backbone fetched and verified",
    "init_tracking": "MLflow database made",
    "search": "trials of the sweeps, by several jobs each",
    "sweep": "hyper-parameters chosen on validation",
    "train": "trained from the choice, test read once",
    "costs": "FLOPs, time and memory of each row measured",
    "tables": "tables from the records",
    "ablation": "table of an ablation from the records",
    "ablation_curve": "curve of an ablation",
    "explain": "what a row attends to in test videos, drawn",
    "keep_manifest": "list of videos kept with the results",
    "report": "figures and this page",
}


def content(results: Results) -> dict[str, Any]:
    """The picture of the workflow, and one row per rule."""
    rows = [_row(results, rule, jobs) for rule, jobs in jobs_of(results.config).items()]
    return {"rows": rows, "drawing": dag.drawing({row["rule"]: _label(row) for row in rows})}


def _row(results: Results, rule: str, jobs: list[tuple[str, ...]]) -> dict[str, Any]:
    paths = {job: results.paths.usage(rule, *job) for job in jobs}
    measured = {job: read_usage(path) for job, path in paths.items() if rule != "report" and path.is_file()}
    longest = max(measured, key=lambda job: measured[job].s, default=None)
    folder = results.paths.usage(rule).with_suffix("")
    return {
        "rule": rule,
        "does": DOES[rule],
        "jobs": len(jobs),
        "measured": len(measured),
        "seconds": sum(job.s for job in measured.values()) if measured else None,
        "longest": None if longest is None else measured[longest].s,
        "longest_job": "" if longest is None else " ".join(longest),
        "cpu": sum(job.cpu_time for job in measured.values()) if measured else None,
        "memory": max((job.max_rss for job in measured.values()), default=None),
        "link": (results.link(folder) + "/" if jobs != [()] else results.link(paths[()])) if measured else "",
    }


def _label(row: dict[str, Any]) -> str:
    many = f"{row['jobs']} job{'s' if row['jobs'] > 1 else ''}"
    return many if row["seconds"] is None else f"{many}, {duration(row['seconds'])}"


def duration(seconds: float | None) -> str:
    """Seconds for a reader: 4.2 s, 1:05 min, 2:00 h."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
