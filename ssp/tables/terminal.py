"""The tables on a terminal, from the files that were written; a narrow terminal gets one block per data set.

Light: reads CSV files, neither records nor predictions, so that the end of a run costs nothing.
"""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from ssp.config import Config, search_words
from ssp.paths import Paths
from ssp.records.shared import joined_words
from ssp.tables.layout import RANK, Layout, lay_out
from ssp.tables.long import LongTables, read_tables
from ssp.tables.markup import Measured, Noted, plain_text
from ssp.tables.numbers import LEVEL, interval_text
from ssp.tables.words import PAPER, bold_words, context, epoch_words, seeds_words, sign_words


def print_tables(config: Config, console: Console | None = None, tables: LongTables | None = None) -> None:
    """Print accuracy, parameters and costs of a config, and where the tables lie.

    Args:
        config: whose tables.
        console: where to.
        tables: others than those that `ssp.tables.write_tables` has written.

    Raises:
        RecordError: the tables are not written, or not as this version writes them.
    """
    console = console or Console()
    written = tables is None
    tables = read_tables(config) if written else tables
    layouts = lay_out(config, tables)
    console.print(f"\n{config.title}", style="bold", markup=False, highlight=False)
    wide = _accuracy_wide(config, tables, layouts["main"])
    fits = _width(console, wide) <= console.width
    _show(console, wide if fits else _accuracy_narrow(config, tables, layouts["main"]))
    _show_notes(console, layouts["main"])
    words = [
        f"Top-1 in percent: mean ± sd over {seeds_words(config)}, and the {LEVEL} interval of the",
        f"mean for other {config.units} and other test groups.",
        bold_words(config, tables),
        f"Search for each data set and method: {search_words(config) or 'none'}{epoch_words(config)}.",
        joined_words(config),
        context(config),
        sign_words(tables),
    ]
    console.print(
        " ".join(filter(None, words)) + "\n",
        style="dim",
        markup=False,
        highlight=False,
    )
    _show(console, _parameter_table(layouts["parameters"]))
    console.print()
    _show(console, _cost_table(layouts["costs"]))
    _show_notes(console, layouts["costs"])
    where = f"Tables: {Paths.of(config).tables}/" if written else "These tables were not written."
    console.print(f"\n{where}", style="dim", markup=False, highlight=False, soft_wrap=True)


def print_parameters(parameters: pd.DataFrame, console: Console | None = None) -> None:
    """Print `parameter_table` within 80 columns: data sets in rows under their backbone and method."""
    console = console or Console()
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("backbone, method,\ndata set", no_wrap=True)
    for name in ("total", "trainable", "extra", "head", "extra+\nnorm+head", "paper\nM", "off\nby M"):
        table.add_column(name, justify="right", no_wrap=True, style="dim" if "M" in name else "")
    met: dict[str, list[str]] = {}
    for backbone, methods in parameters.groupby("backbone", sort=False):
        table.add_section()
        table.add_row(Text(str(backbone), "bold"))
        for method, rows in methods.groupby("method", sort=False):
            table.add_row(Text(f" {method}", "bold"))
            for row in rows.itertuples():
                counts = (row.total, row.trainable, row.extra, row.head, row.extra_norm_head)
                off = "–" if pd.isna(row.difference_m) else f"{row.difference_m:+.2f}"
                table.add_row(f"  {row.dataset}", *(f"{n:,}" for n in counts), _published(row.published_m), off)
            for counts, same in rows[rows["published_m"].notna()].groupby("met_by", sort=False):
                where = "" if len(same) == len(rows) else f" on {', '.join(same['dataset'])}"
                named = counts.replace("extra_norm_head", "extra+norm+head") or "none of the counts"
                met.setdefault(named, []).append(f"{method}{where}")
    _show(console, table)
    legend = "extra: what the method adds; norm: the final norm, which trains with the head."
    console.print(legend, style="dim", highlight=False)
    if met:
        console.print("The paper's figure is met by", style="dim", highlight=False)
    for counts, cells in met.items():
        console.print(f"- {counts}: {'; '.join(cells)}", style="dim", markup=False, highlight=False)


