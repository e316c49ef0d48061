"""The tables for readers, cut from the long ones: methods in rows, data sets in columns, words that say what is shown.

Design choices
- The published number stands in a column of its own, and the caption says who measured it on what. Where a config uses
  generated videos or another backbone, the caption says that the two are no comparison.
- Bold is the best complete cell of a column; cells that are equal at the digits shown share it.
- The average needs every data set: a method with an incomplete cell has none. Its spread is over the seeds' averages.
- Nothing here depends on time, host or memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from ssp.config import Config
from ssp.records import published
from ssp.tables import stats
from ssp.tables.long import AVERAGE, LongTables
from ssp.tables.markup import DECIMALS, Measured, Noted

LEVEL = f"{100 * stats.LEVEL:.0f} %"
PAPER = "paper"  # name of the columns of published numbers


@dataclass(frozen=True)
class Layout:
    """A table for readers: cells, the words above it and the notes below."""

    table: pd.DataFrame
    caption: str
    notes: list[str]


def lay_out(config: Config, tables: LongTables) -> dict[str, Layout]:
    """The tables for readers by file name: main, parameters, uncertainty, differences."""
    return {
        "main": _main(config, tables),
        "parameters": _parameters(config, tables),
        "uncertainty": _uncertainty(config, tables),
        "differences": _differences(config, tables),
    }


def context(config: Config) -> str:
    """What the published numbers are, and how far they may be compared with this config's."""
    words = f"Columns headed {PAPER}: published by the SSP paper, measured on the real data sets with VideoMamba-M."
    other = []
    if any(dataset.generate for dataset in config.datasets.values()):
        other.append("generated videos")
    if config.backbone.architecture != published.BACKBONE:
        other.append("another backbone")
    if other:
        words += f" This run uses {' and '.join(other)}: the published numbers are context, not a comparison."
    return words


def titled(config: Config) -> str:
    """The config's title as a sentence."""
    return config.title.rstrip(". ") + "."


def _titles(config: Config) -> list[str]:
    """The rows of the tables, as tables print them."""
    return [config.rows[name].title for name in config.methods]


