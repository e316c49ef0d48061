"""Charts as inline SVG: lines over epochs, dots over a learning rate, accuracy against cost.

Design choices
- Written by hand: dozens of panels of two or three lines each, which a plotting library would make a hundred times
  larger. They take the page's colours, so they follow its dark mode and print.
- An axis has round numbers, as many as have room, and says what it measures. Panels side by side share their axes.
- A row is drawn as in the figures (`ssp.figures.style.look`), so colour is never all that tells two rows apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from ssp.figures.style import MARKERS, look

LETTER = 0.6  # width of a letter, as a share of its height


class Line(NamedTuple):
    """A line of (x, y); points that are not finite are left out. `look` is a class of the page, as c0."""

    points: Sequence[tuple[float, float]]
    look: str
    title: str
    dashed: bool = False
    ended: bool = True
    """With a dot at its end."""


class Dot(NamedTuple):
    """One dot of a scatter plot; `look` is one of the page's classes: chosen, complete, pruned, failed."""

    x: float
    y: float
    look: str
    title: str


class Spot(NamedTuple):
    """A row where it stands, with its name beside it; `low` and `high` are the ends of its interval, if it has one."""

    row: str
    name: str
    x: float
    y: float
    low: float
    high: float
    title: str
    hollow: bool = False


class Axis(NamedTuple):
    """Where numbers lie, and those that are named."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    title: str
    log: bool = False


class Box(NamedTuple):
    """The room of a chart, in its own coordinates, and how large letters are there."""

    width: int
    height: int
    font: int

    @property
    def left(self) -> float:
        """Where the x axis begins."""
        return 4.2 * self.font

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.width - self.font

    @property
    def bottom(self) -> float:
        """Where the y axis begins."""
        return self.height - 3.1 * self.font

    @property
    def top(self) -> float:
        """Where it ends."""
        return 1.7 * self.font


PANEL, MIDDLE, PICTURE = Box(300, 170, 11), Box(400, 280, 12), Box(560, 400, 13)
MOST_NAMED = 8  # numbers of an axis that are all named


def linear(values: Iterable[float], title: str, least: float = 0.0, ends: tuple[float, float] = (-math.inf, math.inf)):  # noqa: ANN201
    """An axis over values, from one round number to another.

    Args:
        values: what it is to hold; those that are not finite are left out.
        title: what it measures.
        least: its least length, so that noise does not fill it.
        ends: beyond which there is nothing, as percent are within 0 and 100.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    missing = max(least, 1e-9 * max(abs(low), abs(high), 1)) - (high - low)
    if missing > 0:
        low, high = low - missing / 2, high + missing / 2
    step = _round_step((high - low) / 5)
    low, high = max(math.floor(low / step + 1e-9) * step, ends[0]), min(math.ceil(high / step - 1e-9) * step, ends[1])
    ticks = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    # As many decimals as the step needs: 2.5 has one.
    decimals = next(n for n in range(12) if abs(round(step, n) - step) < 1e-9 * step)
    return Axis(low, high, [(tick, f"{tick:.{decimals}f}".replace("-", "−")) for tick in ticks], title)


def at(values: Iterable[float], title: str) -> Axis:
    """An axis over a few numbers, each of them named; over many as `linear`."""
    known = sorted({float(value) for value in values})
    axis = linear(known, title)
    if len(known) > MOST_NAMED:
        return axis
    room = 0.06 * (known[-1] - known[0]) or 1.0
    return Axis(known[0] - room, known[-1] + room, [(value, f"{value:g}") for value in known], title)


def whole(last: int, title: str) -> Axis:
    """An axis over 1, 2, ..., last."""
    step = max(1, math.ceil(_round_step(last / 5)))
    ticks = [1, *(tick for tick in range(step, last + 1, step) if tick - 1 >= step / 2)]
    return Axis(1, max(last, 2), [(tick, str(tick)) for tick in ticks], title)


def logarithmic(values: Iterable[float], title: str, margin: float = 1.0) -> Axis:
    """A log axis over positive values, with room for a factor of `margin` at both ends.

    Named are powers of ten where there are enough of them, else steps between these: a range of less than a decade has
    numbers too, and none collide.
    """
    known = [value for value in values if value > 0] or [1.0]
    low, high = min(known) / margin, max(known) * margin
    if high / low < 1.5:
        low, high = low / 1.5, high * 1.5
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 6)]
    return Axis(low, high, [(tick, short(tick)) for tick in ticks], title, log=True)


