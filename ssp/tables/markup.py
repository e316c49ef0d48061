"""A DataFrame as aligned Markdown or as a booktabs table in LaTeX.

Design choices
- A table's columns are what the reader sees, its index is not shown. Two-level columns become column groups.
- Cells may be text, numbers (floats with two decimals), `Number` (one in its own digits), `Measured` (mean ± sd) or
  missing; both writers show the same digits.
- All text is escaped: a method name or the reason of a failure can never break a table or a LaTeX run.
- LaTeX needs the package booktabs alone and compiles in the plain article class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

WIDE = 8  # columns above which LaTeX needs smaller type to stay within the text width of `article`
DECIMALS = 1  # of what was measured; a test set of 1,500 videos carries no more


@dataclass(frozen=True)
class Measured:
    """A mean over seeds and its standard deviation (NaN for one seed), as one cell of a table."""

    mean: float
    sd: float
    best: bool = False
    note: str = ""

    @property
    def text(self) -> str:
        """Mean ± sd without marks."""
        mean = f"{self.mean:.{DECIMALS}f}"
        return mean if pd.isna(self.sd) else f"{mean} ± {self.sd:.{DECIMALS}f}"


@dataclass(frozen=True)
class Published:
    """A published number, and the sign of what became of it (`ssp.tables.verdict.SIGNS`)."""

    value: float
    sign: str = ""

    @property
    def text(self) -> str:
        """Both, as in the paper with two decimals."""
        return f"{self.value:.2f} {self.sign}".rstrip()


@dataclass(frozen=True)
class Noted:
    """Text with a mark that points at a note under the table."""

    text: str
    note: str


@dataclass(frozen=True)
class Number:
    """A number in the digits that it is to be shown with, perhaps with a mark that points at a note under the table."""

    text: str
    note: str = ""


class Notes(list[str]):
    """The notes under a table, in the order in which its cells name them."""

    def mark(self, text: str) -> str:
        """The mark that points at a note, which is added unless it stands there already."""
        if text not in self:
            self.append(text)
        return str(1 + self.index(text))


def plain_text(value: Any) -> str:  # noqa: ANN401 - a cell of any type
    """A cell without markup, for a terminal or a page: its text and its mark."""
    if _is_missing(value):
        return "–"
    if isinstance(value, Measured | Noted | Number):
        return value.text + (f" [{value.note}]" if value.note else "")
    return value.text if isinstance(value, Published) else value if isinstance(value, str) else _number(value)


def dataframe_to_markdown(table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """An aligned Markdown table (GitHub's dialect), notes below.

    Args:
        table: what to show; the index is left out, column groups are joined with their columns' names.
        notes: lines under the table, marked [1], [2], ...
    """
    header = [_markdown_text(" ".join(part for part in levels if part)) for levels in _levels(table)]
    rows = [[_markdown_cell(value) for value in row] for row in table.itertuples(index=False)]
    right = [_is_numeric(table.iloc[:, i]) for i in range(len(header))]
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Iterable[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
    lines = [line(header), line(rule), *map(line, rows)]
    if notes:
        lines += ["", *(f"- [{i}] {_markdown_text(note)}" for i, note in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def dataframe_to_latex(table: pd.DataFrame, caption: str, label: str, notes: Sequence[str] = ()) -> str:
    r"""A `table` float with booktabs rules, to be read with `\input`.

    Args:
        table: what to show; the index is left out, column groups span their columns.
        caption: plain text, escaped here.
        label: target of `\ref`.
        notes: lines under the table, marked 1, 2, ...
    """
    levels = _levels(table)
    columns = "".join("r" if _is_numeric(table.iloc[:, i]) else "l" for i in range(len(levels)))
    size, gap = (r"\scriptsize", "2pt") if len(levels) > WIDE else (r"\footnotesize", "4pt")
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        r"\vspace{4pt}",
        rf"\label{{{re.sub(r'[^A-Za-z0-9:.-]', '-', label)}}}",
        rf"{size}\setlength{{\tabcolsep}}{{{gap}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_latex_groups([group for group, _ in levels]),
        " & ".join(latex_text(name) for _, name in levels) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cell(value) for value in row) + r" \\" for row in table.itertuples(index=False)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes:
        marked = (rf"$^{{{i}}}$~{latex_text(note)}" for i, note in enumerate(notes, 1))
        lines += [r"\par\smallskip", r"\raggedright " + r"\\ ".join(marked)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # a bare one after a line's end would be read as its argument; so would a star
    "*": "{*}",
    "±": r"$\pm$",
    "−": r"$-$",
    "≠": r"$\neq$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "\u00a0": "~",
}


def latex_text(text: str) -> str:
    """Plain text for LaTeX: specials escaped, line ends made spaces, "?" for what the standard fonts do not have."""
    letters = "äöüÄÖÜßéèêëáàâíìóòôúùûçñ"
    line = " ".join(text.split()).replace(" %", "\u00a0%")
    return "".join(_LATEX.get(c, c if c.isascii() or c in letters else "?") for c in line)


def _levels(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(group, name) of each column; the group is "" where there is none."""
    return [(str(c[0]), str(c[1])) if isinstance(c, tuple) else ("", str(c)) for c in table.columns]


def _latex_groups(groups: list[str]) -> list[str]:
    """The header line of column groups with the rules below it; nothing where no column is in a group."""
    if not any(groups):
        return []
    heads, rules, start = [], [], 1
    for name, run in groupby(groups):
        width = len(list(run))
        heads.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    return [" & ".join(heads) + r" \\", " ".join(rules)]


def _is_missing(value: Any) -> bool:  # noqa: ANN401 - a cell of any type
    return value is None or (not isinstance(value, str | Measured | Noted | Number | Published) and pd.isna(value))


def _is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, which are read from the right."""
    known = [value for value in column if not _is_missing(value) and not isinstance(value, Noted)]
    return bool(known) and not any(isinstance(value, str) for value in known)


def _number(value: Any) -> str:  # noqa: ANN401 - int, float, or their numpy kinds
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\|`*<])", r"\\\1", " ".join(text.split()))


def _markdown_cell(value: Any) -> str:  # noqa: ANN401 - a cell of any type
    if _is_missing(value):
        return "–"
    if isinstance(value, Measured | Noted | Number):
        text = f"**{value.text}**" if isinstance(value, Measured) and value.best else _markdown_text(value.text)
        return f"{text} [{value.note}]" if value.note else text
    if isinstance(value, Published):
        return value.text
    return _markdown_text(value) if isinstance(value, str) else _number(value)


def _latex_cell(value: Any) -> str:  # noqa: ANN401 - a cell of any type
    if _is_missing(value):
        return "--"
    if isinstance(value, str | Published):
        return latex_text(value if isinstance(value, str) else value.text)
    if not isinstance(value, Measured | Noted | Number):
        return _number(value)
    text = latex_text(value.text)
    if isinstance(value, Measured):
        # The spread as a subscript keeps a table over four data sets within the text width.
        mean, _, sd = value.text.partition(" ± ")
        text = rf"\textbf{{{mean}}}" if value.best else mean
        text += rf"$_{{\pm {sd}}}$" if sd else ""
    return text + (f"$^{{{value.note}}}$" if value.note else "")
