"""The manifest: one row per video (or segment of one), as a Parquet table that everything later relies on.

Design choices
- Videos come from the annotation, not from what happens to be on disk; what is missing or too much is listed in a
  report beside the manifest. A video of the split that is not there is an error, and so are counts that differ from
  the config's `expected`. Own videos are what is there; the report says how many.
- A video that cannot be opened keeps its row (frames 0), so a test set never shrinks unnoticed: the report names it,
  and `load_split` leaves it out and says so.
- The hash is over the content of the table, not over Parquet bytes, which change with the library's version.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config, Dataset, Expected, slice_hash
from ssp.data.archives import walk
from ssp.data.headers import Header, read_headers
from ssp.data.sources import Entry, Listing, Tree, read_json, read_listing
from ssp.data.validation import carve
from ssp.data.video import Probe
from ssp.errors import DataError, first_line
from ssp.files import atomic_path, write_json
from ssp.paths import Paths
from ssp.progress import progress

COLUMNS = {
    "id": "str",
    "path": "str",
    "label": "int64",
    "class_name": "str",
    "split": "str",
    "group": "str",
    "frames": "int64",
    "fps": "float64",
    "width": "int64",
    "height": "int64",
    "codec": "str",
    "sha256": "str",
}
"""Columns in order. `split` is train, val or test; `frames` is what the container announces, 0 for a broken video."""

SEGMENT = {"first": "int64", "stop": "int64"}
"""More columns, where a table of own videos names segments: the first frame, and the one behind the last (`TO_END`)."""

TO_END = -1


def write_manifest(config: Config, dataset: str) -> pd.DataFrame:
    """Build the manifest of a data set and write it with its report.

    Raises:
        DataError: annotation is missing or malformed, or counts differ from `expected`; the report says which videos.
    """
    path = Paths.of(config).manifest(dataset)
    path.unlink(missing_ok=True)
    manifest = build_manifest(config, dataset)
    with atomic_path(path) as temporary:
        manifest.to_parquet(temporary, index=False)
    return manifest


def build_manifest(config: Config, dataset: str) -> pd.DataFrame:
    """The manifest of a data set, in the order of its lists; writes the report.

    Raises:
        DataError: as `write_manifest`.
    """
    settings, paths = config.datasets[dataset], Paths.of(config)
    tree = own_tree(settings.videos) if settings.videos else _unpacked_tree(paths, config.column_of(dataset))
    listing = read_listing(settings.source, tree, settings.split, settings.stereo_channels, settings.layout)
    try:
        splits = carve_splits(listing, settings)
    except DataError as error:
        raise DataError(f"{dataset}: {error}") from None
    report = _compare(listing, splits, tree, settings.expected)
    report_path = paths.manifest_report(dataset)
    if problem := report["problem"]:
        write_json(report_path, report)
        raise DataError(f"{dataset}: {problem}; {report_path} lists the videos, check archives and expected counts")

    manifest, broken = tabulate(listing, splits, tree, config.compute.data.threads, settings.frames.timeout_s)
    validated = set(manifest.loc[manifest["split"] == "val", "class_name"])
    report |= {
        "splits": {split: int((manifest["split"] == split).sum()) for split in ("train", "val", "test")},
        "classes_without_validation": [name for name in listing.classes if name not in validated],
        "broken": broken,
        "hash": content_hash(manifest),
        "config_hash": slice_hash(config.manifest_slice(dataset)),
    }
    write_json(report_path, report)
    return manifest


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; row numbers 0..n-1 are the frame store's keys.

    Raises:
        DataError: missing, damaged, or without the columns of this version.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `ssp data manifest` first")
    try:
        manifest = pd.read_parquet(path)
        columns = COLUMNS | {name: kind for name, kind in SEGMENT.items() if name in manifest}
        return manifest[list(columns)].astype(columns)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise DataError(f"{path}: not a readable manifest ({reason}); run `ssp data manifest` again") from None


def manifest_hash(path: Path) -> str:
    """16 hex digits that change with any value of a manifest, and with nothing else."""
    return content_hash(read_manifest(path))


def content_hash(manifest: pd.DataFrame) -> str:
    """The hash of a manifest in memory."""
    return hashlib.sha256(manifest.to_csv(index=False).encode()).hexdigest()[:16]


def class_count(config: Config, dataset: str) -> int:
    """Classes of a data set, outputs of the head: as the config says, or as the manifest of own videos has them.

    Where the data are gone, the manifest that is kept with results says it.

    Raises:
        DataError: the config does not say it, and there is no manifest yet.
    """
    if expected := config.datasets[dataset].expected:
        return expected.classes
    path, kept = Paths.of(config).manifest(dataset), Paths.of(config).kept_manifest(dataset)
    return int(read_manifest(kept if kept.is_file() and not path.is_file() else path)["label"].max()) + 1


def class_names(manifest: pd.DataFrame, classes: int | None = None) -> dict[int, str]:
    """Names of all classes by number; one that no video is listed of is called by its number.

    Args:
        manifest: columns label and class_name are read.
        classes: how many there are; None: as many as have videos.
    """
    named = dict(manifest[["label", "class_name"]].drop_duplicates("label").itertuples(index=False))
    return {label: named.get(label, f"class {label}") for label in range(classes or max(named) + 1)}


def own_tree(videos: Path) -> Tree:
    """Own videos: what is in their folder, or in the folder of the CSV that lists them; hidden files are not.

    Raises:
        DataError: there is no such folder or table, or it cannot be read.
    """
    if not videos.exists():
        raise DataError(f"{videos}: no such file or folder; mend the path of your videos")
    folder = videos if videos.is_dir() else videos.parent
    files = [file.relative_to(folder).as_posix() for file in walk(folder)]
    seen = [file for file in files if not any(part.startswith(".") for part in file.split("/"))]
    return Tree(folder, seen if videos.is_dir() else [videos.name, *(f for f in seen if not f.endswith(".csv"))])


def tabulate(
    listing: Listing, splits: list[str], tree: Tree, processes: int, limit_s: float
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Read the headers of the listed videos.

    Args:
        listing: the videos.
        splits: the split of each.
        tree: their files.
        processes: see `ssp.data.headers.read_headers`.
        limit_s: see there.

    Returns:
        The manifest, and the videos that cannot be opened, as {id, reason}.

    Raises:
        DataError: a file cannot be read at all, or a video has no such segment.
    """
    manifest = pd.DataFrame([vars(entry) for entry in listing.entries]).assign(split=splits)
    headers = _headers(tree, manifest["path"].tolist(), processes, limit_s)
    for column in Probe._fields:
        manifest[column] = [getattr(header.probe, column) for header in headers]
    manifest["sha256"] = [header.sha256 for header in headers]
    columns = COLUMNS
    if manifest["segment"].notna().any():
        spans = [_frames_of(entry, header.probe) for entry, header in zip(listing.entries, headers, strict=True)]
        manifest["first"], manifest["stop"], manifest["frames"] = zip(*spans, strict=True)
        columns = COLUMNS | SEGMENT
    broken = [
        {"id": name, "reason": header.reason}
        for name, header in zip(manifest["id"], headers, strict=True)
        if header.reason
    ]
    return manifest[list(columns)].astype(columns), broken


