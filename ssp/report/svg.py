"""Small charts as inline SVG: lines over epochs, dots over a log axis.

Design choices
- Written by hand: dozens of panels of two or three lines each, which a plotting library would make a hundred times
  larger. They take the page's colours, so they follow its dark mode and print.
- Panels that stand side by side share their axes; only the ends of an axis are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH = 220
LEFT, RIGHT, TOP, BOTTOM = 30, 8, 7, 15  # room for the names of the axes' ends


class Line(NamedTuple):
    """One line: y of points 1, 2, ...; points that are not finite are left out."""

    values: Sequence[float]
    colour: str
    title: str
    dashed: bool = False


class Dot(NamedTuple):
    """One dot of a scatter plot; `look` is one of the page's classes: chosen, complete, pruned, failed."""

    x: float
    y: float
    look: str
    title: str


def lines(series: Iterable[Line], points: int, low: float, high: float, height: int = 90, form: str = ".0f") -> Markup:
    """Lines over 1..points on one axis low..high."""
    across, down = _axis(1, max(points, 2), LEFT, WIDTH - RIGHT), _axis(low, high, height - BOTTOM, TOP)
    drawn = []
    for line in series:
        spots = [(across(i), down(y)) for i, y in enumerate(line.values, 1) if math.isfinite(y)]
        if not spots:
            continue
        style = f'stroke="{line.colour}"' + (' stroke-dasharray="3 2.5"' if line.dashed else "")
        told = f"<title>{escape(line.title)}</title>"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        drawn.append(f'<polyline points="{path}" {style}>{told}</polyline>')
        x, y = spots[-1]
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{line.colour}">{told}</circle>')
    frame = _frame(height, f"{low:{form}}", f"{high:{form}}", "1", str(points) if points > 1 else "")
    return _svg(height, frame + "".join(drawn))


def dots(spots: Iterable[Dot], left: float, right: float, low: float, high: float, height: int = 100) -> Markup:
    """Dots over a log axis left..right."""
    across = _axis(math.log(left), math.log(right), LEFT + 6, WIDTH - RIGHT - 6)
    down = _axis(low, high, height - BOTTOM, TOP)
    drawn = "".join(
        f'<circle class="{dot.look}" cx="{across(math.log(dot.x)):.1f}" cy="{down(dot.y):.1f}" r="3.5">'
        f"<title>{escape(dot.title)}</title></circle>"
        for dot in spots
    )
    return _svg(height, _frame(height, f"{low:.0f}", f"{high:.0f}", f"{left:.2g}", f"{right:.2g}") + drawn)


def _axis(low: float, high: float, start: float, end: float):  # noqa: ANN202 - a function of one number
    """Map low..high to start..end; everything to the middle where the two are one."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (min(max(value, low), high) - low) / (high - low)


def _frame(height: int, low: str, high: str, first: str, last: str) -> str:
    bottom, right = height - BOTTOM, WIDTH - RIGHT
    rules = "".join(f"M{LEFT} {y:.1f}H{right}" for y in (TOP, (TOP + bottom) / 2, bottom))
    return (
        f'<path class="axis" d="{rules}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 4}" text-anchor="end">{high}</text>'
        f'<text x="{LEFT - 4}" y="{bottom + 3}" text-anchor="end">{low}</text>'
        f'<text x="{LEFT}" y="{height - 3}">{first}</text>'
        f'<text x="{right}" y="{height - 3}" text-anchor="end">{last}</text>'
    )


def _svg(height: int, inside: str) -> Markup:
    return Markup(f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">{inside}</svg>')
