"""One page that says whether a data set is fit for use: what `ssp data check` prints.

- Reads the manifest, its report, the frame store and its shards' reports; opens no video.
- Where the manifest was refused because files or counts contradict the published lists, its report says what is wrong.
- A line that begins with `!` is a reason to distrust results; the last line counts them.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ssp.config import Config
from ssp.data.frames import FrameStore
from ssp.data.manifest import content_hash, read_manifest, report_of
from ssp.data.sources import read_json
from ssp.errors import DataError
from ssp.paths import Paths

SHOWN = 5  # names that a line lists


def check_dataset(config: Config, dataset: str) -> str:
    """The report on a data set.

    Raises:
        DataError: there is no manifest yet, or it is not readable.
    """
    paths, settings = Paths.of(config), config.datasets[dataset]
    path = paths.manifest(dataset)
    if not path.exists() and report_of(path).is_file():
        return _closed([f"{dataset}: no manifest", *_refusal(read_json(report_of(path)))])
    manifest = read_manifest(path)
    lines = [f"{dataset}: {len(manifest)} videos, manifest {content_hash(manifest)}"]
    lines += _counts(manifest, settings.expected.model_dump())
    lines += _report(paths, dataset)
    lines += _balance(manifest)
    lines += _identity(manifest)
    lines += _groups(manifest)
    lines += _formats(manifest)
    lines += _store(paths, dataset, manifest)
    return _closed(lines)


def _closed(lines: list[str]) -> str:
    """The page with its last line, which counts the findings."""
    problems = sum(line.startswith("!") for line in lines)
    lines.append("fit for use" if not problems else f"{problems} finding{'s' * (problems > 1)} above, marked with !")
    return "\n".join(lines)


def _counts(manifest: pd.DataFrame, expected: dict[str, int]) -> list[str]:
    counts = manifest["split"].value_counts()
    train, val, test = (int(counts.get(split, 0)) for split in ("train", "val", "test"))
    found = {"classes": manifest["label"].nunique(), "train": train + val, "test": test}
    lines = [f"  train {train} + validation {val} = {train + val}, test {test}, {found['classes']} classes"]
    return lines + [
        f"! {name}: {found[name]} found, {expected[name]} published" for name in found if found[name] != expected[name]
    ]


def _report(paths: Paths, dataset: str) -> list[str]:
    path = report_of(paths.manifest(dataset))
    if not path.is_file():
        return [f"! {path} is missing: missing and extra files are unknown; run `ssp data manifest` again"]
    report, lines = read_json(path), []
    if extra := report["extra"]:
        lines.append(f"  {len(extra)} videos on disk that no list names: {_some(extra)}")
    if report["classes_without_validation"]:
        lines.append(f"! classes with one group have no validation: {_some(report['classes_without_validation'])}")
    if report["broken"]:
        lines.append(f"! {len(report['broken'])} videos cannot be opened: {_some([v['id'] for v in report['broken']])}")
    return lines


def _refusal(report: dict[str, Any]) -> list[str]:
    """Why the manifest was not written, from its report."""
    lines = [f"! {report['problem']}" if report["problem"] else "! the manifest was removed; run `ssp data manifest`"]
    for kind, meaning in (("missing", "listed videos are not there"), ("extra", "videos on disk are in no list")):
        if names := report[kind]:
            lines.append(f"! {len(names)} {meaning}: {_some(names)}")
    return lines


def _balance(manifest: pd.DataFrame) -> list[str]:
    lines, classes = [], manifest["label"].nunique()
    for split, rows in manifest.groupby("split", sort=False):
        sizes = rows["label"].value_counts()
        lines.append(f"  videos a class in {split}: {sizes.min()} to {sizes.max()}, median {sizes.median():g}")
        if len(sizes) < classes and split != "val":
            lines.append(f"! {classes - len(sizes)} classes have no video in {split}")
    return lines


def _identity(manifest: pd.DataFrame) -> list[str]:
    lines, twice = [], manifest["id"][manifest["id"].duplicated()].tolist()
    if twice:
        lines.append(f"! {len(twice)} ids are there more than once: {_some(twice)}")
    copies = manifest[manifest["sha256"].duplicated(keep=False)]
    across = [
        " = ".join(rows["id"])
        for _, rows in copies.groupby("sha256")
        if rows["split"].nunique() > 1 or rows["label"].nunique() > 1
    ]
    if across:
        lines.append(f"! {len(across)} videos are in two splits or classes with the same bytes: {_some(across)}")
    within = copies["sha256"].nunique() - len(across)
    if within:
        lines.append(f"  {within} videos are there more than once within a class and split, with the same bytes")
    return lines


def _groups(manifest: pd.DataFrame) -> list[str]:
    groups = {split: set(rows["group"]) for split, rows in manifest.groupby("split")}
    train, val, test = (groups.get(split, set()) for split in ("train", "val", "test"))
    lines = [f"  groups: train {len(train)}, validation {len(val)}, test {len(test)}"]
    if train & val:
        lines.append(f"! groups in train and validation: {_some(sorted(train & val))}")
    if (train | val) & test:
        lines.append(f"  groups in train and test, by the published split: {len((train | val) & test)}")
    return lines


def _formats(manifest: pd.DataFrame) -> list[str]:
    readable = manifest[manifest["frames"] > 0]
    if readable.empty:
        return ["! no video can be opened"]
    size = readable["width"].astype(str) + "x" + readable["height"].astype(str)
    frames, seconds = readable["frames"], readable["frames"] / readable["fps"].where(readable["fps"] > 0)
    return [
        f"  codecs: {_shares(readable['codec'])}; sizes: {_shares(size)}; fps: {_shares(readable['fps'].round(2))}",
        f"  frames: {frames.min()} to {frames.max()}, median {frames.median():g}; "
        f"seconds: {seconds.min():.1f} to {seconds.max():.1f}",
    ]


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
    reports = (paths.shard_report(dataset, shard) for shard in range(shards))
    broken = [video for path in reports if path.is_file() for video in read_json(path)["broken"]]
    return {video["id"]: f"{video['id']} ({video['reason']})" for video in broken}


def _shares(values: pd.Series) -> str:
    """The most frequent values with their counts."""
    counts = values.value_counts()
    return _some([f"{value} ({count})" for value, count in counts.items()])


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
