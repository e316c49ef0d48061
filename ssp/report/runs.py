"""Section: what was run, every run, and the way back from their numbers."""

from __future__ import annotations

from typing import Any

from ssp.config import data_title
from ssp.records.record import Record
from ssp.records.shared import load_contributors
from ssp.report import sweeps
from ssp.report.results import Results, anchor


def content(results: Results) -> dict[str, Any]:
    """Every record with its files, those that ablations alone have behind the others, and the versions of packages."""
    return {
        "facts": facts(results),
        "runs": [_run(results, record) for record in (*results.records, *results.points)],
        "studies": [sweeps.study(results, choice) for choice in results.choices.values()],
        "command": results.way_back(next(iter(results.config.columns)), results.config.reference_row),
        "versions": _versions(results),
    }


def _run(results: Results, record: Record) -> dict[str, Any]:
    key = (record.dataset, record.method, record.seed)
    return {
        "record": record,
        "data": results.data(record.dataset),
        "of": results.row(record.method),
        "anchor": anchor(record.dataset, record.method),
        "link": results.link(results.paths.record(*key)),
        "predictions": results.link(results.paths.predictions(*key)),
    }


def facts(results: Results) -> list[tuple[str, str]]:
    """What this is, in a few words each: name and value."""
    config, records = results.config, [*results.records, *results.points]
    architecture = config.backbone.architecture
    backbone = (
        architecture
        if isinstance(architecture, str)
        else f"width {architecture.embed_dim}, {architecture.depth} blocks"
    )
    failed = sum(record.status == "failed" for record in records)
    trials = sum(len(choice.trials) for choice in results.choices.values())
    started = sorted(record.run.started for record in records)
    joined = load_contributors(config)
    counts = ", ".join(f"{name} ({count})" for name, count in joined.counts().items()) if joined else ""
    return [
        *([("joined from", counts)] if joined else []),
        ("data sets", ", ".join(data_title(config, name) for name in config.datasets)),
        ("methods", ", ".join(config.rows[name].title for name in config.methods)),
        ("backbone", f"VideoMamba, {backbone}, {config.backbone.image_size} px"),
        ("runs", f"{len(records)}" + (f", {failed} of them failed" if failed else "")),
        ("trials of sweeps", str(trials)),
        ("device", _all(record.device for record in records)),
        ("scan", _all(record.scan.backend for record in records if record.scan)),
        ("commit", _all(record.git.commit[:10] + (" (changed)" if record.git.dirty else "") for record in records)),
        ("first run", started[0][:16].replace("T", " ") + " UTC"),
    ]


def _all(values: Any) -> str:  # noqa: ANN401 - any iterable of texts
    """Different values, in their order; a dash where there is none."""
    return ", ".join(dict.fromkeys(values)) or "–"


def _versions(results: Results) -> list[tuple[str, str]]:
    """Package versions over all records, several where they differ."""
    seen: dict[str, set[str]] = {}
    for record in results.records:
        for name, version in record.versions.items():
            seen.setdefault(name, set()).add(version)
    return [(name, ", ".join(sorted(versions))) for name, versions in sorted(seen.items())]
