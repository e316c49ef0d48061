"""The tables for readers, cut from the long ones: methods in rows, data sets in columns, words that say what is shown.

Design choices
- The published number stands in a column of its own, and the caption says who measured it on what. Where a config uses
  generated videos or another backbone, the caption says that the two are no comparison.
- Bold are the complete cells of a column that may be its best: no other is better by a p-value adjusted over all pairs
  of the table. Where there are too few seeds for p-values nothing is bold, and the caption says so.
- The average needs every data set: a method with an incomplete cell has none. Its spread is over the seeds' averages.
- Nothing here depends on time, host or memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd

from ssp.config import Config, data_title
from ssp.tables import stats, verdict
from ssp.tables.claims import AVERAGE
from ssp.tables.costs import cost_cells
from ssp.tables.long import LongTables
from ssp.tables.markup import Measured, Noted, Notes, Published, dataframe_to_latex, dataframe_to_markdown
from ssp.tables.numbers import LEVEL, WIDER, interval_text, p_text, signed, signed_interval
from ssp.tables.words import (
    PAPER,
    bold_words,
    budget_words,
    context,
    drawn_words,
    failed_words,
    family_words,
    has_published,
    heads,
    not_enough,
    read_before_words,
    sign_words,
    titled,
)

RANK = "rank"


@dataclass(frozen=True)
class Layout:
    """A table for readers: cells, the words above it and the notes below.

    Groups of columns bear the keys of the data sets, for programs; `heads` says what files and terminals call these.
    """

    table: pd.DataFrame
    caption: str
    notes: list[str]
    heads: dict[str, str] = field(default_factory=dict)

    def texts(self, label: str) -> dict[str, str]:
        """The whole table by file suffix: md, and tex under a label."""
        table = self.table.rename(columns=self.heads, level=0 if self.table.columns.nlevels > 1 else None)
        return {
            "md": f"{self.caption}\n\n{dataframe_to_markdown(table, self.notes)}",
            "tex": dataframe_to_latex(table, self.caption, label, self.notes),
        }


def lay_out(config: Config, tables: LongTables) -> dict[str, Layout]:
    """The tables for readers by file name: main, parameters, costs, uncertainty, differences, verdict."""
    return {
        "main": _main(config, tables),
        "parameters": _parameters(config, tables),
        "costs": _costs(config, tables),
        "uncertainty": _uncertainty(config, tables),
        "differences": _differences(config, tables),
        "verdict": _verdict(config, tables),
    }


def _titles(config: Config) -> list[str]:
    """The rows of the tables, as tables print them."""
    return [config.rows[name].title for name in config.methods]


def _with_titles(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """A long table with titles in place of names."""
    return table.assign(
        method=[config.rows[name].title for name in table["method"]],
        dataset=[data_title(config, name) for name in table["dataset"]],
    )


def _main(config: Config, tables: LongTables) -> Layout:
    notes = _CellNotes(config, tables.seeds)
    main = tables.main.set_index(["dataset", "method"])
    groups: dict[str, list] = {}
    for dataset in config.columns:
        rows = [main.loc[(dataset, method)] for method in config.methods]
        groups[dataset] = [_accuracy(row, notes.mark(dataset, row.name[1])) for row in rows]
    if len(config.columns) > 1:
        averages = tables.uncertainty[tables.uncertainty["dataset"] == AVERAGE].set_index("method")
        groups[AVERAGE] = [_average(averages.loc[method]) for method in config.methods]
    ranks, verdicts = (table.set_index(["dataset", "method"]) for table in (tables.ranks, tables.verdict))
    columns = {("", "method"): _titles(config)}
    for name, measured in groups.items():
        own = [ranks.loc[(name, row)] if (name, row) in ranks.index else None for row in config.methods]
        bold = [
            replace(cell, best=True) if _may_be_best(rank) else cell for cell, rank in zip(measured, own, strict=True)
        ]
        columns[(name, "top-1")] = bold
        printed = [_published(verdicts, name, row) for row in config.methods]
        if any(printed):
            columns[(name, PAPER)] = printed
    columns[(name, RANK)] = [_rank(rank) for rank in own]  # of the last: the average, if there is one
    words = [
        f"{titled(config)} Top-1 accuracy in percent, mean ± standard deviation over {config.units}.",
        budget_words(config),
        bold_words(config, tables),
        context(config),
        sign_words(tables),
    ]
    caption = " ".join(filter(None, words))
    return Layout(two_level_table(columns), caption, notes.notes, heads(config))


def _parameters(config: Config, tables: LongTables) -> Layout:
    names = {"dataset": "data set", "published_m": f"{PAPER} (million)"}
    table = _with_titles(config, tables.parameters).astype({"published_m": float}).rename(columns=names)
    if not has_published(config):
        table = table.drop(columns=names["published_m"])
    caption = (
        f"{titled(config)} Parameters: all of the model, those that train, new ones without head and final norm "
        f"(extra), and the head. {context(config)}"
    )
    return Layout(table, caption.strip(), [])


def _costs(config: Config, tables: LongTables) -> Layout:
    columns, how, notes = cost_cells(config, tables.costs)
    return Layout(two_level_table(columns), f"{titled(config)} {how}", notes)


def _uncertainty(config: Config, tables: LongTables) -> Layout:
    table = tables.uncertainty.set_index(["dataset", "method"])
    columns: dict[tuple[str, str], list] = {("", "method"): _titles(config)}
    sizes, single = [], False
    for dataset in dict.fromkeys(tables.uncertainty["dataset"]):
        rows = [table.loc[(dataset, method)] for method in config.methods]
        columns[(dataset, "sd")] = [_number(row["sd"]) for row in rows]
        columns[(dataset, f"{LEVEL}")] = [interval_text(row["low"], row["high"]) for row in rows]
        known = [row for row in rows if not pd.isna(row["videos"])]
        if known and dataset != AVERAGE:
            sizes.append(
                f"{data_title(config, dataset)} {known[0]['videos']:,} videos in {known[0]['groups']:,} groups"
            )
        single |= any(row["interval"].endswith("and videos") for row in known if not pd.isna(row["interval"]))
    units = config.units
    caption = (
        f"{titled(config)} Top-1 accuracy in percent: its standard deviation over {units}, and the {LEVEL} interval of "
        f"its mean for other {units} and other test groups. {drawn_words(config)} "
        f"Test sets: {', '.join(sizes) or 'none tested'}."
    )
    if single:
        caption += " Where test groups do not differ, single videos stand for groups."
    if len(config.seeds) == 1:
        caption += " One seed makes no interval."
    return Layout(two_level_table(columns), caption, [], heads(config))


def _differences(config: Config, tables: LongTables) -> Layout:
    reference = config.rows[config.reference_row].title
    table = _with_titles(config, tables.differences)
    columns = {
        "data set": table["dataset"],
        f"{reference} minus": table["method"],
        "points": table["difference"].map(signed),
        LEVEL: [signed_interval(*ends) for ends in zip(table["low"], table["high"], strict=True)],
        "p": [p_text(row["p"], not_enough(config) if row["n_seeds"] else None) for _, row in table.iterrows()],
        "p (Holm)": [p_text(row["p_holm"], None) for _, row in table.iterrows()],
        config.units: table["n_seeds"],
    }
    caption = (
        f"{titled(config)} Top-1 accuracy of {reference} minus that of each other method, in percentage points, paired "
        f"by video and seed, with {LEVEL} interval and p-value. {family_words(config, tables)}"
    )
    return Layout(pd.DataFrame(columns, dtype=object), caption, [])


def _verdict(config: Config, tables: LongTables) -> Layout:
    table, notes = _with_titles(config, tables.verdict), Notes()
    columns = {
        "data set": table["dataset"],
        "method": table["method"],
        PAPER: [Published(value) for value in table["published"]],
        "ours": [_number(value) for value in table["mean"]],
        "points": table["difference"].map(signed),
        WIDER: [signed_interval(*ends) for ends in zip(table["low"], table["high"], strict=True)],
        "verdict": [
            row["verdict"] if pd.isna(row["reason"]) else Noted(row["verdict"], notes.mark(row["reason"]))
            for _, row in table.iterrows()
        ],
    }
    caption = (
        f"{titled(config)} Published top-1 accuracy in percent, ours minus it in percentage points, and its {WIDER} "
        f"interval, in which the published number counts as one more run with our spread over {config.units}, on the "
        f"same test set. Reproduced: the interval lies within {verdict.MARGIN:g} points; not reproduced: it lies "
        f"outside; cannot say: neither. Each verdict by itself is wrong in at most {stats.ALPHA:.0%} of cases. "
        f"{context(config)}"
    )
    return Layout(pd.DataFrame(columns, dtype=object), caption, notes)


class _CellNotes:
    """Notes on failed seeds and on earlier readings of test, numbered in the order in which cells are shown."""

    def __init__(self, config: Config, seeds: pd.DataFrame) -> None:
        self.notes = Notes()
        self._config = config
        self._seeds = seeds

    def mark(self, dataset: str, method: str) -> str:
        """The mark of a cell; "" where there is nothing to say."""
        own = self._seeds["dataset"].isin(self._config.columns[dataset])
        cell = self._seeds[own & (self._seeds["method"] == method)]
        failed, read_before = failed_words(cell), read_before_words(int(cell["read_before"].sum()))
        if failed:
            words = "; ".join(filter(None, (failed, read_before)))
            return self.notes.mark(f"{self._config.rows[method].title} on {data_title(self._config, dataset)} {words}")
        return self.notes.mark(read_before) if read_before else ""


def _accuracy(row: pd.Series, mark: str) -> Measured | Noted:
    if row["status"] in ("failed", "missing"):
        return Noted("failed" if row["status"] == "failed" else "–", mark)
    return Measured(row["mean"], row["sd"], note=mark)


def _average(row: pd.Series) -> Measured | None:
    return None if pd.isna(row["mean"]) else Measured(row["mean"], row["sd"])


def _may_be_best(rank: pd.Series | None) -> bool:
    return rank is not None and not pd.isna(rank["rank_low"]) and rank["rank_low"] == 1


def _rank(rank: pd.Series | None) -> str | None:
    """A place, and in brackets the places that it may be."""
    if rank is None:
        return None
    low, high = rank["rank_low"], rank["rank_high"]
    return str(rank["rank"]) if pd.isna(low) else f"{rank['rank']} ({low}–{high})" if low < high else f"{rank['rank']}"


def _published(verdicts: pd.DataFrame, column: str, row: str) -> Published | None:
    if (column, row) not in verdicts.index:
        return None
    found = verdicts.loc[(column, row)]
    return Published(found["published"], verdict.SIGNS[found["verdict"]])


def _number(value: float | None) -> float | None:
    return None if pd.isna(value) else float(value)


def two_level_table(columns: dict[tuple[str, str], list]) -> pd.DataFrame:
    """Columns of any cells under two-level names."""
    table = pd.DataFrame({i: pd.Series(cells, dtype=object) for i, cells in enumerate(columns.values())})
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table