def carve_splits(listing: Listing, settings: Dataset) -> list[str]:
    """The split of each video: as it is said, or test carved from all; validation is carved from what is left.

    Raises:
        DataError: own videos have no split, or two, or none of them is in train or test.
    """
    manifest = pd.DataFrame([vars(entry) for entry in listing.entries])
    split = manifest["split"]
    given = split.notna().all()
    if given == (settings.test is not None):
        raise DataError(
            "the videos have a split, and the config carves another; remove `test`, or the split"
            if given
            else "the videos have no split; give one, or carve test: `test: {fraction: 0.25, seed: 0}`"
        )
    held = {"test": settings.test} if settings.test else {}
    if not (split == "val").any():  # own videos may bring theirs
        held |= {"val": settings.validation}
    split = split.fillna("train")
    for name, how in held.items():
        train = split.index[split == "train"]
        rows = manifest.loc[train]
        split[train[carve(rows["label"].to_numpy(), rows["group"].to_numpy(), how.fraction, how.seed)]] = name
    for name in ("train", "test"):
        if settings.videos and not (split == name).any():
            raise DataError(
                f"no video for {name}; where test is carved, some class needs a second group (see `layout`, or the "
                "column group)"
            )
    return split.tolist()


def _headers(tree: Tree, files: list[str], processes: int, limit_s: float) -> list[Header]:
    """The header of every file; one that is there several times, by segments, is read once."""
    found: dict[str, Header] = {}
    once = [*dict.fromkeys(files)]
    with progress("reading headers of videos") as show:
        for file, header in zip(once, read_headers(tree.folder, once, processes, limit_s), strict=True):
            found[file] = header
            show(len(found), len(once))
    return [found[file] for file in files]