def _width(console: Console, table: Table) -> int:
    """Characters that a table needs, whatever the terminal has."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _show(console: Console, table: Table) -> None:
    """Print a table in full: on a terminal that is too narrow lines wrap, but no digit is cut off."""
    options = console.options.update(width=_width(console, table))
    console.print(Segments(console.render(table, options)), crop=False, soft_wrap=True)


def _show_notes(console: Console, layout: Layout) -> None:
    for i, note in enumerate(layout.notes, 1):
        console.print(f"[{i}] {note}", style="yellow", markup=False, highlight=False)


def _accuracy_wide(config: Config, tables: LongTables, main: Layout) -> Table:
    """Methods in rows; for each data set what was measured, and the published number."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for group, name in list(main.table.columns)[1:]:
        dim = "dim" if name == PAPER else ""
        table.add_column(
            name if name in (PAPER, RANK) else main.heads.get(group, group), justify="right", style=dim, no_wrap=True
        )
    for method, row in zip(config.methods, main.table.itertuples(index=False), strict=True):
        cells = []
        for (group, name), value in zip(list(main.table.columns)[1:], row[1:], strict=True):
            if name in (PAPER, RANK):
                cells.append((value.text if name == PAPER else value) if value else "–")
                continue
            interval = _interval(tables.uncertainty, group, method)
            cells.append(Text.assemble(_measured(value), "\n", (interval, "dim")) if interval else _measured(value))
        table.add_row(row[0], *cells)
    return table


def _accuracy_narrow(config: Config, tables: LongTables, main: Layout) -> Table:
    """One block per data set: methods in rows."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("data set, method", no_wrap=True)
    paper = [PAPER] if PAPER in main.table.columns.get_level_values(1) else []
    for name in ("top-1 ± sd", f"{LEVEL} interval", *paper, RANK):
        table.add_column(name, justify="right", style="dim" if name == PAPER else "")
    for group in dict.fromkeys(group for group, _ in main.table.columns if group):
        table.add_section()
        table.add_row(Text(main.heads.get(group, group), "bold"))
        for method, (_, row) in zip(config.methods, main.table.iterrows(), strict=True):
            interval = _interval(tables.uncertainty, group, method)
            table.add_row(
                f"  {row[('', 'method')]}",
                _measured(row[(group, "top-1")]),
                interval,
                *(published.text if (published := row.get((group, name))) else "–" for name in paper),
                row.get((group, RANK)) or "",
            )
    return table


def _parameter_table(layout: Layout) -> Table:
    """Parameter counts, one row per method and data set."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in layout.table.columns:
        justify = "left" if name in ("method", "data set") else "right"
        style = "dim" if PAPER in name else ""
        table.add_column(name.replace(" (", "\n("), justify=justify, style=style, no_wrap=True)
    last = None  # a method's name stands in its first row alone
    for row in layout.table.itertuples(index=False):
        cells = [
            _published(value) if PAPER in name else "–" if pd.isna(value) else f"{value:,}"
            for name, value in list(zip(layout.table.columns, row, strict=True))[2:]
        ]
        table.add_row("" if row[0] == last else row[0], row[1], *cells)
        last = row[0]
    return table


def _cost_table(layout: Layout) -> Table:
    """Costs, one row per row of the config."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for group, name in layout.table.columns:
        first = not table.columns
        table.add_column("\n".join(f"{group} {name}".split()), justify="left" if first else "right", no_wrap=True)
    for row in layout.table.itertuples(index=False):
        table.add_row(*map(plain_text, row))
    return table


def _measured(value: Measured | Noted | None) -> Text:
    if value is None:
        return Text("–", "dim")
    failed = isinstance(value, Noted)
    mark = f" [{value.note}]" if value.note else ""
    return Text(value.text + mark, "red" if failed else "bold" if value.best else "")


def _published(value: float | None) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def _interval(uncertainty: pd.DataFrame, dataset: str, method: str) -> str:
    """The interval of a cell; "" where there is none, as for the average."""
    rows = uncertainty[(uncertainty["dataset"] == dataset) & (uncertainty["method"] == method)]
    if rows.empty or pd.isna(rows.iloc[0]["low"]):
        return ""
    return interval_text(rows.iloc[0]["low"], rows.iloc[0]["high"])
