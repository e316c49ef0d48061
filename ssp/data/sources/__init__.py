"""What a data set says about its videos: one module per published data set, and two for own videos, each with `read`.

Design choices
- `read(tree, split)` gets the list of files and returns every video of the split with its label. It opens annotation
  files only; whether a video of a published list is really there is for the manifest to say.
- Annotation files are searched by name anywhere below the folder: archives differ in their outer folders.
- An id is the path as the data set's own lists write it: the same wherever the archive came from, unique by check.
- A new data set is a module here, found by its name, or one that a package offers as an entry point of `ssp.sources`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from ssp.config.plugins import source_modules
from ssp.errors import DataError

VIDEO_SUFFIXES = (
    *(".avi", ".webm", ".mp4", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".ts", ".mts", ".m2ts"),
)
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders and tables call the splits -> what they are called here."""


@dataclass(frozen=True)
class Entry:
    """A video, or a segment of one."""

    id: str  # path as the data set's lists write it
    path: str  # where it lies below the unpacked folder, or should
    label: int
    class_name: str
    split: Literal["train", "val", "test"] | None  # val and None: own videos; None: to be carved
    group: str  # what must not straddle train and validation: film, subject, ...
    segment: tuple[float, float | None] | None = None  # seconds from and to, or to the end; None: the whole video


@dataclass(frozen=True)
class Listing:
    """What the annotation of a data set says."""

    classes: list[str]  # in label order
    entries: list[Entry]
    unused: set[str] = field(default_factory=set)  # paths of videos that belong to no split


@dataclass(frozen=True)
class Tree:
    """The files of a data set; paths are relative to the folder, with forward slashes."""

    folder: Path
    files: list[str]

    @cached_property
    def videos(self) -> list[str]:
        """Paths of the video files."""
        return [path for path in self.files if path.lower().endswith(VIDEO_SUFFIXES)]

    def ending(self, parts: int) -> dict[str, str]:
        """Videos by the last components of their paths, as lists name them.

        Raises:
            DataError: two videos share these components.
        """
        found: dict[str, str] = {}
        for path in self.videos:
            name = "/".join(path.split("/")[-parts:])
            if name in found:
                raise DataError(f"{self.folder}: '{found[name]}' and '{path}' cannot be told apart; remove one archive")
            found[name] = path
        return found

    def matching(self, pattern: str) -> list[str]:
        """Files other than videos whose name (without folders) matches a shell pattern."""
        return [path for path in self._others if fnmatchcase(path.rpartition("/")[2], pattern)]

    @cached_property
    def _others(self) -> list[str]:
        return sorted(set(self.files) - set(self.videos))

    def one(self, pattern: str) -> Path:
        """The only file of a name.

        Raises:
            DataError: there is none, or more than one.
        """
        found = self.matching(pattern)
        if not found:
            raise DataError(f"{self.folder}: no annotation file '{pattern}'; is its archive listed in the config?")
        if len(found) > 1:
            raise DataError(
                f"{self.folder}: annotation '{pattern}' is there {len(found)} times: {', '.join(found[:3])}; keep one"
            )
        return self.folder / found[0]


def read_listing(source: str, tree: Tree, split: int, stereo_channels: int = 1, layout: str | None = None) -> Listing:
    """What a source says about the files; only Breakfast's has a second stereo channel, only folders have a layout.

    Raises:
        DataError: annotation is missing or malformed, or an id is there twice.
    """
    more: dict[str, Any] = {"stereo_channels": stereo_channels} if stereo_channels > 1 else {}
    more |= {"layout": layout} if layout else {}
    listing = import_module(source_modules()[source]).read(tree, split, **more)
    name, count = max(Counter(entry.id for entry in listing.entries).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise DataError(f"{tree.folder}: '{name}' is listed {count} times; ids must be unique, remove the other lists")
    return listing


def read_lines(path: Path) -> list[str]:
    """Lines of an annotation file that are not empty; a byte order mark is no part of the first.

    Raises:
        DataError: the file is missing or not text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: annotation cannot be read ({error}); unpack the archive again") from None


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Parse a JSON annotation file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: annotation cannot be read ({error}); unpack the archive again") from None


def numbered(classes: Iterable[str], origin: str) -> dict[str, int]:
    """Labels of classes by name, in the order of the names; of the numbers where all are such.

    Raises:
        DataError: there are fewer than two.
    """
    names = sorted(set(classes))
    if len(names) < 2:
        raise DataError(f"{origin}: {len(names)} classes ({', '.join(names)}); there is something to tell from two on")
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    return {name: label for label, name in enumerate(names)}


def only_split_one(source: str, split: int) -> None:
    """Check the split number of a data set that is used with one split.

    Raises:
        DataError: another split is asked for.
    """
    if split != 1:
        raise DataError(f"{source}: split {split} is not defined; set datasets.{source}.split to 1")
