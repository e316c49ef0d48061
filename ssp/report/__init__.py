"""The report of a config: one HTML page that needs nothing else, with a way back from every number to its run.

Design choices
- Made from what was written (tables, records, predictions, sweeps, frames, benchmark files); measures nothing itself.
- The first screen is the answer: what was found in sentences, every row in a line, accuracy against cost. What was run,
  and hashes, stand at the end.
- Self-contained: no script, style, font or picture from elsewhere. Works without JavaScript too, which only sorts,
  filters rows and data sets, and marks the runs that a number came from. What is filtered says so by `data-row` and
  `data-set`, the key of a row and of a column.
- A section is a module with a function `content(results)`, a template of the same name under `templates/`, and one line
  in `SECTIONS`. What it shows is decided in the module, how it looks in the template. Where its content is None, the
  config has nothing of that kind, and the page no such section.
- Unlike the tables it shows times, hosts and MLflow run ids, so two runs of the same thing differ in it.
- Light: no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from ssp.config import Config
from ssp.files import write_text
from ssp.report import (
    ablations,
    accuracy,
    answer,
    classes,
    costs,
    curves,
    explained,
    mistakes,
    runs,
    stages,
    sweeps,
)
from ssp.report.results import Results, load_results
from ssp.tables.numbers import LEVEL
from ssp.tables.words import context

TEMPLATES = Path(__file__).parent / "templates"


class Section(NamedTuple):
    """One part of the page; its template is `<anchor>.html.j2`."""

    anchor: str
    title: str
    content: Callable[[Results], dict[str, Any] | None]


SECTIONS = (
    Section("answer", "What was found", answer.content),
    Section("accuracy", "Accuracy", accuracy.content),
    Section("costs", "Costs", costs.content),
    Section("ablations", "Ablations", ablations.content),
    Section("sweeps", "Search", sweeps.content),
    Section("curves", "Curves", curves.content),
    Section("mistakes", "Mistakes", mistakes.content),
    Section("classes", "Classes", classes.content),
    Section("explained", "What SSP attends to", explained.content),
    Section("stages", "Time and memory", stages.content),
    Section("runs", "Runs", runs.content),
)


def write_report(config: Config) -> Path:
    """Write `results/<config>/report.html`.

    Raises:
        RecordError: tables, a record, a sweep's choice or an explanation are missing, broken, or of another config.
        DataError: a manifest cannot be read, or a frame store is not the one that the runs read.
    """
    results = load_results(config)
    environment = page_environment(config)
    sections = [
        {
            "anchor": section.anchor,
            "title": section.title,
            "body": environment.get_template(f"{section.anchor}.html.j2").render(content),
        }
        for section in SECTIONS
        if (content := section.content(results)) is not None
    ]
    page = environment.get_template("page.html.j2").render(
        sections=sections,
        rows=[results.row(name) for name in config.methods],
        columns=[results.data(name) for name in config.columns],
        context=context(config) if results.comparable else "",
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "script.js").read_text(encoding="utf-8"),
    )
    write_text(results.paths.report, page)
    return results.paths.report


def page_environment(config: Config) -> jinja2.Environment:
    """What renders the templates."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": stages.duration}
    environment.globals |= {"config": config, "level": LEVEL}
    return environment


def number(value: Any, form: str = ".1f") -> str:  # noqa: ANN401 - a number of any kind, or a missing one
    """A number as text, with a true minus; a dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{value:{form}}"
    if not text.strip("+-0."):  # rounded to nothing: no sign
        text = text.lstrip("+-")
    return "−" + text[1:] if text.startswith("-") else text
