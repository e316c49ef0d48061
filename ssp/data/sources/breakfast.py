"""Breakfast: `BreakfastII_15fps_qvga_sync/PNN/<camera>/PNN_<activity>[_chN].avi`; the archive holds no list.

- Where the lists used in the field, `train.csv` and `test.csv`, are among the files, they decide: each line
  `PNN-<camera>-PNN_<activity>[_ch0],<seconds>,<activity>,<class>` names one video.
- Without them the name says it all: subjects P03-P46 train, P47-P54 test. The lists say the same, video by video, but
  without them nobody knows which video is missing.
- The group is the subject. Several cameras filmed one take, so the same file name exists once a camera: the id holds
  the camera.
- The stereo camera has two channels; the lists hold channel 0 alone (1,357 + 355 videos). With `stereo_channels` 2 each
  video of channel 0 is followed by that of channel 1 (1,605 + 411): the published percentages are shares of 192
  recordings, and only so many names are left then where cameras are merged by file name.
- Labels by name are in the order of the lists; activities they do not know (of another data set in this form) come
  after.
"""

from __future__ import annotations

import re

from ssp.data.sources import Entry, Listing, Tree, only_split_one, read_lines
from ssp.errors import DataError

ACTIVITIES = ["cereals", "coffee", "tea", "pancake", "friedegg", "scrambledegg", "sandwich", "juice", "milk", "salat"]
LAST_TRAIN_SUBJECT = 46
HEADER = "file_name,duration,action,class_id"
_VIDEO = re.compile(
    r"(?:.*/)?(?P<id>P(?P<subject>\d\d)/[^/]+/P(?P=subject)_(?P<activity>[a-z]+)(?:_ch(?P<channel>\d))?\.avi)"
)


def read(tree: Tree, split: int, stereo_channels: int = 1) -> Listing:
    """The videos of the lists, or all that there are; of the stereo camera channel 0, or both."""
    only_split_one("breakfast", split)
    found, unused, present = [], set(), set()
    for path in tree.videos:
        match = _VIDEO.fullmatch(path)
        if match:
            present.add(match["activity"])  # of the other channel, too: it shows what the first one does
            if int(match["channel"] or 0) < stereo_channels:
                found.append((path, match))
            else:
                unused.add(path)
    if not found:
        raise DataError(f"{tree.folder}: no video 'PNN/<camera>/PNN_<activity>.avi'; check datasets.breakfast.archives")
    if tree.matching("train.csv") or tree.matching("test.csv"):
        return _listed(tree, unused, stereo_channels)
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


def _listed(tree: Tree, unused: set[str], stereo_channels: int) -> Listing:
    """The videos of both lists, in their order."""
    videos, entries = tree.ending(3), []
    for part in ("train", "test"):
        path = tree.one(f"{part}.csv")
        header, *lines = read_lines(path) or [""]
        if header != HEADER:
            raise DataError(f"{path}: the first line is not '{HEADER}'; put the list there as published")
        for line in lines:
            name, _, activity, label = line.split(",") if line.count(",") == 3 else [""] * 4
            match = _VIDEO.fullmatch(f"{name.replace('-', '/')}.avi")
            if not match or not re.fullmatch(r"\d{1,3}", label):
                raise DataError(
                    f"{path}: '{line}' is not 'PNN-<camera>-PNN_<activity>,<seconds>,<activity>,<class>'; "
                    "put the list there as published"
                )
            channels = range(stereo_channels) if match["channel"] == "0" else (match["channel"],)
            for channel in channels:
                name = match["id"].replace("_ch0.", f"_ch{channel}.")
                where = videos.get(name, name)
                entries.append(Entry(name, where, int(label), activity, part, f"P{match['subject']}"))
    numbered = sorted({(entry.label, entry.class_name) for entry in entries})
    classes = [name for _, name in numbered]
    if [label for label, _ in numbered] != list(range(len(classes))) or len(set(classes)) < len(classes):
        raise DataError(
            f"{tree.folder}: train.csv and test.csv do not number their activities 0, 1, 2, ...; "
            "put the lists there as published"
        )
    return Listing(classes, entries, unused - {entry.path for entry in entries})
