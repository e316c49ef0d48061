"""A folder of results, or an archive of one, which is unpacked as archives from the open internet are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssp.data.archives import unpack
from ssp.errors import ConfigError

_EXAMPLE = "give one of results, such as results/demo"


@contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The folder of some results; that of an archive is removed behind the block.

    Raises:
        ConfigError: there is no such folder or archive, or no results are in the archive.
        DataError: the archive is damaged, or has members that would leave its folder.
    """
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise ConfigError(f"{source}: no such folder or archive; {_EXAMPLE}")
    with tempfile.TemporaryDirectory(prefix="ssp-") as scratch:
        folder = Path(scratch) / "unpacked"
        unpack([source], folder)
        configs = [folder / "config.yaml"] if (folder / "config.yaml").is_file() else [*folder.rglob("config.yaml")]
        if len(configs) != 1:
            raise ConfigError(f"{source}: {'no' if not configs else 'more than one'} config.yaml in it; {_EXAMPLE}")
        yield configs[0].parent


def names_of(sources: Sequence[Path]) -> list[str]:
    """What results are called beside each other: as their folders or archives, with as many folders above as it takes.

    Raises:
        ConfigError: one is there twice.
    """
    if twice := [source for i, source in enumerate(sources) if source.resolve() in [s.resolve() for s in sources[:i]]]:
        raise ConfigError(f"{twice[0]}: is there twice; give each results once")
    parts = [
        source.resolve().with_suffix("").parts if source.is_file() else source.resolve().parts for source in sources
    ]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-number:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [source.as_posix() for source in sources]  # demo and demo.zip, side by side
