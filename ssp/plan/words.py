"""A plan in words: tables for a terminal, JSON for programs, and lines of YAML for a config."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from ssp.config import Config
from ssp.paths import Paths
from ssp.plan.cheaper import Plain, Saving, fit_budget, savings
from ssp.plan.estimate import MARGIN, STAGES, Estimate
from ssp.plan.space import disk, results_bytes, states_bytes
from ssp.plan.speeds import Span

FEW = 0.005  # of all hours: what saves less is not told
_GO_ON = ("train ", "pretrain ")  # jobs whose next try goes on; sweeps do, too, and are given as many as they need


def as_json(plan: Estimate, plain: Plain) -> dict[str, Any]:
    """All of a plan: hours with their intervals, clips, bytes, minutes."""
    config = plan.config
    return {
        "config": str(config.origin),
        "speeds": {"measured": plan.speeds.measured, "told": plan.speeds.told},
        "jobs": plan.jobs(),
        "unknown": plan.unknown,
        "hours": plan.hours()._asdict(),
        "stages": {stage: _part(plan, stage=stage) for stage in STAGES},
        "datasets": {dataset: _part(plan, dataset=dataset) for dataset in config.datasets},
        "rows": {row: _part(plan, row=row) for row in config.rows},
        "longest": [{"job": one.job, "minutes": one.minutes._asdict(), "limit": one.limit} for one in plan.longest()],
        "disk": {name: vars(disk(config, name)) for name in config.columns}
        | {"results": results_bytes(config, plan.speeds.rows)},
        "memory_mb": _memory(plan),
        "cheaper": [
            {"name": saving.steps[0].name, "hours": saving.estimate.hours().value, "lines": saving.lines}
            for saving in savings(config, plain, plan.speeds)
        ],
    }


def told(plan: Estimate, plain: Plain, reason: str | None = None) -> str:
    """A plan for a reader; `reason` is why results that are there were not taken."""
    config, hours = plan.config, plan.hours()
    parts = [
        f"{config.name}: {plan.jobs():,} jobs, {_span(hours)} hours on {plan.speeds.device}",
        f"Speeds {plan.speeds.told}." + (f"\n({reason}.)" if reason else ""),
        _table(["stage", *_HEAD], [[stage, *_cells(plan, stage=stage)] for stage in STAGES if plan.jobs(stage=stage)]),
        _table(["data set", *_HEAD], [[name, *_cells(plan, dataset=name)] for name in config.datasets]),
        _table(["row", *_HEAD], _rows(plan)),
        "\n".join(_longest(plan)),
        "\n".join(_space(plan)),
    ]
    if plan.unknown:
        parts.insert(2, f"Not known before they were measured, and left out: {', '.join(plan.unknown)}.")
    if cheaper := _cheaper(plan, savings(config, plain, plan.speeds)):
        parts.append(cheaper)
    return "\n\n".join(parts)


def proposal(plan: Estimate, plain: Plain, hours: float) -> str:
    """The largest plan for some hours: what it leaves out, what that costs, and the lines that make it."""
    found, fits = fit_budget(plan.config, plain, plan.speeds, hours)
    took = found.estimate.hours()
    head = f"{hours:g} hours: "
    if not found.steps:
        return f"{head}the whole config fits, with {_span(took)} hours."
    if not fits:
        head += "no honest plan fits; the smallest has three seeds and one data set. "
    counts = {step.name: [s.name for s in found.steps].count(step.name) for step in found.steps}
    lines = [
        f"{head}{_span(took)} hours, of {_span(plan.hours())}. Every row keeps the same budget.",
        *(
            f"- {step.name}{f' (x {counts[step.name]})' if counts[step.name] > 1 else ''}: {step.claim}"
            for step in dict.fromkeys(found.steps)
        ),
        f"As a config beside {plan.config.origin} (nothing was written):",
        "",
        found.lines.rstrip(),
    ]
    return "\n".join(lines)


def requests(plan: Estimate) -> str:
    """Time requests for the section `compute`, from the longest jobs."""
    lines = [
        f"# Longest job of each kind times {MARGIN:g}; speeds {plan.speeds.told}",
        "compute:",
        *(f"  {section}: {{runtime: {minutes}}}" for section, minutes in plan.requests().items()),
    ]
    return "\n".join(lines)


_HEAD = ("jobs", "clips both ways", "clips forward", "hours", "interval")


def _part(plan: Estimate, **of: str) -> dict[str, Any]:
    both, forward = plan.clips(**of)
    return {
        "jobs": plan.jobs(**of),
        "clips": {"both_ways": round(both), "forward": round(forward)},
        "hours": plan.hours(**of)._asdict(),
    }


def _cells(plan: Estimate, **of: str) -> list[str]:
    (both, forward), hours = plan.clips(**of), plan.hours(**of)
    unknown = any(share.seconds is None for share in plan.shares if all(getattr(share, k) == of[k] for k in of))
    known = _number(hours.value) if hours.value or not unknown else "?"
    return [
        f"{plan.jobs(**of):,}",
        f"{both:,.0f}" if both else "",
        f"{forward:,.0f}" if forward else "",
        known,
        "" if known == "?" else f"{_number(hours.low)} to {_number(hours.high)}",
    ]


def _rows(plan: Estimate) -> list[list[str]]:
    """The rows of the tables, and all points of ablations as one."""
    config = plan.config
    found = [[row, *_cells(plan, row=row)] for row in config.methods]
    points = [row for row in config.rows if row not in config.methods]
    if points:
        clips = [plan.clips(row=row) for row in points]
        hours = [plan.hours(row=row) for row in points]
        sums = [sum(ends) for ends in zip(*hours, strict=True)]
        both, forward = map(sum, zip(*clips, strict=True))
        cells = [f"{sum(plan.jobs(row=row) for row in points):,}", f"{both:,.0f}", f"{forward:,.0f}"]
        found.append([f"{len(points)} points", *cells, _number(sums[0]), f"{_number(sums[1])} to {_number(sums[2])}"])
    return found


def _longest(plan: Estimate) -> list[str]:
    lines = ["Longest jobs, in minutes:"]
    for one in plan.longest():
        tries, advice = ceil(one.minutes.value / one.limit), ""
        if tries > 1:
            goes_on = (
                f"{tries} tries, as it goes on (`--retries {tries - 1}`), or " if one.job.startswith(_GO_ON) else ""
            )
            advice = f"; OVER it: {goes_on}raise compute.{one.section}.runtime (`--requests`)"
        lines.append(f"  {one.job}: {_span(one.minutes)} of {one.limit:,} that it is given{advice}")
    return lines


def _space(plan: Estimate) -> list[str]:
    config = plan.config
    lines = ["Disk:"]
    for name in config.columns:
        found = disk(config, name)
        lines.append(f"  {name}: archives {_bytes(found.archives)}, frames {_bytes(found.frames)}")
    lines.append(f"  {Paths.of(config).results}: at most {_bytes(results_bytes(config, plan.speeds.rows))}")
    memory, given = _memory(plan), config.compute.train.mem_mb
    states = _bytes(states_bytes(config, plan.speeds.rows))
    if memory is None:
        lines.append(f"Memory of a training: at least {states} for weights and optimizer; more is not known yet")
    else:
        least = "at least " if _smaller_passes(plan) else ""
        lines.append(f"Memory of a training: {least}{memory:,.0f} MB, as measured; compute.train.mem_mb: {given:,}")
    return lines


def _memory(plan: Estimate) -> float | None:
    """The most that any row was measured to take."""
    found = [plan.speeds.memory_mb(row) for row in plan.config.methods]
    return None if None in found else max(found)


def _smaller_passes(plan: Estimate) -> bool:
    """Whether what was measured had fewer clips in a pass than the config has."""
    there = plan.speeds.config
    return any(
        name not in there.datasets or _pass(there, name) < _pass(plan.config, name) for name in plan.config.datasets
    )


def _pass(config: Config, dataset: str) -> int:
    recipe = config.datasets[dataset].recipe
    at_once = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)
    return at_once * recipe.augmentation.repeats * config.datasets[dataset].clips.num_frames


def _cheaper(plan: Estimate, found: Sequence[Saving]) -> str:
    whole = plan.hours().value
    rows = []
    for saving in found:
        left = saving.estimate.hours().value
        if whole - left > FEW * whole:
            name = saving.steps[0].name
            name = f"{len(saving.estimate.config.seeds)} seeds" if name == "one seed less" else name
            rows.append([name, _number(left), f"{100 * (whole - left) / whole:.0f} %", saving.steps[0].claim])
    head = ["cheaper", "hours", "saved", "what it costs"]
    return _table(head, rows, words=(0, 3)) + "\n`--budget HOURS` prints the lines." if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: tuple[int, ...] = (0,)) -> str:
    """Columns under each other; numbers set flush right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i in words else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def _span(span: Span) -> str:
    return f"{_number(span.value)} ({_number(span.low)} to {_number(span.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "not known yet"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
