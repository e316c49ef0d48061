"""What a config says, checked before hours are spent on it: also what only the code that trains knows.

The workflow asks for `check_training` when it plans; where that has no torch, its first job is `ssp check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING

from ssp.config import Config, Row, refusal, search_words
from ssp.errors import ConfigError
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from ssp.paths import Paths
from ssp.records.published import TITLES

if TYPE_CHECKING:
    from ssp.methods.method import TuningMethod

FEW = 500  # validation videos: 2.2 points are one standard error of an accuracy of 50 % then


def check_config(config: Config, origin: str) -> list[str]:
    """Check a config that was read from `origin`, with the files that it names.

    Returns:
        A line for each section: what it asks for.

    Raises:
        ConfigError: whatever is wrong, in one line.
    """
    _refuse(origin, [*_training(config), *_files(config)])
    return [*_summary(config)]


def check_training(config: Config, origin: str) -> None:
    """Check what only the code that trains knows of a config that was read from `origin`.

    Raises:
        ConfigError: an unknown or wrong option of a method, a space over none, or a malformed augmentation policy.
    """
    _refuse(origin, [*_training(config)])


def _refuse(origin: str, wrong: list[str]) -> None:
    if wrong:
        raise refusal(origin, "; ".join(wrong))


def _training(config: Config) -> Iterator[str]:
    wrong = [*_options_and_spaces(config, config.methods)]
    wrong = wrong or [*_options_and_spaces(config, config.rows)]  # a point shares what is wrong with its base row
    yield from wrong or _rows(config)
    yield from _micro_batches(config)
    policies = {name: dataset.recipe.augmentation.randaugment for name, dataset in config.archived.items()}
    if any(policies.values()):
        from ssp.data.randaugment import RandAugment  # torch takes longer to import than all else here

        for name, policy in policies.items():
            for problem in _said(lambda policy=policy: RandAugment.parse(policy)) if policy else ():
                yield f"datasets.{name}.{problem}"


def _micro_batches(config: Config) -> Iterator[str]:
    """Whether there is one for each process of a training."""
    size = max(config.processes("train") * config.compute.train.nodes, config.processes("sweep"))
    for name, dataset in config.archived.items():
        videos = dataset.recipe.batch_size
        if size > 1 and ceil(videos / (dataset.recipe.micro_batch or videos)) < size:
            yield (
                f"datasets.{name}.recipe.micro_batch: fewer micro-batches than the {size} processes of a training "
                f"(compute.*.processes, gpus, nodes); give at most {max(1, videos // size)}"
            )


def _options_and_spaces(config: Config, rows: Iterable[str]) -> Iterator[str]:
    return chain.from_iterable(_said(lambda name=name: search_space(config, name)) for name in rows)


def _rows(config: Config) -> Iterator[str]:
    """What rows claim that a config alone cannot judge; their options are right."""
    for name, row in config.methods.items():
        if row.published and row.published not in TITLES:
            yield f"methods.{name}.published: '{row.published}' is no row of the paper; known: {', '.join(TITLES)}"
    if config.explained and not _method(config.rows[config.explained]).explainable:
        yield f"explained: nothing can be drawn of '{config.explained}'; name a row of ssp, with all its parts"
    for name, points in config.points.items():
        base = config.rows[config.ablations[name].of]
        space, options = search_space(config, base.name), _method(base).options
        for point in points:
            row = config.rows[point.row]
            searched = row.varied.keys() & space.keys()
            if row != base and not searched and _method(row).options == options:
                said = ", ".join(f"{key}: {value}" for key, value in row.varied.items())
                yield (
                    f"ablations.{name}: '{point.title}' is what '{base.name}' does anyway and would be trained twice; "
                    f"say so in methods.{base.name}.options ({said}), or leave it out"
                )


def _method(row: Row) -> TuningMethod:
    return load_method(row.method)(row.options)


def _said(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except ConfigError as error:
        yield str(error)


def _files(config: Config) -> Iterator[str]:
    """Files that the user said are there. What the workflow has made of them already, it does not need again."""
    for name, checkpoint in config.backbone.checkpoints.items():
        if checkpoint.local and not checkpoint.local.is_file():
            yield f"backbone.checkpoints.{name}.local: no file {checkpoint.local}; put it there or mend the path"
    for name, dataset in config.archived.items():
        if dataset.videos and not dataset.videos.exists():
            yield f"datasets.{name}.videos: no file or folder {dataset.videos}; mend the path"
        made = dataset.generate or Paths.of(config).unpacked(name).exists()
        if dataset.local and not made and not dataset.local.is_dir():
            yield f"datasets.{name}.local: no folder {dataset.local}; put the archives there or mend the path"


def _summary(config: Config) -> Iterator[str]:
    size = config.backbone.architecture
    size = size if isinstance(size, str) else f"VideoMamba of {size.depth} blocks, width {size.embed_dim}"
    yield f"{config.name}: {config.title}"
    yield f"backbone: {size}; checkpoints: {', '.join(config.backbone.checkpoints)}"
    for name, dataset in config.datasets.items():
        expected, recipe = dataset.expected, dataset.recipe
        content = (
            f"{expected.classes} classes, {expected.train} training and {expected.test} test videos"
            if expected
            else f"classes and videos as found in {dataset.videos}"
        )
        yield (f"data set {name}: {content}, {recipe.epochs} epochs in batches of {recipe.batch_size}")
    for name in config.methods:
        options = config.rows[name].options
        chosen = ", ".join(f"{option} {value}" for option, value in options.items()) or "its own options"
        yield f"method {name}: {chosen}; searched: {', '.join(search_space(config, name)) or 'nothing'}"
    for name, ablation in config.ablations.items():
        titles = "; ".join(point.title for point in config.points[name])
        yield f"ablation {name}: {ablation.of} with {titles}"
    words = search_words(config)
    yield f"sweep: {len(config.studies())} studies of {words}" if words else "sweep: none, each row at its start"
    yield f"seeds: {', '.join(map(str, config.seeds))}, which makes {len(config.runs())} trainings"
    if small := [name for name in config.datasets if _chosen_on_few(config, name)]:
        yield (
            f"advice: validation of {', '.join(small)} has fewer than {FEW} videos, on which choices are mostly noise; "
            "validation.folds chooses on several times as many, at several times the cost of the search"
        )


def _chosen_on_few(config: Config, name: str) -> bool:
    dataset = config.datasets[name]
    if dataset.expected is None:  # own videos, whose manifest may not be there yet
        return False
    videos = dataset.expected.train * dataset.validation.fraction
    return bool(config.rungs(name)) and dataset.validation.folds == 1 and videos < FEW
