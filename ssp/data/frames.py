"""The frame store: every video decoded once, into JPEG frames in LMDB files, one per shard.

Design choices
- A video is one value: all its JPEGs and where each begins. Reading a frame touches its pages of the memory map and no
  others; a value per frame would be rounded up to pages of 4 KiB.
- Row i of the manifest is in shard i % shards, under key i. A shard says which extraction it belongs to, so a store
  that does not go with the manifest is noticed.
- The videos of a shard are decoded by as many children as the job has threads, and written in the manifest's order.
- A broken video goes into the shard's report with its reason and is never replaced by another.
- A shard is written under a temporary name, flushed to disk, and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pandas as pd

from ssp.config import Config, slice_hash
from ssp.data import jpegs
from ssp.data.children import Children
from ssp.data.manifest import TO_END, class_count, content_hash, read_manifest
from ssp.data.video import Span, VideoError
from ssp.errors import DataError, first_line
from ssp.files import atomic_path, write_json
from ssp.paths import Paths, videos_of
from ssp.progress import progress

META = b"meta-2"  # 2: with a checksum a frame


def extract_shard(config: Config, dataset: str, shard: int) -> None:
    """Decode the videos of one shard into an LMDB file and write its report.

    Raises:
        DataError: the manifest is missing, the shard number is not one of the config's, or too many videos are broken.
    """
    settings, paths = config.datasets[dataset].frames, Paths.of(config)
    if not 0 <= shard < settings.shards:
        raise DataError(f"{dataset}: shard {shard} is outside 0..{settings.shards - 1}, see datasets.{dataset}.frames")
    manifest = read_manifest(paths.manifest(dataset))
    rows = range(shard, len(manifest), settings.shards)
    target, report_path = paths.shard(dataset, shard), paths.shard_report(dataset, shard)
    broken, total = [], 0
    for path in (target, report_path):
        path.unlink(missing_ok=True)
    with (
        atomic_path(target) as temporary,
        ShardWriter(temporary) as writer,
        Children(
            config.compute.data.threads,
            partial(jpegs.pack_video, short_side=settings.short_side, quality=settings.jpeg_quality),
            settings.timeout_s,
        ) as decoders,
        progress(f"frames of {dataset}, shard {shard}") as report,
    ):
        folder = videos_of(config, dataset)
        spans = (_span(folder, manifest, row) for row in rows)
        for done, (row, record) in enumerate(zip(rows, decoders.map(spans), strict=True), start=1):
            if isinstance(record, VideoError):
                broken.append({"id": manifest["id"][row], "reason": str(record)})
            else:
                writer.put_video(row, record)
                total += jpegs.count(record)
            report(done, len(rows))
        share = len(broken) / max(1, len(rows))
        made = {"shard": shard, "config_hash": slice_hash(config.frames_slice(dataset))}
        write_json(report_path, made | {"videos": len(rows), "frames": total, "broken": broken})
        if share > settings.max_broken:
            names = ", ".join(video["id"] for video in broken[:3]) + (", ..." if len(broken) > 3 else "")
            raise DataError(
                f"{dataset}: {len(broken)} of {len(rows)} videos of shard {shard} cannot be decoded ({names}), more "
                f"than frames.max_broken allows; {report_path} has the reasons, fetch again or raise the limit"
            )
        made_by = settings.model_dump(include={"shards", "short_side", "jpeg_quality"})
        writer.put_meta({"manifest": content_hash(manifest), "shard": shard} | made_by)
    _environments.pop(target.absolute(), None)


def _span(folder: Path, manifest: pd.DataFrame, row: int) -> Span:
    """The frames of a row: of the whole video, unless the manifest has segments."""
    path = folder / manifest["path"][row]
    if "first" not in manifest:
        return Span(path)
    first, stop = int(manifest["first"][row]), int(manifest["stop"][row])
    return Span(path, first, None if stop == TO_END else stop)


class FrameStore:
    """Random access to the frames of a data set.

    Opened lazily, once per process: objects can be pickled and used after a fork.

    Args:
        folder: holds `shard-<k>.lmdb` of all shards.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._meta: dict[str, Any] | None = None
        self._paths: dict[int, Path] = {}  # of shards
        self._lengths: dict[int, int] = {}  # of the videos that have been asked for

    def read(self, row: int, indices: Sequence[int]) -> np.ndarray:
        """Decode frames of the video in row `row` of the manifest.

        Returns:
            uint8 (len(indices), H, W, 3) RGB.

        Raises:
            DataError: the video could not be decoded when frames were extracted, or its frames were damaged since.
            IndexError: an index outside 0..n-1.
        """
        with self._reading(row) as transaction:
            return jpegs.unpack(self._record(transaction, row), indices)

    def length(self, row: int) -> int:
        """Number of frames of a video.

        Raises:
            DataError: the video could not be decoded when frames were extracted.
        """
        if row not in self._lengths:  # asked for again in each epoch
            with self._reading(row) as transaction:
                self._lengths[row] = jpegs.count(self._record(transaction, row))
        return self._lengths[row]

    def rows(self) -> set[int]:
        """Rows of the manifest whose videos could be decoded."""
        found = set()
        for shard in range(self.meta["shards"]):
            with self._reading(shard) as transaction, transaction.cursor() as cursor:
                keys = (bytes(key) for key in cursor.iternext(values=False))
                found.update(int.from_bytes(key, "big") for key in keys if key != META)
        return found

    @property
    def meta(self) -> dict[str, Any]:
        """What the store was made from: hash of the manifest, shards, short_side, jpeg_quality."""
        if self._meta is None:
            path = (self.folder / "shard-0.lmdb").absolute()
            self._meta = _read_meta(_open_environment(path), path)
        return self._meta

    @contextmanager
    def _reading(self, row: int) -> Iterator[lmdb.Transaction]:
        """A transaction in the shard of a row."""
        path, environment = self._shard(row % self.meta["shards"])
        with _no_damage(path), environment.begin(buffers=True) as transaction:
            yield transaction

    def _shard(self, shard: int) -> tuple[Path, lmdb.Environment]:
        """A shard's file, and what it is open as in this process."""
        path = self._paths.get(shard)
        if path is None:  # kept, as making paths would take longer than finding a record
            path = self._paths[shard] = (self.folder / f"shard-{shard}.lmdb").absolute()
        return path, _open_environment(path, self.meta | {"shard": shard})

    def _record(self, transaction: lmdb.Transaction, row: int) -> memoryview:
        record = transaction.get(_key(row))
        if record is None:
            raise DataError(f"{self.folder}: no frames of video {row}; the shard's report says why")
        return record

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_meta": self._meta, "_paths": {}, "_lengths": {}}