def short(value: float) -> str:
    """A positive number in few letters: 0.003, 20, 1.5k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.2g}" if value < 1e-3 else f"{value:.3g}"


def lines(series: Iterable[Line], x: Axis, y: Axis) -> Markup:
    """Lines in one frame."""
    across, down = _places(x, y, PANEL)
    drawn = []
    for line in series:
        spots = [(across(a), down(b)) for a, b in line.points if math.isfinite(b)]
        if not spots:
            continue
        told, style = f"<title>{escape(line.title)}</title>", ' stroke-dasharray="4 3"' if line.dashed else ""
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        drawn.append(f'<polyline class="{line.look}" points="{path}"{style}>{told}</polyline>')
        if line.ended:
            a, b = spots[-1]
            drawn.append(f'<circle class="{line.look}" cx="{a:.1f}" cy="{b:.1f}" r="2.5">{told}</circle>')
    return _svg(PANEL, x, y, "".join(drawn))


def dots(spots: Iterable[Dot], x: Axis, y: Axis) -> Markup:
    """Dots, each with words."""
    across, down = _places(x, y, PANEL)
    drawn = "".join(
        f'<circle class="{dot.look}" cx="{across(dot.x):.1f}" cy="{down(dot.y):.1f}" r="4">'
        f"<title>{escape(dot.title)}</title></circle>"
        for dot in spots
    )
    return _svg(PANEL, x, y, drawn)


def rows(spots: Sequence[Spot], x: Axis, y: Axis, front: Sequence[str], told: str, box: Box = PICTURE) -> Markup:
    """Rows with intervals and names, and the steps of a front through some of them; `told` is the picture in words."""
    across, down = _places(x, y, box)
    at = {spot.row: (across(spot.x), down(spot.y)) for spot in spots}
    drawn, corners = [], _steps([at[row] for row in front])
    if len(corners) > 1:
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in corners)
        drawn.append(f'<path class="front" d="M{path}"/>')
    bars = [(at[s.row][0], down(s.high), down(s.low)) for s in spots if math.isfinite(s.low)]
    names = _names(spots, at, corners, bars, box)
    for spot in spots:
        (a, b), mark = at[spot.row], look(spot.row)
        bar = ""
        if math.isfinite(spot.low):
            bar = f'<path class="bar" d="M{a:.1f} {down(spot.low):.1f}V{down(spot.high):.1f}"/>'
        shape = f'<path class="mark{" hollow" if spot.hollow else ""}" d="{marker(mark.marker, a, b, box.font / 2)}"/>'
        drawn.append(
            f'<g class="c{mark.colour}" data-row="{escape(spot.row)}">{bar}{shape}{names.get(spot.row, "")}'
            f"<title>{escape(spot.title)}</title></g>"
        )
    return _svg(box, x, y, "".join(drawn), told)


def key(row: str) -> Markup:
    """The mark of a row, to stand beside its name in text."""
    mark = look(row)
    shape = marker(mark.marker, 6, 6, 5)
    return Markup(f'<svg class="key c{mark.colour}" viewBox="0 0 12 12" aria-hidden="true"><path d="{shape}"/></svg>')


def marker(place: int, x: float, y: float, r: float) -> str:
    """The outline of a marker of `ssp.figures.style`, around a point."""
    kind = MARKERS[place]
    if kind == "o":
        return f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0z"
    if kind in "PX":  # a thick cross
        arm, end = 0.36 * r, 1.05 * r
        corners = [(arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm), (arm, end)]
        corners += [(-a, -b) for a, b in corners]
        turn = math.pi / 4 if kind == "X" else 0.0
        corners = [
            (a * math.cos(turn) - b * math.sin(turn), a * math.sin(turn) + b * math.cos(turn)) for a, b in corners
        ]
    else:
        count, turn = {"s": (4, 45), "D": (4, 0), "^": (3, 0), "v": (3, 180), "*": (10, 0), "h": (6, 0), "p": (5, 0)}[
            kind
        ]
        radii = [1.25 * r, 0.55 * r] if kind == "*" else [1.12 * r]
        corners = []
        for i in range(count):
            angle, out = math.radians(turn + 360 * i / count), radii[i % len(radii)]
            corners.append((out * math.sin(angle), -out * math.cos(angle)))
    return "M" + "L".join(f"{x + a:.1f} {y + b:.1f}" for a, b in corners) + "z"


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a line that goes right and then up, from place to place."""
    found = list(places[:1])
    for a, b in places[1:]:
        found += [(a, found[-1][1]), (a, b)]
    return found


