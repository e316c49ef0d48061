"""What captions and the report say of a config: the budget of a search, and what its data sets are called."""

from __future__ import annotations

from ssp.config.benchmark import Config

TITLES = {"hmdb51": "HMDB51", "ucf101": "UCF101", "ssv2": "SSv2", "breakfast": "Breakfast"}
"""Published data sets, by their source, as people write them."""


def data_title(config: Config, name: str) -> str:
    """What people call a data set, or a column of the tables; generated videos are no more than like the published."""
    if name in config.columns:
        settings = config.archived[name]
        if name != settings.source or name not in TITLES:
            return name  # as the config's author calls it
        return TITLES[name] + ("-like" if settings.generate else "")
    if name in config.datasets:
        return f"{data_title(config, config.column_of(name))}, split {config.datasets[name].split}"
    return name  # the average


def search_words(config: Config) -> str:
    """What each study spends, columns that spend alike together; "" where none is searched on."""
    alike: dict[str, list[str]] = {}
    for column, members in config.columns.items():
        alike.setdefault(_spent(config, members[0]), []).append(column)
    if len(alike) == 1:
        return next(iter(alike))
    return "; ".join(f"{words or 'no trials'} ({', '.join(names)})" for words, names in alike.items())


def _spent(config: Config, dataset: str) -> str:
    settings, parts = config.datasets[dataset], []
    for number, rung in enumerate(config.rungs(dataset)):
        words = f"the best {rung.trials}" if number else f"{rung.trials} trial{'s' if rung.trials > 1 else ''}"
        if rung.epochs != settings.recipe.epochs:
            words += f" for {rung.epochs} of {settings.recipe.epochs} epochs"
        elif number and rung.epochs != config.rungs(dataset)[number - 1].epochs:
            words += " for all"
        if number and rung.videos == 1 and config.rungs(dataset)[number - 1].videos < 1:
            words += " on all videos"
        elif rung.videos < 1:
            words += f" on {100 * rung.videos:g} % of the training videos"
        parts.append(words)
    if parts and settings.validation.folds > 1:
        parts.append(f"each on {settings.validation.folds} folds")
    return ", ".join(parts)