# LMDB must open a file once per process, and not use it across a fork: one table for all stores of this process.
_environments: dict[Path, lmdb.Environment] = {}
_owner = os.getpid()


def _open_environment(path: Path, meta: dict[str, Any] | None = None) -> lmdb.Environment:
    """The environment of a shard (absolute), opened at first use; it must be of the same extraction as `meta`."""
    global _environments, _owner
    if _owner != os.getpid():
        _environments, _owner = {}, os.getpid()  # the parent's stay open and are not touched
    if path not in _environments:
        try:
            environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{path}: cannot be opened ({error}); run `ssp data frames` for this shard") from None
        pages, found = environment.info()["last_pgno"] + 1, path.stat().st_size
        if found < pages * environment.stat()["psize"]:  # reading on would kill the process (SIGBUS)
            environment.close()
            raise DataError(f"{path}: cut off; run `ssp data frames` for this shard again")
        if meta is not None and _read_meta(environment, path) != meta:
            environment.close()
            raise DataError(f"{path}: belongs to another extraction than its neighbours; run `ssp data frames` again")
        _environments[path] = environment
    return _environments[path]


def forget_open_shards() -> None:
    """Open every shard anew at its next use: for a process in which other commands may have replaced the files."""
    _environments.clear()


@contextmanager
def _no_damage(path: Path) -> Iterator[None]:
    """A block that reads a shard.

    Raises:
        DataError: what it holds is damaged.
    """
    try:
        yield
    except (lmdb.Error, ValueError) as error:
        reason = first_line(error)
        raise DataError(f"{path}: damaged ({reason}); delete it and run `ssp data frames` again") from None


def _read_meta(environment: lmdb.Environment, path: Path) -> dict[str, Any]:
    with _no_damage(path), environment.begin() as transaction:
        meta = transaction.get(META)
    if meta is None:
        raise DataError(f"{path}: not a shard of a frame store of this version; delete it and run again")
    return json.loads(meta)


def _key(row: int) -> bytes:
    return row.to_bytes(8, "big")


class ShardWriter:
    """The LMDB file of a shard, as a context; it grows as needed."""

    def __init__(self, path: Path) -> None:
        # No lock file and no flush per video: the file is nobody else's until it gets its name.
        self._environment = lmdb.open(str(path), subdir=False, lock=False, sync=False, map_size=1 << 26)

    def put_video(self, row: int, record: bytes) -> None:
        """Write the frames of the video in a row of the manifest, packed by `ssp.data.jpegs`."""
        self._put(_key(row), record)

    def put_meta(self, meta: dict[str, Any]) -> None:
        """Write which extraction the shard belongs to."""
        self._put(META, json.dumps(meta).encode())

    def _put(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"] + len(value))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.sync(True)
        self._environment.close()


def load_split(config: Config, dataset: str, split: str) -> pd.DataFrame:
    """The readable videos of a split, or of training and validation together ("trainval").

    Returns:
        Rows of the manifest (see `ssp.data.manifest.COLUMNS`) with the column `row`, their number there, which is the
        frame store's key. `attrs["videos"]` counts the videos of the split, `attrs["broken"]` names those left out.

    Raises:
        DataError: manifest or frame store are missing, do not belong together, or the split is empty.
    """
    paths = Paths.of(config)
    manifest = read_manifest(paths.manifest(dataset))
    store = FrameStore(paths.frames(dataset))
    if store.meta["manifest"] != content_hash(manifest):
        raise DataError(f"{store.folder}: made from another manifest; run `ssp data frames` for {dataset} again")
    rows = manifest.assign(row=np.arange(len(manifest)))
    rows = rows[rows["split"].isin(["train", "val"] if split == "trainval" else [split])]
    readable = rows["row"].isin(store.rows())
    kept = rows[readable].reset_index(drop=True)
    if kept.empty:
        raise DataError(
            f"{dataset}: no readable video in split '{split}'; see {paths.manifest(dataset)} and its report"
        )
    classes = class_count(config, dataset)
    if not kept["label"].between(0, classes - 1).all():
        raise DataError(
            f"{paths.manifest(dataset)}: a label is outside the {classes} classes; run `ssp data manifest` again"
        )
    kept.attrs = {"videos": len(rows), "broken": rows.loc[~readable, "id"].tolist()}
    return kept
