"""The manifest: one row per video of the published split, as a Parquet table that everything later relies on.

Design choices
- Videos come from the annotation, not from what happens to be on disk; what is missing or too much is listed in a
  report beside the manifest. A video of the split that is not there is an error, and so are counts that differ from
  the config's `expected`.
- A video that cannot be opened keeps its row (frames 0), so a test set never shrinks unnoticed: the report names it,
  and `load_split` leaves it out and says so.
- The hash is over the content of the table, not over Parquet bytes, which change with the library's version.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from ssp.config import Config, Expected, slice_hash
from ssp.data.headers import read_headers
from ssp.data.sources import Listing, Tree, read_json, read_listing
from ssp.data.validation import carve_validation
from ssp.data.video import Probe
from ssp.errors import DataError
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
    tree = _unpacked_tree(paths, config.column_of(dataset))
    listing = read_listing(settings.source, tree, settings.split, settings.stereo_channels)
    report = _compare(listing, tree, settings.expected)
    report_path = paths.manifest_report(dataset)
    if problem := report["problem"]:
        write_json(report_path, report)
        raise DataError(f"{dataset}: {problem}; {report_path} lists the videos, check archives and expected counts")

    manifest = pd.DataFrame([vars(entry) for entry in listing.entries])
    train = (manifest["split"] == "train").to_numpy()
    carve = settings.validation
    held_out = carve_validation(
        manifest.loc[train, "label"].to_numpy(), manifest.loc[train, "group"].to_numpy(), carve.fraction, carve.seed
    )
    manifest.loc[manifest.index[train][held_out], "split"] = "val"
    files, headers = manifest["path"].tolist(), []
    with progress("reading headers of videos") as show:
        for header in read_headers(tree.folder, files, config.compute.data.threads, settings.frames.timeout_s):
            headers.append(header)
            show(len(headers), len(files))
    for column in Probe._fields:
        manifest[column] = [getattr(header.probe, column) for header in headers]
    manifest["sha256"] = [header.sha256 for header in headers]
    manifest = manifest[list(COLUMNS)].astype(COLUMNS)

    validated = set(manifest.loc[manifest["split"] == "val", "class_name"])
    report |= {
        "splits": {split: int((manifest["split"] == split).sum()) for split in ("train", "val", "test")},
        "classes_without_validation": [name for name in listing.classes if name not in validated],
        "broken": [
            {"id": name, "reason": header.reason}
            for name, header in zip(manifest["id"], headers, strict=True)
            if header.reason
        ],
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
        return manifest[list(COLUMNS)].astype(COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable manifest ({reason}); run `ssp data manifest` again") from None


def manifest_hash(path: Path) -> str:
    """16 hex digits that change with any value of a manifest, and with nothing else."""
    return content_hash(read_manifest(path))


def content_hash(manifest: pd.DataFrame) -> str:
    """The hash of a manifest in memory."""
    return hashlib.sha256(manifest.to_csv(index=False).encode()).hexdigest()[:16]


def _unpacked_tree(paths: Paths, dataset: str) -> Tree:
    path = paths.unpacked(dataset)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run `ssp data unpack` for {dataset} first")
    try:
        members = [member[0] for member in read_json(path)["members"]]
    except (KeyError, TypeError, IndexError):
        raise DataError(f"{path}: not a list of unpacked files; run `ssp data unpack` for {dataset} again") from None
    return Tree(paths.videos(dataset), members)


def _compare(listing: Listing, tree: Tree, expected: Expected) -> dict[str, Any]:
    """What annotation, disk and config say, side by side; `problem` is null or one line."""
    on_disk = set(tree.videos)
    missing = [entry.path for entry in listing.entries if entry.path not in on_disk]
    missing_unused = sorted(listing.unused - on_disk)  # no result needs them: an error where `clips` counts them
    listed = {entry.path for entry in listing.entries} | listing.unused
    extra = sorted(on_disk - listed)
    found = {
        "classes": len(listing.classes),
        "train": sum(entry.split == "train" and entry.path in on_disk for entry in listing.entries),
        "test": sum(entry.split == "test" and entry.path in on_disk for entry in listing.entries),
        "clips": len(on_disk),
    }
    wanted = expected.model_dump()
    different = [f"{found[name]} {name}, expected {wanted[name]}" for name in wanted if found[name] != wanted[name]]
    problem = None
    if missing:
        problem = f"{len(missing)} listed videos are not among the unpacked files, the first is '{missing[0]}'"
    elif different:
        problem = "; ".join(different)
    return {
        "problem": problem,
        "expected": wanted,
        "found": found,
        "missing": missing + missing_unused,
        "extra": extra,
        "unused_count": len(listing.unused & on_disk),
    }
