"""What was found, in sentences: made from the written tables, so that no sentence says more than these show.

Design choices
- A row is said to be above another where the adjusted p-value is below the level, and only there. Otherwise the
  sentence says that the two cannot be told apart, or that there are too few seeds; a higher mean is called that.
- What was measured is said, and no cause: nothing here explains why a row is better.
- What limits the numbers stands among them: generated videos, failed runs, epochs that test has chosen.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from ssp.config import Config, data_title
from ssp.records.published import BACKBONE
from ssp.report.results import Results
from ssp.tables import stats
from ssp.tables.claims import AVERAGE
from ssp.tables.numbers import LEVEL, p_text, signed, signed_interval
from ssp.tables.verdict import CANNOT_SAY, NOT_REPRODUCED, REPRODUCED
from ssp.tables.words import epoch_words, not_enough, seeds_words

NAMED = 6  # rows that a sentence names one by one; of more it says how many


def findings(results: Results) -> list[str]:
    """Sentences in the order in which a reader asks: which row, against the reference, at what cost, how sure."""
    found = [_best(results), *_against(results), _cost(results), _verdicts(results)]
    return [sentence for sentence in found if sentence]


def limits(results: Results) -> list[str]:
    """What the numbers do not say."""
    config, records = results.config, [*results.records, *results.points]
    generated = [name for name in config.columns if config.archived[name].generate]
    said = []
    if len(generated) == len(config.columns):
        said.append("All videos are generated: nothing here is a result on published data.")
    elif generated:
        said.append(f"Generated videos, not published data: {_listed([data_title(config, n) for n in generated])}.")
    if results.comparable and config.backbone.architecture != BACKBONE:
        said.append("The backbone is not the published one.")
    if failed := sum(record.status == "failed" for record in records):
        said.append(f"{failed} of {len(records)} runs failed; rows with failed runs have no place and no average.")
    if words := epoch_words(config):
        said.append(words.removeprefix("; ").capitalize() + ".")
    if len(config.seeds) == 1:
        said.append("One seed: there is no spread, no interval and no p-value.")
    return said


def _where(results: Results) -> str:
    config, column = results.config, results.main_column
    if column != AVERAGE:
        return f"On {data_title(config, column)}"
    kind = "generated " if all(config.archived[name].generate for name in config.columns) else ""
    return f"On average over {len(config.columns)} {kind}data sets"


def _best(results: Results) -> str:
    """Which row has the highest mean, and which the tests leave beside it."""
    config, column = results.config, results.main_column
    ranks = results.tables.ranks[results.tables.ranks["dataset"] == column].sort_values("rank", kind="stable")
    if ranks.empty:
        return f"{_where(results)} no row has all of its runs, so none is ranked."
    first = ranks["method"].iloc[0]
    highest = f"{_title(config, first)} has the highest top-1 accuracy, {_accuracy(results, first)}"
    if len(ranks) == 1:
        reached = f"{_title(config, first)} reaches {_accuracy(results, first)} top-1"
        return f"{_where(results)} {reached}; there is no other row to compare it with."
    if ranks["rank_low"].isna().all():
        return f"{_where(results)} {highest}; {not_enough(config)} to tell rows apart."
    below = _below(results, first)
    beside = [row for row in ranks["method"] if row != first and row not in below]
    if not beside:
        return f"{_where(results)} {highest}, above every other row (adjusted p < {stats.ALPHA})."
    others = _rows(config, beside, "other rows")
    if len(beside) == len(ranks) - 1:
        return (
            f"{_where(results)} no row is shown to be the best: {highest}, and {others} cannot be told apart from it."
        )
    rest = _rows(config, [row for row in ranks["method"] if row in below], "rows")
    return f"{_where(results)} {highest}. {others} cannot be told apart from it; {rest} {_be(below)} below it."


def _below(results: Results, first: str) -> set[str]:
    """The rows that one is above, by the adjusted p-value over all pairs."""
    pairs = results.tables.pairs
    pairs = pairs[(pairs["dataset"] == results.main_column) & (pairs["p_holm"] < stats.ALPHA)]
    over = set(pairs.loc[(pairs["first"] == first) & (pairs["difference"] > 0), "second"])
    return over | set(pairs.loc[(pairs["second"] == first) & (pairs["difference"] < 0), "first"])


def _be(rows: Collection[str]) -> str:
    return "is" if len(rows) == 1 else "are"


def _against(results: Results) -> list[str]:
    """The reference beside every other row: above, below, not told apart."""
    config = results.config
    table = results.tables.differences
    table = table[(table["dataset"] == results.main_column) & table["difference"].notna()]
    if table.empty:
        return []
    name = _title(config, config.reference_row)
    tested, told = table[table["p_holm"].notna()], []
    if tested.empty:
        told.append(f"{name} beside {_differences(config, table)}: {not_enough(config)} for p-values.")
    sure = tested["p_holm"] < stats.ALPHA
    for word, rows in (
        ("above", tested[sure & (tested["difference"] > 0)]),
        ("below", tested[sure & (tested["difference"] < 0)]),
    ):
        if len(rows):
            told.append(f"{name} is {word} {_differences(config, rows)}.")
    if len(open_ := tested[~sure]):
        told.append(f"{name} and {_differences(config, open_)} cannot be told apart.")
    return told


def _differences(config: Config, rows: pd.DataFrame) -> str:
    """Rows with the difference to the reference, its interval and the adjusted p-value."""
    if len(rows) > NAMED:
        ends = signed(rows["difference"].min()), signed(rows["difference"].max())
        return f"{len(rows)} of {len(config.methods) - 1} other rows (differences from {ends[0]} to {ends[1]} points)"
    told = []
    for _, row in rows.iterrows():
        sure = [signed_interval(row["low"], row["high"])]
        sure += [f"adjusted p {p_text(row['p_holm'], None)}"] if not pd.isna(row["p_holm"]) else []
        inside = "; ".join(filter(None, sure))
        told.append(
            f"{_title(config, row['method'])} ({signed(row['difference'])} points{'; ' + inside if inside else ''})"
        )
    return _listed(told)


def _cost(results: Results) -> str:
    """What the reference trains and what a step of it takes, beside the row with the highest mean."""
    config = results.config
    ranks = results.tables.ranks[results.tables.ranks["dataset"] == results.main_column]
    first = [*ranks.sort_values("rank", kind="stable")["method"][:1]]
    costs = results.tables.costs.set_index("method")
    told = []
    for row in dict.fromkeys([config.reference_row, *first]):
        words = f"{_title(config, row)} trains {costs.loc[row, 'parameters']:,} parameters besides head and final norm"
        words += f" ({100 * costs.loc[row, 'share']:.1f} % of the backbone's)"
        step = costs.loc[row, "step"]
        told.append(
            words if pd.isna(step) else f"{words}, and a step of it takes {step:.1f} times that of a linear probe"
        )
    return "; ".join(told) + "." if told else ""


def _verdicts(results: Results) -> str:
    """How many published numbers are met."""
    if not results.comparable:
        return ""
    counts = results.tables.verdict["verdict"].value_counts()
    words = {REPRODUCED: "reproduced", NOT_REPRODUCED: "not reproduced", CANNOT_SAY: "open"}
    told = [f"{counts[verdict]} {word}" for verdict, word in words.items() if counts.get(verdict)]
    judged = sum(counts.get(verdict, 0) for verdict in words)
    return f"Of {judged} published numbers that this measures anew, {_listed(told)}." if judged else ""


def _accuracy(results: Results, row: str) -> str:
    table = results.tables.uncertainty
    found = table[(table["dataset"] == results.main_column) & (table["method"] == row)].iloc[0]
    interval = "" if pd.isna(found["low"]) else f" ({LEVEL} interval {found['low']:.1f} to {found['high']:.1f})"
    return f"{found['mean']:.1f}\u00a0%{interval}"


def _rows(config: Config, names: list[str], many: str) -> str:
    if len(names) > NAMED:
        return f"{len(names)} {many}"
    return _listed([_title(config, name) for name in names])


def _title(config: Config, row: str) -> str:
    return config.rows[row].title


def _listed(words: list[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def how(results: Results) -> str:
    """What the intervals and p-values of the sentences are."""
    config = results.config
    if len(config.seeds) == 1:
        return ""
    words = f"{seeds_words(config).capitalize()}. Intervals: {LEVEL}, for other {config.units} and other test groups"
    if results.tables.differences["p_holm"].notna().any():
        words += (
            ", not adjusted. p-values are adjusted after Holm: those with the reference over all comparisons with it, "
            "what is said of the best over all pairs"
        )
    return f"{words}."
