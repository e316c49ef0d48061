"""Writes the archives of a generated data set: real video files in the published layout, from a seed.

- Clips are rendered and encoded in parallel processes; the bytes do not depend on how many.
- Archives are streamed member by member with fixed dates and owners, and take their names only when all are complete;
  each says for itself that it cannot be written, or the last of them would take the blame.
- Something-Something V2 comes as numbered parts of one tar.gz, cut wherever the byte count says, as published.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import numpy as np

from ssp.config import Config, Generate
from ssp.data.synthetic.encode import Format, encode
from ssp.data.synthetic.plans import SESSIONS, TEST_SUBJECTS, TRAIN_SUBJECTS, Plan, Planned, plan
from ssp.data.synthetic.render import View
from ssp.data.synthetic.scenes import CLASSES, DIFFICULTY
from ssp.data.synthetic.staging import stage
from ssp.errors import ConfigError
from ssp.files import atomic_path, writing
from ssp.progress import progress

ZIP_DATE = (2000, 1, 1, 0, 0, 0)


def frames_of(source: str, generate: Generate, clip: Planned) -> np.ndarray:
    """Render a planned clip: uint8 (T, H, W, 3)."""
    view = None
    if clip.view is not None:
        view = View.draw(np.random.default_rng(clip.view), DIFFICULTY[source].view)
    return stage(
        source,
        clip.label,
        frames=clip.frames,
        fps=generate.fps,
        size=generate.size,
        scene=clip.scene,
        take=np.random.default_rng(clip.take),
        camera=np.random.default_rng(clip.camera),
        view=view,
    )


def generate_archives(config: Config, dataset: str) -> list[Path]:
    """Write the archives of a generated data set into its `local` folder.

    Returns:
        The files, in the order of the config's `archives`.

    Raises:
        ConfigError: the data set is not one that is generated, or its sizes or archive names contradict the layout.
    """
    chosen = config.archived[dataset]
    generate = chosen.generate
    if generate is None or chosen.local is None:
        raise ConfigError(f"datasets.{dataset}: give both `generate` and `local` to have its archives generated")
    _check(config, dataset)
    content = plan(chosen.source, generate)
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_path(chosen.local / archive.file)) for archive in chosen.archives]
        videos = _videos(chosen.source, generate, content, config.compute.data.threads)
        _WRITERS[chosen.source](files, videos, content.annotations)
    return [chosen.local / archive.file for archive in chosen.archives]


def _check(config: Config, dataset: str) -> None:
    chosen = config.archived[dataset]
    generate, expected, source = chosen.generate, chosen.expected, chosen.source
    classes = generate.classes or CLASSES[source]
    made = {"classes": classes, "train": generate.train, "test": generate.test}
    for key, number in made.items():
        wanted = getattr(expected, key)
        if wanted != number:
            raise ConfigError(
                f"datasets.{dataset}.expected.{key}: {wanted}, but {number} are generated; make them equal"
            )
    least = 2 * min(2, classes) if generate.classes else 2 * classes
    if generate.train < least or (generate.test < least and not generate.classes):
        raise ConfigError(f"datasets.{dataset}.generate: train and test must be at least {least}, two videos a class")
    if generate.size[0] % 2 or generate.size[1] % 2 or min(generate.size) < 32:
        raise ConfigError(f"datasets.{dataset}.generate.size: width and height must be even and at least 32")
    if not 0 < generate.seconds[0] <= generate.seconds[1]:
        raise ConfigError(f"datasets.{dataset}.generate.seconds: give the shortest, then the longest duration")
    if source == "breakfast":
        for key, subjects in (("train", TRAIN_SUBJECTS), ("test", TEST_SUBJECTS)):
            most = len(subjects) * 2 * len(SESSIONS) * CLASSES[source]
            if getattr(generate, key) > most:
                raise ConfigError(f"datasets.{dataset}.generate.{key}: the layout holds at most {most} videos")
    names, suffixes = [archive.file for archive in chosen.archives], _SUFFIXES[source]
    fits = len(names) >= len(suffixes) if source == "ssv2" else len(names) == len(suffixes)
    if not (fits and names[-1].endswith(suffixes[-1]) and names[0].endswith(suffixes[0])):
        kinds = ", ".join(suffix or "numbered parts" for suffix in suffixes)
        raise ConfigError(f"datasets.{dataset}.archives: this layout comes as {kinds}, in that order")


# The file kinds of a layout: videos first, annotations last. SSv2's parts have no suffix.
_SUFFIXES = {
    "hmdb51": (".zip", ".zip"),
    "ucf101": (".zip", ".zip"),
    "ssv2": ("", ".zip"),
    "breakfast": (".tar.gz",),
}


def _videos(source: str, generate: Generate, content: Plan, processes: int) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each video, in the plan's order."""
    jobs = [(source, generate, clip, content.form) for clip in content.clips]
    with ExitStack() as stack:
        update = stack.enter_context(progress(f"generate {source}"))
        results = map(_make, jobs)
        if processes > 1:
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context("spawn")))
            results = pool.map(_make, jobs, chunksize=8)
        for done, video in enumerate(results, start=1):
            yield video
            update(done, len(jobs))


def _make(job: tuple[str, Generate, Planned, Format]) -> tuple[str, bytes]:
    source, generate, clip, form = job
    return clip.path, encode(frames_of(source, generate, clip), generate.fps, form, clip.fullness)


def _write_zips(files: list[Path], videos: Iterable[tuple[str, bytes]], annotations: dict[str, bytes]) -> None:
    _write_zip(files[0], videos)
    _write_zip(files[1], sorted(annotations.items()))


def _write_zip(file: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with writing(file), zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)


def _write_parts(files: list[Path], videos: Iterable[tuple[str, bytes]], annotations: dict[str, bytes]) -> None:
    """All but the last file are parts of one tar.gz of equal length, the last is the zip of the labels."""
    *parts, labels = files
    with writing(parts[0]), tempfile.TemporaryFile(dir=labels.parent) as whole:
        _stream_tar_gz(whole, videos)
        length = -(-whole.tell() // len(parts))
        whole.seek(0)
        for part in parts:
            with writing(part):
                part.write_bytes(whole.read(length))
    _write_zip(labels, sorted(annotations.items()))


def _write_tar_gz(files: list[Path], videos: Iterable[tuple[str, bytes]], annotations: dict[str, bytes]) -> None:
    """One tar.gz; this layout has no annotation files."""
    with writing(files[0]), files[0].open("wb") as raw:
        _stream_tar_gz(raw, videos)


def _stream_tar_gz(raw: IO[bytes], videos: Iterable[tuple[str, bytes]]) -> None:
    with (
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in videos:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))


_WRITERS = {"hmdb51": _write_zips, "ucf101": _write_zips, "ssv2": _write_parts, "breakfast": _write_tar_gz}
