"""Breakfast: `BreakfastII_15fps_qvga_sync/PNN/<camera>/PNN_<activity>[_chN].avi`; no list, the name says it all.

- Subjects P03-P46 train, P47-P54 test. The group is the subject.
- Several cameras filmed one take, so the same file name exists once a camera: the id holds the camera.
- The stereo camera has two channels; the lists used in the field hold channel 0 alone (1,357 + 355 videos).
- Labels are in the order of those lists; activities they do not know (of another data set in this form) come after.
"""

from __future__ import annotations

import re

from ssp.data.sources import Entry, Listing, Tree, only_split_one
from ssp.errors import DataError

ACTIVITIES = ["cereals", "coffee", "tea", "pancake", "friedegg", "scrambledegg", "sandwich", "juice", "milk", "salat"]
LAST_TRAIN_SUBJECT = 46
_VIDEO = re.compile(
    r"(?:.*/)?(?P<id>P(?P<subject>\d\d)/[^/]+/P(?P=subject)_(?P<activity>[a-z]+)(?:_ch(?P<channel>\d))?\.avi)"
)


def read(tree: Tree, split: int) -> Listing:
    """All videos but the second stereo channel."""
    only_split_one("breakfast", split)
    found, unused = [], set()
    for path in tree.videos:
        match = _VIDEO.fullmatch(path)
        if match:
            if match["channel"] in (None, "0"):
                found.append((path, match))
            else:
                unused.add(path)
    if not found:
        raise DataError(f"{tree.folder}: no video 'PNN/<camera>/PNN_<activity>.avi'; check datasets.breakfast.archives")
    present = {match["activity"] for _, match in found}
    classes = [name for name in ACTIVITIES if name in present] + sorted(present - set(ACTIVITIES))
    entries = [
        Entry(
            id=match["id"],
            path=path,
            label=classes.index(match["activity"]),
            class_name=match["activity"],
            split="train" if int(match["subject"]) <= LAST_TRAIN_SUBJECT else "test",
            group=f"P{match['subject']}",
        )
        for path, match in found
    ]
    return Listing(classes, entries, unused)
