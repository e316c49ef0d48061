"""UCF101: `UCF-101/<Class>/v_<Class>_gNN_cNN.avi`; `classInd.txt`, `trainlist01.txt`, `testlist01.txt`.

- `classInd.txt` numbers the classes from 1. Lists hold `<Class>/<clip>.avi`, with or without a label column; in one
  copy that column is 1 throughout, so the class always comes from the folder.
- The group is `<Class>/gNN`: the 25 groups of a class are source videos cut into clips.
"""

from __future__ import annotations

import re

from ssp.data.sources import Entry, Listing, Tree, read_lines
from ssp.errors import DataError

_CLIP = re.compile(r"(?P<video>(?P<name>[^/\s]+)/v_[^/]+_(?P<group>g\d+)_c\d+\.avi)(\s+\d+)?")


def read(tree: Tree, split: int) -> Listing:
    """Videos of one of the three published splits."""
    index = tree.one("classInd.txt")
    try:
        numbered = sorted((int(number), name) for number, name in map(str.split, read_lines(index)))
    except ValueError:
        raise DataError(f"{index}: a line is not '<number> <class>'; unpack the archive again") from None
    classes = [name for _, name in numbered]
    if [number for number, _ in numbered] != list(range(1, len(classes) + 1)):
        raise DataError(f"{index}: classes are not numbered 1 to {len(classes)}; unpack the archive again")
    if len(set(classes)) < len(classes):
        raise DataError(f"{index}: a class is there twice; unpack the archive again")
    labels = {name: label for label, name in enumerate(classes)}
    videos, entries = tree.ending(2), []
    for part in ("train", "test"):
        path = tree.one(f"{part}list{split:02}.txt")
        for number, line in enumerate(read_lines(path), start=1):
            match = _CLIP.fullmatch(line)
            if not match or match["name"] not in labels:
                raise DataError(f"{path}: line {number} names no clip of a known class: '{line}'; check {index.name}")
            name, video = match["name"], match["video"]
            group = f"{name}/{match['group']}"
            entries.append(Entry(video, videos.get(video, video), labels[name], name, part, group))
    return Listing(classes, entries)
