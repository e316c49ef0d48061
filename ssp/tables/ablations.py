"""The table of an ablation: each of its points beside the base row, paired by video and seed.

Design choices
- Long as CSV, with a column for each option that is varied; for readers as Markdown and LaTeX, points in rows.
- The base row stands first, unless it is one of the points: then it is marked where it stands.
- Its comparisons are a family of their own: p-values are adjusted (Holm) over all points and data sets of the ablation.
- Cells are read and checked as those of the main table are; only data sets and seeds that the ablation names count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config, Point, data_title, search_words
from ssp.files import write_text
from ssp.paths import Paths
from ssp.tables import stats
from ssp.tables.cells import Reader, TableCell, read_cells
from ssp.tables.claims import tallies
from ssp.tables.layout import Layout, two_level_table
from ssp.tables.long import dtypes, made_with, read_table, rounded, to_csv
from ssp.tables.markup import Measured, Noted, Notes
from ssp.tables.numbers import LEVEL, signed, signed_interval
from ssp.tables.words import epoch_words, heads, measured_words, not_enough, read_before_words, titled

COLUMNS = (
    "point",
    "row",
    "dataset",
    "mean",
    "sd",
    "n_seeds",
    "low",
    "high",
    "extra",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "status",
    "read_before",
)
BASE = "base"


def write_ablation(config: Config, name: str) -> list[Path]:
    """Write `results/<config>/tables/ablations/<name>.{csv, md, tex}`, and what it was made with as JSON.

    Raises:
        RecordError: a record is missing, stale or broken.
    """
    texts = ablation_texts(config, name)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def ablation_texts(config: Config, name: str, read: Reader | None = None) -> dict[Path, str]:
    """What the files of an ablation's table are to hold; `read` may remember what it has read.

    Raises:
        RecordError: a record is missing, stale or broken.
    """
    table = ablation_table(config, name, read)
    layout = lay_out_ablation(config, name, table)
    texts = {"csv": to_csv(table), **layout.texts(f"tab:{config.name}-ablation-{name}")}
    paths = Paths.of(config)
    found = {path: texts[path.suffix.removeprefix(".")] for path in paths.ablation_tables(name)}
    return found | {paths.ablation_config(name): made_with(config.ablation_slice(name))}


def ablation_table(config: Config, name: str, read: Reader | None = None) -> pd.DataFrame:
    """One row per point and data set, base row first; columns `COLUMNS` and, before them, the varied options.

    Accuracies and differences (point minus base) in percent and percentage points.

    Raises:
        RecordError: a record is missing, stale or broken.
    """
    datasets, (_, rows, seeds) = config.ablation_columns(name), config.ablation_runs(name)
    cells = {(cell.dataset, cell.method): cell for cell in read_cells(config, datasets, rows, seeds, read)}
    base = config.ablations[name].of
    counted = tallies([*cells.values()])
    found, compared = [], []
    for point in shown_points(config, name):
        for dataset in datasets:
            row = {**point.values, "point": point.title, "row": point.row, "dataset": dataset}
            found.append(row | _measured(cells[dataset, point.row], counted.get((dataset, point.row))))
            own, other = (counted.get((dataset, which)) for which in (point.row, base))
            if point.row != base and own and other and set(own.hits) & set(other.hits):
                compared.append((found[-1], ([own], [other])))
    differences = stats.differences([pair for _, pair in compared])
    adjusted = stats.holm([difference.p for difference in differences])
    for (row, _), difference, p_holm in zip(compared, differences, adjusted, strict=True):
        row |= {"difference": difference.estimate, "p": difference.p, "p_holm": p_holm}
        row |= {"difference_low": difference.low, "difference_high": difference.high}
    table = pd.DataFrame(found, columns=[*_varied(config, name), *COLUMNS])
    return rounded(table.astype(dtypes(COLUMNS)))


def read_ablation(config: Config, name: str) -> pd.DataFrame:
    """The long table of an ablation as it was written.

    Raises:
        RecordError: it is missing or not as it was written.
    """
    path = Paths.of(config).ablation_tables(name)[0]
    again = f"write it again: {config.command(f'ablation {name}')}"
    return read_table(path, COLUMNS, again, before=_varied(config, name))


def _varied(config: Config, name: str) -> list[str]:
    """The options that differ between the points of an ablation."""
    return [*dict.fromkeys(option for point in config.points[name] for option in point.values)]


def shown_points(config: Config, name: str) -> list[Point]:
    """The points of an ablation, the base row among them."""
    base, points = config.ablations[name].of, config.points[name]
    if any(point.row == base for point in points):
        return points
    return [Point(config.rows[base].title, base, {}), *points]


def _measured(cell: TableCell, counted: stats.Tally | None) -> dict:
    row = {"extra": cell.parameters.extra if cell.parameters else None}
    row |= {"status": cell.status, "n_seeds": cell.n_seeds, "read_before": cell.read_before}
    if counted:
        spread, (interval,) = stats.spread(cell.accuracies), stats.intervals([[counted]])
        row |= {"mean": spread.mean, "sd": spread.sd, "low": interval.low, "high": interval.high}
    return row


def lay_out_ablation(config: Config, name: str, table: pd.DataFrame) -> Layout:
    """The table for readers."""
    ablation = config.ablations[name]
    datasets, (_, _, seeds) = config.ablation_columns(name), config.ablation_runs(name)
    points = shown_points(config, name)
    by_point = table.groupby(table.index // len(datasets))
    titles = [f"{point.title} ({BASE})" if point.row == ablation.of else point.title for point in points]
    extra = by_point["extra"].first()
    columns: dict[tuple[str, str], list] = {("", "setting"): titles, ("", "new parameters"): [*extra]}
    notes = Notes()
    for dataset in datasets:
        rows = table[table["dataset"] == dataset]
        columns[(dataset, "top-1")] = [
            _accuracy(config, row, title, notes) for (_, row), title in zip(rows.iterrows(), titles, strict=True)
        ]
        columns[(dataset, "difference")] = [
            None if pd.isna(value) else signed(value) + ("*" if p < stats.ALPHA else "")
            for value, p in zip(rows["difference"], rows["p_holm"], strict=True)
        ]
        ends = zip(rows["difference_low"], rows["difference_high"], strict=True)
        columns[(dataset, LEVEL)] = [signed_interval(*pair) for pair in ends]
    how = (
        "hyper-parameters are those that the base row's search chose"
        if ablation.hyperparameters == "inherit"
        else f"hyper-parameters searched for each setting with {search_words(config) or 'no trials'}"
    )
    how += epoch_words(config)
    caption = (
        f"{titled(config)} {ablation.title.rstrip('. ')}. Top-1 accuracy in percent, "
        f"{measured_words(config, seeds)}, and its difference to the base row in percentage points, "
        f"paired by video and seed, with {LEVEL} interval; {how}. {config.units.capitalize()} and test groups are "
        f"drawn anew, together. {_star_words(config, table)}"
    )
    return Layout(two_level_table(columns), caption, notes, heads(config))


def _star_words(config: Config, table: pd.DataFrame) -> str:
    """What an asterisk at a difference means."""
    tested = int(table["p"].notna().sum())
    words = f"*: p < {stats.ALPHA}, adjusted after Holm over the {tested} comparisons of the table." if tested else ""
    untested = table.loc[table["difference"].notna() & table["p"].isna(), "dataset"].unique()
    if len(untested):
        titles = ", ".join(data_title(config, name) for name in untested)
        words += f" {not_enough(config).capitalize()} for a p-value on {titles}."
    return words.strip()


def _accuracy(config: Config, row: dict[str, Any], title: str, notes: Notes) -> Measured | Noted:
    failed, words = row["status"] == "failed", []
    if row["status"] != "ok":
        words.append("all seeds failed" if failed else "some seeds failed; the mean is over the others")
    words += filter(None, [read_before_words(row["read_before"])])
    mark = notes.mark(f"{title} on {data_title(config, row['dataset'])}: {'; '.join(words)}") if words else ""
    return Noted("failed", mark) if failed else Measured(row["mean"], row["sd"], note=mark)
