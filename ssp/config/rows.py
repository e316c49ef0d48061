"""Rows: what is trained and compared. A row is a named setting of a tuning method.

Design choices
- Rows of the tables are the entries of `methods`; the points of an ablation are rows too, so one workflow trains both.
- A point is called by what it changes, not by its ablation: two ablations that share a point share its run, and a point
  that is a row of the tables, by its settings, is that row.
- A point that inherits hyper-parameters has no study of its own: it is trained with what its base row's study chose.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssp.config.sections.rows import Ablation, Method
from ssp.config.sections.search import Range, Start

# Of a row that bears a registered method's name and says no title of its own. The classes say the same, but asking them
# takes torch; a test holds the two together.
TITLES = {
    "full": "Full",
    "adapter": "Adapter",
    "st_adapter": "ST-Adapter",
    "vpt": "VPT",
    "vfpt": "VFPT",
    "svp": "SVP",
    "additional_scan": "Additional-Scan",
    "stop": "STOP",
    "ssp": "SSP",
    "linear": "Linear",
    "affix": "Affix",
    "bitfit": "BitFit",
    "dora": "DoRA",
    "initial_state": "Initial state",
    "lora": "LoRA",
    "norm_tuning": "Norm tuning",
    "partial": "Partial",
    "prodial": "ProDiaL",
    "sdt": "SDT",
    "ssf": "SSF",
    "state_offset": "State-offset",
}


@dataclass(frozen=True)
class Row:
    """A named setting of a tuning method, everything resolved."""

    name: str
    title: str
    method: str
    """Registered name."""
    options: dict[str, Any]
    """With the quirks that are an option of the method."""
    published: str | None
    """The paper's row that it stands beside, if any."""
    space: dict[str, Range] = field(default_factory=dict)
    start: Start = field(default_factory=Start)
    starts: dict[str, Start] = field(default_factory=dict)
    varied: dict[str, Any] = field(default_factory=dict)
    """What an ablation changed; no search moves it."""
    inherits: str | None = None
    """The row whose study chose the hyper-parameters; None: its own."""

    @property
    def tuned_as(self) -> str:
        """The row whose study chooses the hyper-parameters."""
        return self.inherits or self.name

    def start_on(self, dataset: str) -> dict[str, float]:
        """The shared hyper-parameters whose start on a data set is the row's own."""
        return _said(self.start) | _said(self.starts.get(dataset, Start()))

    def same_as(self, other: Row) -> bool:
        """Whether both are trained alike, whatever they are called."""
        return self._settings == other._settings

    @property
    def _settings(self) -> str:
        fixed = [] if self.inherits else sorted(self.varied)
        space = {name: r.model_dump() for name, r in self.space.items()}
        starts = {name: _said(start) for name, start in self.starts.items()}
        return _plain([self.method, self.options, self.inherits, space, _said(self.start), starts, fixed])


@dataclass(frozen=True)
class Point:
    """A point of an ablation: a row, and where it stands."""

    title: str
    row: str
    values: dict[str, Any]
    """By option, where the ablation varies one or two; empty where its points are named."""


def table_rows(methods: Mapping[str, Method], quirks: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    """The rows of the tables, by name.

    Args:
        methods: the config's section.
        quirks: registered name -> options that are quirks, with their effective value.
    """
    return {
        name: Row(
            name=name,
            title=row.title or TITLES.get(name, name),
            method=row.method or name,
            options={**quirks.get(row.method or name, {}), **row.options},
            published=None if row.published is False else row.published or name,
            space=row.space,
            start=row.start,
            starts=row.starts,
        )
        for name, row in methods.items()
    }


def ablation_points(ablation: Ablation, rows: dict[str, Row]) -> list[Point]:
    """The points of an ablation in order; rows that are new are added to `rows`."""
    base, points = rows[ablation.of], []
    for title, changes, values in _changes(ablation):
        row = _changed(base, changes, title, search=ablation.hyperparameters == "search")
        same = next((other for other in rows.values() if row.same_as(other)), None)
        row = same or rows.setdefault(row.name, row)
        points.append(Point(title, row.name, values))
    return points


def _changes(ablation: Ablation) -> Iterable[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Title, changed options, and values by axis of each point."""
    if isinstance(ablation.vary, dict):
        for values in itertools.product(*ablation.vary.values()):
            at = dict(zip(ablation.vary, values, strict=True))
            yield ", ".join(f"{option} {_word(value)}" for option, value in at.items()), at, at
        return
    for point in ablation.vary:
        title = point.title or ", ".join(f"{option} {_word(value)}" for option, value in point.options.items())
        yield title, point.options, {}


def _changed(base: Row, changes: dict[str, Any], title: str, *, search: bool) -> Row:
    options = base.options | changes
    if _plain(options) == _plain(base.options):
        return base
    name = "+".join([base.name, *(f"{option}={_word(changes[option])}" for option in sorted(changes))])
    if len(name) > 80 or not re.fullmatch(r"[\w.+=-]+", name, re.ASCII) or not all(map(_tells, changes.values())):
        name = f"{base.name}+{hashlib.sha256(_plain(changes).encode()).hexdigest()[:12]}"
    row = Row(name, title, base.method, options, published=None, varied=changes)
    if not search:
        return Row(**vars(row) | {"inherits": base.name})
    space = {key: r for key, r in base.space.items() if key not in changes}
    own = {"name": f"{name}+searched", "space": space, "start": base.start, "starts": base.starts}
    return Row(**vars(row) | own)


def _word(value: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    return value if isinstance(value, str) else json.dumps(value)


def _tells(value: Any) -> bool:  # noqa: ANN401 - whatever YAML holds
    """Whether the word for a value is no other value's: the text "1" and the number 1 share theirs."""
    if not isinstance(value, str):
        return True
    try:
        json.loads(value)
    except ValueError:
        return True
    return False


def _said(start: Start) -> dict[str, float]:
    return start.model_dump(exclude_defaults=True)


def _plain(value: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    return json.dumps(value, sort_keys=True)