def _with_titles(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """A long table with titles in place of names."""
    return table.assign(method=[config.rows[name].title for name in table["method"]])


def _budget(config: Config) -> str:
    n, trials = len(config.seeds), config.sweep.trials
    return (
        f"{n} seed{'s' if n > 1 else ''}; hyper-parameters chosen on validation with {trials} "
        f"trial{'s' if trials > 1 else ''} for each data set and method, the same for all."
    )


def _main(config: Config, tables: LongTables) -> Layout:
    failures = _Failures(config, tables.seeds)
    main = tables.main.set_index(["dataset", "method"])
    groups: dict[str, tuple[list, list]] = {}
    for dataset in config.datasets:
        rows = [main.loc[(dataset, method)] for method in config.methods]
        measured = [_accuracy(row, failures.mark(dataset, row.name[1])) for row in rows]
        groups[dataset] = (_bold(measured), [_number(row["published"]) for row in rows])
    if len(config.datasets) > 1:
        averages = _averages(config, tables.seeds)
        published = [_published_average(main.xs(method, level="method")["published"]) for method in config.methods]
        groups["average"] = (_bold([averages[method] for method in config.methods]), published)
    columns = {("", "method"): _titles(config)}
    for name, (measured, published) in groups.items():
        columns |= {(name, "top-1"): measured, (name, PAPER): published}
    caption = (
        f"{titled(config)} Top-1 accuracy in percent, mean ± standard deviation over seeds. {_budget(config)} "
        f"Bold: best of a column. {context(config)}"
    )
    return Layout(two_level_table(columns), caption, failures.notes)


def _parameters(config: Config, tables: LongTables) -> Layout:
    names = {"dataset": "data set", "published_m": f"{PAPER} (million)"}
    table = _with_titles(config, tables.parameters).astype({"published_m": float}).rename(columns=names)
    caption = (
        f"{titled(config)} Parameters: all of the model, those that train, new ones without head and final norm "
        f"(extra), and the head. {context(config)}"
    )
    return Layout(table, caption, [])


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
            sizes.append(f"{dataset} {known[0]['videos']:,} videos in {known[0]['groups']:,} groups")
        single |= any(row["interval"] == "seeds and videos" for row in known)
    caption = (
        f"{titled(config)} Top-1 accuracy in percent: its standard deviation over seeds, and the {LEVEL} interval of "
        f"its mean for other seeds and other test groups, both counted together{_few(config)}. Data sets are fixed, "
        f"and so are the chosen hyper-parameters. Test sets: {', '.join(sizes) or 'none tested'}."
    )
    if single:
        caption += " Where test groups do not differ, single videos stand for groups."
    return Layout(two_level_table(columns), caption, [])


def _few(config: Config) -> str:
    return "; one seed makes no interval" if len(config.seeds) == 1 else ""


def _differences(config: Config, tables: LongTables) -> Layout:
    reference = config.rows[config.reference_row].title
    table = _with_titles(config, tables.differences)
    columns = {
        "data set": table["dataset"],
        f"{reference} minus": table["method"],
        "points": table["difference"].map(signed),
        LEVEL: [signed_interval(*ends) for ends in zip(table["low"], table["high"], strict=True)],
        "p": table["p"].map(_p_value),
        "p (Holm)": table["p_holm"].map(_p_value),
        "seeds": table["n_seeds"],
    }
    caption = (
        f"{titled(config)} Top-1 accuracy of {reference} minus that of each other method, in percentage points, paired "
        f"by video and seed, with {LEVEL} interval and p-value for other seeds and other test groups (Holm: adjusted "
        f"for the comparisons within a data set)."
    )
    return Layout(pd.DataFrame(columns, dtype=object), caption, [])


class _Failures:
    """Notes on failed seeds, numbered in the order in which cells are shown."""

    def __init__(self, config: Config, seeds: pd.DataFrame) -> None:
        self.notes: list[str] = []
        self._config = config
        self._seeds = seeds

    def mark(self, dataset: str, method: str) -> str:
        """The mark of a cell; "" where no seed failed."""
        cell = self._seeds[(self._seeds["dataset"] == dataset) & (self._seeds["method"] == method)]
        failed = cell[cell["status"] == "failed"]
        if failed.empty:
            return ""
        others = "" if len(failed) == len(cell) else " (the mean is over the other seeds)"
        by_reason = failed.groupby("reason", sort=False)["seed"].agg(lambda seeds: ", ".join(map(str, seeds)))
        reasons = "; ".join(f"failed with seed {seeds}: {reason}" for reason, seeds in by_reason.items())
        self.notes.append(f"{self._config.rows[method].title} on {dataset} {reasons}{others}")
        return str(len(self.notes))


def _accuracy(row: pd.Series, mark: str) -> Measured | Noted:
    if row["status"] == "failed":
        return Noted("failed", mark)
    return Measured(row["mean"], row["sd"], note=mark)


def _bold(cells: list[Measured | Noted | None]) -> list[Measured | Noted | None]:
    """Mark the best complete cells, ties at the shown digits included."""
    complete = [cell for cell in cells if isinstance(cell, Measured) and not cell.note]
    if len(complete) < 2:
        return cells
    best = max(round(cell.mean, DECIMALS) for cell in complete)
    return [replace(c, best=True) if c in complete and round(c.mean, DECIMALS) == best else c for c in cells]


def _averages(config: Config, seeds: pd.DataFrame) -> dict[str, Measured | None]:
    """Mean over data sets by method: averaged within each seed first, then mean and spread over seeds."""
    averages: dict[str, Measured | None] = {}
    for method in config.methods:
        rows = seeds[seeds["method"] == method]
        if (rows["status"] != "ok").any():
            averages[method] = None
            continue
        spread = stats.spread(rows.groupby("seed", sort=False)["top1"].mean().tolist())
        averages[method] = Measured(spread.mean, spread.sd)
    return averages


def _published_average(published: pd.Series) -> float | None:
    return None if published.isna().any() else float(published.astype(float).mean())


def _number(value: float | None) -> float | None:
    return None if pd.isna(value) else float(value)


def interval_text(low: float, high: float) -> str | None:
    """Both ends of an interval; None where there is none."""
    return None if pd.isna(low) else f"{low:.{DECIMALS}f}–{high:.{DECIMALS}f}"


def signed(value: float) -> str | None:
    """A difference with its sign, a true minus, and no sign where it rounds to zero."""
    if pd.isna(value):
        return None
    text = f"{value:+.{DECIMALS}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def signed_interval(low: float, high: float) -> str | None:
    """Both ends of an interval of differences; None where there is none."""
    return None if pd.isna(low) else f"{signed(low)} to {signed(high)}"


def _p_value(p: float) -> str | None:
    return None if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def two_level_table(columns: dict[tuple[str, str], list]) -> pd.DataFrame:
    """Columns of any cells under two-level names."""
    table = pd.DataFrame({i: pd.Series(cells, dtype=object) for i, cells in enumerate(columns.values())})
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table
