"""Own videos in folders: `<class>/<video>`, with a folder in between where videos belong together.

- The group is the name of the folders between class and video, in every class the same; without one, each video is its
  own. Two videos of one person, place or recording should share a group: else test measures what training has seen.
- Where the outermost folders are called train and test (val), they are the split.
- `layout` says it otherwise, with {class}, {group}, {split}, `*` for whatever stands within a name and `**` for
  whatever follows: `{class}/{group}_*` reads `walk/anna_01.mp4`.
- Labels follow the sorted names of the classes.
"""

from __future__ import annotations

import re

from ssp.data.sources import SPLITS, VIDEO_SUFFIXES, Entry, Listing, Tree, numbered
from ssp.errors import DataError

_PIECES = {
    "{class}": "(?P<class_>[^/]+?)",
    "{group}": "(?P<group>[^/]+?)",
    "{split}": "(?P<split>[^/]+?)",
    "**": ".+",
    "*": "[^/]*",
}


def read(tree: Tree, split: int, layout: str | None = None) -> Listing:
    """All videos below the folder."""
    if not tree.videos:
        raise DataError(f"{tree.folder}: no video in it; a folder a class holds them, as {', '.join(VIDEO_SUFFIXES)}")
    if layout is None:
        outermost = {path.partition("/")[0].lower() for path in tree.videos}
        layout = "{split}/{class}/**" if outermost <= SPLITS.keys() else "{class}/**"
    pattern, found = _pattern(layout), []
    for path in tree.videos:
        match = pattern.fullmatch(path)
        parts = match.groupdict() if match else {}
        part = SPLITS.get(parts["split"].lower()) if parts.get("split") else None
        if not match or ("split" in parts and part is None):
            raise DataError(
                f"{tree.folder}: '{path}' does not read as '{layout}'"
                f"{' with a split of train, val or test' if match else ''}; move it, or mend `layout`"
            )
        said = max(match.end(name) for name in ("class_", "split") if name in parts)
        group = parts.get("group") or "/".join(path[said:].strip("/").split("/")[:-1]) or path
        found.append((path, parts["class_"], part, group))
    labels = numbered({name for _, name, _, _ in found}, str(tree.folder))
    return Listing([*labels], [Entry(path, path, labels[name], name, part, group) for path, name, part, group in found])


def _pattern(layout: str) -> re.Pattern[str]:
    """A layout as a regular expression over whole paths."""
    pieces = re.split(r"(\{.*?\}|\*\*|\*)", layout)
    unknown = [piece for piece in pieces if piece[:1] == "{" and piece not in _PIECES]
    twice = [piece for piece in pieces if piece[:1] == "{" and pieces.count(piece) > 1]
    if unknown or twice or "{class}" not in pieces:
        wrong = f"{unknown[0]} is not known" if unknown else f"{twice[0]} is there twice" if twice else "no {class}"
        raise DataError(f"layout '{layout}': {wrong}; write {{class}} and, where paths say it, {{group}} and {{split}}")
    return re.compile("".join(_PIECES.get(piece) or re.escape(piece) for piece in pieces))