def _names(
    spots: Sequence[Spot],
    at: dict[str, tuple[float, float]],
    corners: Sequence[tuple[float, float]],
    bars: Sequence[tuple[float, float, float]],
    box: Box,
) -> dict[str, str]:
    """Names beside their marks where there is room; one without room has its title alone, and the table beside it."""
    size, r = box.font * 0.92, box.font / 2
    taken = [(a - r, b - r, a + r, b + r) for a, b in at.values()]
    taken += [(min(a, c), min(b, d) - 1, max(a, c) + 1, max(b, d)) for (a, b), (c, d) in pairwise(corners)]
    taken += [(a - 1, top, a + 1, bottom) for a, top, bottom in bars]
    found = {}
    for spot in spots:
        (a, b), width = at[spot.row], LETTER * size * len(spot.name)
        for dx, dy, anchor in (
            *((1.7 * r, 0.35 * size, "start"), (-1.7 * r, 0.35 * size, "end")),
            *((0.8 * r, -1.2 * r, "start"), (-0.8 * r, -1.2 * r, "end"), (1.2 * r, r + 0.8 * size, "start")),
            *((-1.2 * r, r + 0.8 * size, "end"), (0.0, -1.8 * r, "middle"), (0.0, 1.8 * r + 0.8 * size, "middle")),
        ):
            left = a + dx - {"start": 0, "end": width, "middle": width / 2}[anchor]
            place = (left, b + dy - 0.8 * size, left + width, b + dy + 0.2 * size)
            inside = box.left < place[0] and place[2] < box.right + r and box.top - size < place[1] < box.bottom - size
            if inside and not any(_overlap(place, other) for other in taken):
                taken.append(place)
                found[spot.row] = (
                    f'<text class="name" x="{a + dx:.1f}" y="{b + dy:.1f}" text-anchor="{anchor}">'
                    f"{escape(spot.name)}</text>"
                )
                break
    return found


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _round_step(step: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is no smaller."""
    size = 10.0 ** math.floor(math.log10(step))
    return next(size * times for times in (1, 2, 2.5, 5, 10) if size * times >= step * (1 - 1e-9))


def _places(x: Axis, y: Axis, box: Box) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From numbers to coordinates; what lies beyond an axis is drawn at its end."""

    def along(axis: Axis, start: float, end: float) -> Callable[[float], float]:
        scale = math.log if axis.log else float
        low, high = scale(axis.low), scale(axis.high)

        def place(value: float) -> float:
            inside = min(max(value, axis.low), axis.high)
            return start + (end - start) * (scale(inside) - low) / (high - low)

        return place

    return along(x, box.left, box.right), along(y, box.bottom, box.top)


def _svg(box: Box, x: Axis, y: Axis, inside: str, told: str = "") -> Markup:
    across, down = _places(x, y, box)
    rules = "".join(f"M{box.left:.1f} {down(tick):.1f}H{box.right:.1f}" for tick, _ in y.ticks)
    marks = "".join(f"M{across(tick):.1f} {box.bottom:.1f}v4" for tick, _ in x.ticks)
    near = 0.35 * box.font
    words = [
        *(
            f'<text x="{box.left - 5:.1f}" y="{down(t) + near:.1f}" text-anchor="end">{name}</text>'
            for t, name in y.ticks
        ),
        *(
            f'<text x="{across(t):.1f}" y="{box.bottom + 1.3 * box.font:.1f}" text-anchor="middle">{name}</text>'
            for t, name in x.ticks
        ),
        f'<text x="{(box.left + box.right) / 2:.1f}" y="{box.height - 0.35 * box.font:.1f}" text-anchor="middle">'
        f"{escape(x.title)}</text>",
        f'<text x="2" y="{0.95 * box.font:.1f}">{escape(y.title)}</text>',
    ]
    return Markup(
        f'<svg class="chart" viewBox="0 0 {box.width} {box.height}" role="img" style="font-size: {box.font}px" '
        f'aria-label="{escape(told or f"{y.title} over {x.title}")}">'
        f'<path class="axis" d="{rules}"/>'
        f'<path class="axis dark" d="M{box.left:.1f} {box.bottom:.1f}H{box.right:.1f}{marks}"/>'
        f'<g class="words">{"".join(words)}</g>{inside}</svg>'
    )
