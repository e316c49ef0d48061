"""One page that says whether a data set is fit for use: what `ssp data check` prints.

- Reads the manifest, its report, the frame store and its shards' reports; opens no video.
- Where the manifest was refused because files or counts contradict the published lists, its report says what is wrong.
- A line that begins with `!` is a reason to distrust results; the last line counts them.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config
from ssp.data.frames import FrameStore
from ssp.data.manifest import SEGMENT, class_count, content_hash, read_manifest
from ssp.errors import DataError
from ssp.paths import Paths

SHOWN = 5  # names that a line lists
USUAL_FPS = (1, 240)


def check_dataset(config: Config, dataset: str) -> str:
    """The report on a data set.

    Raises:
        DataError: there is no manifest yet, or it is not readable.
    """
    paths, settings = Paths.of(config), config.datasets[dataset]
    path = paths.manifest(dataset)
    report = paths.manifest_report(dataset)
    if not path.exists() and report.is_file():
        return _closed([f"{dataset}: no manifest", *_refusal(report)])
    manifest = read_manifest(path)
    lines = [f"{dataset}: {len(manifest)} videos, manifest {content_hash(manifest)}"]
    lines += _counts(manifest, settings.expected.model_dump() if settings.expected else {})
    lines += _report(report)
    lines += describe(manifest, class_count(config, dataset), own=settings.videos is not None)
    lines += _store(paths, dataset, manifest)
    return _closed(lines)


def describe(manifest: pd.DataFrame, classes: int, own: bool) -> list[str]:
    """Balance, copies, groups and formats of the videos of a manifest, published or the user's own."""
    return [*_balance(manifest, classes), *_identity(manifest), *_groups(manifest, own), *_formats(manifest)]


def findings(page: str) -> list[str]:
    """The lines of a page that are a reason to distrust results."""
    return [line for line in page.splitlines() if line.startswith("!")]


def _closed(lines: list[str]) -> str:
    """The page with its last line, which counts the findings."""
    problems = len(findings("\n".join(lines)))
    lines.append("fit for use" if not problems else f"{problems} finding{'s' * (problems > 1)} above, marked with !")
    return "\n".join(lines)


def _counts(manifest: pd.DataFrame, expected: dict[str, int]) -> list[str]:
    counts = manifest["split"].value_counts()
    train, val, test = (int(counts.get(split, 0)) for split in ("train", "val", "test"))
    found = {"classes": manifest["label"].nunique(), "train": train + val, "test": test}
    lines = [f"  train {train} + validation {val} = {train + val}, test {test}, {found['classes']} classes"]
    return lines + [
        f"! {name}: {found[name]} found, {expected[name]} expected"
        for name in found
        if found[name] != expected.get(name, found[name])
    ]


def _report(path: Path) -> list[str]:
    """What the manifest's report says."""
    if not path.is_file():
        return [f"! {path} is missing: missing and extra files are unknown; run `ssp data manifest` again"]
    try:
        missing, extra, alone, broken = _read_report(path, "missing", "extra", "classes_without_validation", "broken")
    except DataError as error:
        return [f"! {error}; run `ssp data manifest` again"]
    lines = []
    if missing:
        lines.append(f"  {len(missing)} listed videos that no split uses are not there: {_some(missing)}")
    if extra:
        lines.append(f"  {len(extra)} videos on disk that no list names: {_some(extra)}")
    if alone:
        lines.append(f"! classes with one group have no validation: {_some(alone)}")
    if broken:
        lines.append(f"! {len(broken)} videos cannot be opened: {_some([video['id'] for video in broken])}")
    return lines


def _refusal(path: Path) -> list[str]:
    """Why the manifest was not written, from its report."""
    try:
        problem, missing, extra = _read_report(path, "problem", "missing", "extra")
    except DataError as error:
        return [f"! {error}; run `ssp data manifest` again"]
    lines = [f"! {problem}" if problem else "! the manifest was removed; run `ssp data manifest`"]
    for names, meaning in ((missing, "listed videos are not there"), (extra, "videos on disk are in no list")):
        if names:
            lines.append(f"! {len(names)} {meaning}: {_some(names)}")
    return lines


