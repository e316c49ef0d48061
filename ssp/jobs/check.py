"""What a config says, checked before hours are spent on it: also what only the code that trains knows.

The workflow asks for `check_training` when it plans; where that has no torch, its first job is `ssp check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ssp.config import Config
from ssp.errors import ConfigError
from ssp.methods.space import search_space
from ssp.paths import Paths


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
        raise ConfigError(f"{origin}: {'; '.join(wrong)}")


def _training(config: Config) -> Iterator[str]:
    for method in config.methods:
        yield from _said(lambda method=method: search_space(config, method))
    policies = {name: dataset.recipe.augmentation.randaugment for name, dataset in config.datasets.items()}
    if any(policies.values()):
        from ssp.data.randaugment import RandAugment  # its torchvision takes longer than all else here

        for name, policy in policies.items():
            for problem in _said(lambda policy=policy: RandAugment.parse(policy)) if policy else ():
                yield f"datasets.{name}.{problem}"


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
    for name, dataset in config.datasets.items():
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
        yield (
            f"data set {name}: {expected.classes} classes, {expected.train} training and {expected.test} test videos, "
            f"{recipe.epochs} epochs in batches of {recipe.batch_size}"
        )
    for name in config.methods:
        options = config.method_options(name)
        chosen = ", ".join(f"{option} {value}" for option, value in options.items()) or "its own options"
        yield f"method {name}: {chosen}; searched: {', '.join(search_space(config, name)) or 'nothing'}"
    cells = len(config.datasets) * len(config.methods)
    yield f"sweep: {cells} studies of {config.sweep.trials} trials"
    yield f"seeds: {', '.join(map(str, config.seeds))}, which makes {cells * len(config.seeds)} trainings"