def _frames_of(entry: Entry, video: Probe) -> tuple[int, int, int]:
    """First frame, the one behind the last, and how many frames of its video an entry has."""
    if entry.segment is None or not video.frames:
        return 0, TO_END, video.frames
    if not video.fps:
        raise DataError(f"{entry.path}: announces no frame rate, so that seconds say no frame; cut its segments out")
    start, end = entry.segment
    first = round(start * video.fps)
    stop = video.frames if end is None else round(end * video.fps)
    if first >= min(stop, video.frames) or stop > video.frames + video.fps:  # a second beyond the end: rounded
        seconds = video.frames / video.fps
        raise DataError(f"'{entry.id}': no such segment, the video has {seconds:.1f} s; mend its start and end")
    stop = min(stop, video.frames)
    return first, TO_END if end is None else stop, stop - first


def _unpacked_tree(paths: Paths, dataset: str) -> Tree:
    path = paths.unpacked(dataset)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `ssp data unpack` for {dataset} first")
    try:
        members = [member[0] for member in read_json(path)["members"]]
    except (KeyError, TypeError, IndexError):
        raise DataError(f"{path}: not a list of unpacked files; run `ssp data unpack` for {dataset} again") from None
    return Tree(paths.videos(dataset), members)


def _compare(listing: Listing, splits: list[str], tree: Tree, expected: Expected | None) -> dict[str, Any]:
    """What annotation, disk and config say, side by side; `problem` is null or one line."""
    on_disk = set(tree.videos)
    there = [split for entry, split in zip(listing.entries, splits, strict=True) if entry.path in on_disk]
    missing = [entry.path for entry in listing.entries if entry.path not in on_disk]
    missing_unused = sorted(listing.unused - on_disk)  # no result needs them: an error where `clips` counts them
    listed = {entry.path for entry in listing.entries} | listing.unused
    extra = sorted(on_disk - listed)
    found = {
        "classes": len(listing.classes),
        "train": sum(split != "test" for split in there),
        "test": sum(split == "test" for split in there),
        "clips": len(on_disk),
    }
    wanted = expected.model_dump() if expected else {}
    different = [f"{found[name]} {name}, expected {wanted[name]}" for name in wanted if found[name] != wanted[name]]
    problem = None
    if missing:
        problem = f"{len(missing)} listed videos are not among the unpacked files, the first is '{missing[0]}'"
    elif different:
        problem = "; ".join(different)
    return {
        "problem": problem,
        "expected": wanted or None,
        "found": found,
        "missing": missing + missing_unused,
        "extra": extra,
        "unused_count": len(listing.unused & on_disk),
    }
