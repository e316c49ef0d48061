"""Something-Something V2: `20bn-something-something-v2/<id>.webm`; `labels.json`, `train.json`, `validation.json`.

- `labels.json` maps a template without brackets to its index as a string; the lists hold {id, label, template,
  placeholders}, where the template has its objects in brackets.
- The published validation set is the test set here, since the labels of the published test set are not public; those
  videos belong to no split.
- No groups are published: every video is its own.
"""

from __future__ import annotations

from ssp.data.sources import Entry, Listing, Tree, only_split_one, read_json
from ssp.errors import DataError


def read(tree: Tree, split: int) -> Listing:
    """Videos of the published lists."""
    only_split_one("ssv2", split)
    path = tree.one("*labels.json")
    try:
        labels = {template: int(str(index)) for template, index in read_json(path).items()}
    except (AttributeError, ValueError):  # 0.7 and Infinity are no numbers of classes either
        labels = {}
    if sorted(labels.values()) != list(range(len(labels))) or not labels:
        raise DataError(f"{path}: not a map of templates to the numbers 0, 1, 2, ...; unpack the archive again")
    videos, entries = tree.ending(1), []
    for part, pattern in (("train", "*train.json"), ("test", "*validation.json")):
        for number, video, template in _rows(tree, pattern):
            if template not in labels:
                raise DataError(f"{tree.one(pattern)}: template of entry {number} is not in {path.name}: '{template}'")
            name = f"{video}.webm"
            entries.append(Entry(name, videos.get(name, name), labels[template], template, part, video))
    without_labels = _rows(tree, "*test.json") if tree.matching("*test.json") else []
    unused = {videos.get(f"{video}.webm", f"{video}.webm") for _, video, _ in without_labels}
    return Listing(sorted(labels, key=labels.__getitem__), entries, unused)


def _rows(tree: Tree, pattern: str) -> list[tuple[int, str, str]]:
    """(number, video id, template without brackets) of a list."""
    path = tree.one(pattern)
    try:
        return [
            (number, str(row["id"]), row.get("template", "").replace("[", "").replace("]", ""))
            for number, row in enumerate(read_json(path))
        ]
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"{path}: not a list of {{id, template}}; unpack the archive again") from None
