"""Sentences about the tables: what was measured, how often, and what the numbers can show.

Captions, notes, the terminal and the report take them from here, so that all say the same.
"""

from __future__ import annotations

import pandas as pd

from ssp.config import Config, data_title, search_words
from ssp.records import published
from ssp.records.shared import joined_words
from ssp.tables import stats, verdict
from ssp.tables.cells import NOT_YET
from ssp.tables.long import LongTables

PAPER = "paper"  # name of the columns of published numbers


def titled(config: Config) -> str:
    """The config's title as a sentence, and whose results these are where several were joined."""
    return " ".join(filter(None, [config.title.rstrip(". ") + ".", joined_words(config)]))


def heads(config: Config) -> dict[str, str]:
    """What the data sets are called over groups of columns."""
    return {name: data_title(config, name) for name in config.columns}


def context(config: Config) -> str:
    """What the published numbers are, and how far they may be compared with this config's; empty without any."""
    if not has_published(config):
        return ""
    words = f"Columns headed {PAPER}: published by the SSP paper, measured on the real data sets with VideoMamba-M."
    other = []
    if any(dataset.generate for dataset in config.datasets.values()):
        other.append("generated videos")
    if config.backbone.architecture != published.BACKBONE:
        other.append("another backbone")
    if other:
        words += f" This run uses {' and '.join(other)}: the published numbers are context, not a comparison."
    return words


def has_published(config: Config) -> bool:
    """Whether the paper has numbers for any of these data sets, or for those that they stand in for."""
    return any(dataset.source in published.TEST_VIDEOS for dataset in config.archived.values())


def budget_words(config: Config) -> str:
    """How hyper-parameters were chosen, and on what final models are trained."""
    words = search_words(config)
    chosen = (
        f"hyper-parameters chosen on validation with {words} for each data set and method, the same for all"
        if words
        else "hyper-parameters as the config gives them, without a search"
    )
    on = "training and validation videos" if config.refit else "training videos without those of validation"
    return f"{seeds_words(config)}; {chosen}; final models trained on {on}{epoch_words(config)}."


def epoch_words(config: Config) -> str:
    """That test chose the epochs, behind what is said of the choice of hyper-parameters; empty where it did not."""
    test_chose = config.quirk("best_epoch") == "published"
    return "; the epoch of each final model chosen on test, as published" if test_chose else ""


def measured_words(config: Config, seeds: list[int] | None = None) -> str:
    """What stands in a cell: a mean with its spread; one seed has none."""
    many = len(config.seeds if seeds is None else seeds) > 1
    return f"{'mean ± standard deviation over' if many else 'of'} {seeds_words(config, seeds)}"


def seeds_words(config: Config, seeds: list[int] | None = None) -> str:
    """How many seeds (all, if not said), and of how many studies where these are what counts."""
    n, units = len(config.seeds if seeds is None else seeds), config.n_units(seeds)
    words = f"{n} seed{'s' if n > 1 else ''}"
    return words if config.units == "seeds" else f"{words} of {units} stud{'ies' if units > 1 else 'y'}"


def not_enough(config: Config) -> str:
    """Why there is no p-value."""
    return f"not enough {config.units}"


def drawn_words(config: Config) -> str:
    """What another run of everything would draw anew, and what is fixed."""
    if config.units == "seeds":
        return (
            "Seeds and test groups are drawn anew, together; data sets, training videos and chosen hyper-parameters "
            "are fixed."
        )
    return (
        "Studies (each a choice of hyper-parameters with the mean of the seeds that train from it) and test groups are "
        "drawn anew, together; data sets and training videos are fixed."
    )


def bold_words(config: Config, tables: LongTables) -> str:
    """What bold and ranks mean in the main table."""
    pairs = tables.pairs
    if pairs.empty:
        return ""
    family = int(pairs["p"].notna().sum())
    untold = [data_title(config, name) for name in pairs.loc[pairs["p"].isna(), "dataset"].unique()]
    words = (
        f"Bold: may be the best of its column, as no other row is better (p < {stats.ALPHA}, adjusted after Holm over "
        f"all {family} pairs of rows in this table). Rank: in brackets the places that this test leaves open."
        if family
        else ""
    )
    if untold:
        words += f" {not_enough(config).capitalize()} to tell rows apart on {', '.join(untold)}: nothing is bold there."
    return words.strip()


def family_words(config: Config, tables: LongTables) -> str:
    """What the comparisons with the reference rest on, and what they cannot show at all."""
    table = tables.differences
    tested = table[table["p"].notna()]
    words = (
        f"{drawn_words(config)} Holm: adjusted over all {len(tested)} p-values of this table. Intervals are not "
        "adjusted."
    )
    untested = table[table["p"].isna() & (table["n_seeds"] > 0)]["dataset"].unique()
    untested = [data_title(config, name) for name in untested]
    if untested:
        words += (
            f" {not_enough(config).capitalize()} for a p-value on {', '.join(untested)}: one data set needs "
            f"{stats.MIN_SEEDS}."
        )
    hopeless = tested[tested["p_holm_smallest"] >= stats.ALPHA].drop_duplicates("dataset")
    for _, row in hopeless.iterrows():
        words += (
            f" {data_title(config, row['dataset'])}: with {row['groups']} test groups p cannot be below "
            f"{2.0 ** (1 - row['groups']):.2g}, "
            f"nor p (Holm) below {row['p_holm_smallest']:.2g}; nothing there can be significant."
        )
    return words


def sign_words(tables: LongTables) -> str:
    """What the signs beside published numbers mean; empty where there are none."""
    if not set(tables.verdict["verdict"]) - {verdict.NONE}:
        return ""
    signs = ", ".join(f"{sign} {name}" for name, sign in verdict.SIGNS.items() if sign)
    return f"Beside a published number: {signs}, within {verdict.MARGIN:g} points (equivalence test: verdict table)."


def failed_words(cell: pd.DataFrame) -> str:
    """Which seeds of a cell failed, and why."""
    failed = cell[cell["status"] == "failed"]
    if failed.empty:
        return ""
    others = "" if set(failed["seed"]) == set(cell["seed"]) else " (the mean is over the other seeds)"
    by_reason = failed.groupby("reason", sort=False)["seed"].agg(lambda seeds: ", ".join(map(str, seeds.unique())))
    reasons = "; ".join(
        f"has {reason} with seed {seeds}" if reason == NOT_YET else f"failed with seed {seeds}: {reason}"
        for reason, seeds in by_reason.items()
    )
    return f"{reasons}{others}"


def read_before_words(times: int) -> str:
    """What is to be said of a choice that was made after readings of test from other ones."""
    return f"test had been read {times} time{'s' if times > 1 else ''} before this choice" if times else ""
