"""HMDB51: `<class>/<clip>.avi`; per class and split a list `<class>_test_split1.txt`.

- Lines are `<clip>.avi 1` (train), `2` (test) or `0` (in no split). Labels follow the sorted class names.
- A clip is named `<film>_<class>_<body>_<camera>_np<people>_<direction>_<quality>_<number>.avi`. The group is the film:
  clips of one film show the same people and places, also in several classes.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ssp.data.sources import Entry, Listing, Tree, read_lines
from ssp.errors import DataError

_PROPERTIES = re.compile(r"_[a-z]+_[a-z]+_np\d+_[a-z]+_[a-z]+_\d+$")
# What follows the film's name: numbers set apart from it (`_2`, `_-_3`), or one or two digits that are not.
_PART = re.compile(r"(?:[\W_]+\d+|(?<!\d)\d{1,2})+[\W_]*$")
_SPLITS = {"1": "train", "2": "test", "0": None}


def read(tree: Tree, split: int) -> Listing:
    """Videos of one of the three published splits."""
    suffix = f"_test_split{split}.txt"
    classes = sorted(PurePosixPath(path).name.removesuffix(suffix) for path in tree.matching(f"*{suffix}"))
    if not classes:
        raise DataError(f"{tree.folder}: no split list '<class>{suffix}'; is its archive listed in the config?")
    videos = tree.ending(2)
    entries, unused = [], set()
    for label, name in enumerate(classes):
        path = tree.one(f"{name}{suffix}")
        for number, line in enumerate(read_lines(path), start=1):
            clip, _, use = line.rpartition(" ")
            if not clip or use not in _SPLITS:
                raise DataError(f"{path}: line {number} is not '<clip>.avi 0|1|2': '{line}'; unpack the archive again")
            video = f"{name}/{clip.strip()}"
            where = videos.get(video, video)
            if _SPLITS[use] is None:
                unused.add(where)
            else:
                entries.append(Entry(video, where, label, name, _SPLITS[use], film(clip.strip(), classes)))
    return Listing(classes, entries, unused)


def film(clip: str, classes: list[str]) -> str:
    """The source film of a clip: its name without properties, action and number of the part.

    Spellings of one name become one: lower case, letters and digits alone. The action in the name is that of some
    class, not always of the folder.
    """
    stem = _PROPERTIES.sub("", clip.removesuffix(".avi"))
    action = max((name for name in classes if stem.endswith(f"_{name}")), key=len, default="")
    title = stem.removesuffix(f"_{action}").lower()
    return re.sub(r"[\W_]", "", _PART.sub("", title)) or title or stem