def _read_report(path: Path, *keys: str) -> list[Any]:
    """These values of a report.

    Raises:
        DataError: it does not have them.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return [report[key] for key in keys]
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(f"{path}: not a readable report") from None


def _balance(manifest: pd.DataFrame, classes: int) -> list[str]:
    lines = []
    if outside := sorted(set(manifest["label"]) - set(range(classes))):
        lines.append(f"! labels outside of the {classes} classes: {_some([str(label) for label in outside])}")
    for split, rows in manifest.groupby("split", sort=False):
        sizes = rows["class_name"].value_counts()
        lines.append(f"  videos a class in {split}: {sizes.min()} to {sizes.max()}, median {sizes.median():g}")
        if split == "val":
            continue
        if len(sizes) < manifest["class_name"].nunique():
            absent = sorted(set(manifest["class_name"]) - set(sizes.index))
            lines.append(f"! {len(absent)} classes have no video in {split}: {_some(absent)}")
        if split == "train" and (single := sorted(sizes.index[sizes == 1])):
            lines.append(f"! {len(single)} classes have a single video in train: {_some(single)}")
    return lines


def _identity(manifest: pd.DataFrame) -> list[str]:
    lines, twice = [], manifest["id"][manifest["id"].duplicated()].tolist()
    if twice:
        lines.append(f"! {len(twice)} ids are there more than once: {_some(twice)}")
    content = ["sha256", *(name for name in SEGMENT if name in manifest)]
    copies = manifest[manifest.duplicated(content, keep=False)]
    across = [
        " = ".join(rows["id"])
        for _, rows in copies.groupby(content)
        if rows["split"].nunique() > 1 or rows["label"].nunique() > 1
    ]
    if across:
        lines.append(f"! {len(across)} videos are in two splits or classes with the same bytes: {_some(across)}")
    within = copies.groupby(content).ngroups - len(across)
    if within:
        lines.append(f"  {within} videos are there more than once within a class and split, with the same bytes")
    return lines


def _groups(manifest: pd.DataFrame, own: bool) -> list[str]:
    groups = {split: set(rows["group"]) for split, rows in manifest.groupby("split")}
    train, val, test = (groups.get(split, set()) for split in ("train", "val", "test"))
    lines = [f"  groups: train {len(train)}, validation {len(val)}, test {len(test)}"]
    if train & val:
        lines.append(f"! groups in train and validation: {_some(sorted(train & val))}")
    if (train | val) & test:
        shared = len((train | val) & test)
        mark, whose = ("!", "given") if own else (" ", "published")
        lines.append(
            f"{mark} groups in test and in train, of which validation is a part, by the {whose} split: {shared}"
        )
    return lines


def _formats(manifest: pd.DataFrame) -> list[str]:
    readable = manifest[manifest["frames"] > 0]
    if readable.empty:
        return ["! no video can be opened"]
    size = readable["width"].astype(str) + "x" + readable["height"].astype(str)
    frames, seconds = readable["frames"], readable["frames"] / readable["fps"].where(readable["fps"] > 0)
    lines = [
        f"  codecs: {_shares(readable['codec'])}; sizes: {_shares(size)}; fps: {_shares(readable['fps'].round(2))}",
        f"  frames: {frames.min()} to {frames.max()}, median {frames.median():g}; "
        f"seconds: {seconds.min():.1f} to {seconds.max():.1f}",
    ]
    unusual = ~readable["fps"].between(*USUAL_FPS)
    for suspect, meaning in (
        (readable[frames == 1], "videos have a single frame"),
        (readable[unusual], f"videos have other fps than {USUAL_FPS[0]} to {USUAL_FPS[1]}"),
    ):
        if len(suspect):
            lines.append(f"! {len(suspect)} {meaning}: {_some(suspect['id'].tolist())}")
    return lines


def _store(paths: Paths, dataset: str, manifest: pd.DataFrame) -> list[str]:
    store = FrameStore(paths.frames(dataset))
    try:
        if store.meta["manifest"] != content_hash(manifest):
            return ["! frames were extracted from another manifest; run `ssp data frames` again"]
        stored = sorted(store.rows())
        lengths = pd.Series([store.length(row) for row in stored], index=stored, dtype="int64")
    except DataError as error:
        return [f"! no complete frame store: {error}"]
    lines = [f"  frame store: {len(stored)} videos, {lengths.sum()} frames, {store.meta['shards']} shards"]
    lost = manifest["id"].drop(index=stored).tolist()
    if lost:
        reasons = _reasons(paths, dataset, store.meta["shards"])
        lines.append(f"! {len(lost)} videos without frames: {_some([reasons.get(name, name) for name in lost])}")
    announced = manifest["frames"][stored]
    contrary = announced[announced != lengths]
    if len(contrary):
        worst = [f"{manifest['id'][row]} ({lengths[row]} of {announced[row]})" for row in contrary.index[:SHOWN]]
        lines.append(f"! {len(contrary)} videos have other frames than their container announces: {_some(worst)}")
    return lines


def _reasons(paths: Paths, dataset: str, shards: int) -> dict[str, str]:
    """Videos that could not be decoded, with the reasons that the shards' reports give."""
    found = {}
    for shard in range(shards):
        with contextlib.suppress(DataError):  # no report, no reasons
            (broken,) = _read_report(paths.shard_report(dataset, shard), "broken")
            found |= {video["id"]: f"{video['id']} ({video['reason']})" for video in broken}
    return found


def _shares(values: pd.Series) -> str:
    """The most frequent values with their counts."""
    counts = values.value_counts()
    return _some([f"{value} ({count})" for value, count in counts.items()])


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
