"""The budget of a search in words, as captions, the report and `ssp check` say it."""

from __future__ import annotations

from ssp.config.benchmark import Config


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
