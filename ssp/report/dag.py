"""The workflow's rules as a picture: what needs what. Snakemake need not be there; a test compares this with its graph.

Design choices
- Only direct needs are named and drawn: training needs manifests as well, but has them through the sweep.
- A rule stands as low as it can, one line above what needs it first; the data's rules keep the first column, and from
  the search on a line is centred.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

NEEDS: dict[str, tuple[str, ...]] = {
    "generate": (),
    "fetch": ("generate",),
    "unpack": ("fetch",),
    "manifest": ("unpack",),
    "frames": ("manifest",),
    "build_scan": (),
    "pretrain": ("build_scan",),
    "fetch_weights": (),
    "init_tracking": (),
    "search": ("frames", "pretrain", "fetch_weights", "build_scan", "init_tracking"),
    "sweep": ("search", "frames", "pretrain", "fetch_weights", "build_scan", "init_tracking"),
    "train": ("sweep",),
    "costs": ("build_scan",),
    "tables": ("train", "costs"),
    "ablation": ("train",),
    "ablation_curve": ("ablation",),
    "explain": ("train",),
    "keep_manifest": ("manifest",),
    "report": ("tables", "ablation", "ablation_curve", "explain", "keep_manifest"),
}
"""Rules in the order of work, with what they need directly; a config that has no use for a rule leaves it out."""

DATA = ("generate", "fetch", "unpack", "manifest", "frames")
BOX, GAP, ROW = (128, 44), 12, 66  # width and height of a box, space between columns, height of a line


def edges(rules: Iterable[str]) -> list[tuple[str, str]]:
    """(needed, rule) for those rules that are there, without what follows from other edges."""
    there = [rule for rule in NEEDS if rule in set(rules)]
    direct = {rule: {need for need in NEEDS[rule] if need in there} for rule in there}
    above: dict[str, set[str]] = {}
    for rule in there:  # in the order of work, so that what a rule needs is known already
        above[rule] = direct[rule].union(*(above[need] for need in direct[rule]))
    return [
        (need, rule)
        for rule in there
        for need in sorted(direct[rule], key=there.index)
        if not any(need in above[other] for other in direct[rule])
    ]


def drawing(labels: dict[str, str]) -> Markup:
    """Boxes and arrows as inline SVG.

    Args:
        labels: for each rule of the workflow, the line under its name.
    """
    arrows = edges(labels)
    height = _heights(list(labels), arrows)
    lines = max(height.values()) + 1
    after = [height[rule] for rule in labels if not _is_before_search(rule)]
    columns = max(1 + max(_column(rule, labels, height) for rule in labels), *map(after.count, after))
    at = {}
    for rule in labels:
        column = _column(rule, labels, height)
        if not _is_before_search(rule):
            line = [other for other in labels if height[other] == height[rule]]
            column = (columns - len(line)) / 2 + line.index(rule)
        at[rule] = (column * (BOX[0] + GAP) + 1, (lines - 1 - height[rule]) * ROW + 1)
    parts = [_arrow(at[need], at[rule]) for need, rule in arrows]
    for rule, (x, y) in at.items():
        middle = x + BOX[0] / 2
        parts.append(
            f'<rect x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
            f'<text class="rule" x="{middle}" y="{y + 18}" text-anchor="middle">{escape(rule)}</text>'
            f'<text x="{middle}" y="{y + 34}" text-anchor="middle">{escape(labels[rule])}</text>'
        )
    width, down = columns * (BOX[0] + GAP) - GAP + 2, (lines - 1) * ROW + BOX[1] + 2
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    tip += '<path d="M0 0L8 4L0 8z"/></marker>'
    return Markup(
        f'<svg class="dag" viewBox="0 0 {width} {down}" style="max-width: {width}px" role="img">'
        f"<title>Rules of the workflow</title><defs>{tip}</defs>{''.join(parts)}</svg>"
    )


def _heights(rules: list[str], arrows: list[tuple[str, str]]) -> dict[str, int]:
    """Lines above the bottom: one more than the highest of what needs a rule."""
    height: dict[str, int] = {}
    for rule in reversed(rules):
        height[rule] = max((height[after] + 1 for need, after in arrows if need == rule), default=0)
    return height


def _is_before_search(rule: str) -> bool:
    return list(NEEDS).index(rule) < list(NEEDS).index("search")


def _column(rule: str, rules: Iterable[str], height: dict[str, int]) -> int:
    """Column of a rule before the search: data first, the others of its line beside it."""
    if rule in DATA or not _is_before_search(rule):
        return 0
    beside = [other for other in rules if height[other] == height[rule] and other not in DATA]
    return 1 + beside.index(rule)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x0, y0, x1, y1 = start[0] + BOX[0] / 2, start[1] + BOX[1], end[0] + BOX[0] / 2, end[1] - 1
    bend = (y0 + y1) / 2
    return f'<path class="arrow" d="M{x0} {y0}C{x0} {bend} {x1} {bend} {x1} {y1}" marker-end="url(#tip)"/>'
