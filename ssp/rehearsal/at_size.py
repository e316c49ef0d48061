"""One optimizer step of each row at the config's own size, where a stand-in has smaller pictures.

- Frames, picture size, classes and options are the config's; one video, once. So what only breaks at that size shows,
  and how much memory a row takes at least.
- A data set for each number of frames: the one with most classes.
- What was found is kept in a file of the rehearsal's folder, so that a rehearsal that was killed goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from ssp.config import Config, parse_config, slice_hash
from ssp.data.manifest import class_count
from ssp.errors import DataError
from ssp.files import json_text, write_text
from ssp.jobs.costs import Setting, peak_memory, setting_of
from ssp.rehearsal.broken import Broken
from ssp.rehearsal.derive import Plain
from ssp.training.failure import TrainingFailed

FILE = "at_size.json"


def at_size(derived: Plain, folder: Path, image_size: int, threads: int) -> Config:
    """The stand-in in a folder, with pictures of the config's size and one clip a video."""
    plain = deepcopy(derived)
    plain["data_root"] = str(folder / plain["data_root"])
    plain["backbone"]["image_size"] = image_size
    for dataset in plain["datasets"].values():
        dataset["recipe"].setdefault("augmentation", {})["repeats"] = 1
    plain["compute"]["train"]["threads"] = threads
    return parse_config(plain, "at size")


def take_steps(config: Config, folder: Path, say: Callable[[str], None]) -> list[Broken]:
    """Take those steps that have not been taken yet; returns the rows that broke.

    Args:
        config: from `at_size`.
        folder: of the rehearsal.
        say: is told each row with its memory.
    """
    file, size = folder / FILE, config.backbone.image_size
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    broken = []
    for dataset, classes, row in _steps(config):
        frames = config.datasets[dataset].clips.num_frames
        job = f"step of {row} at {frames} x {size} x {size}"
        setting = setting_of(config, dataset, row)
        key = f"{job} {_identity(config, setting)}"
        if key not in known:
            found = known[key] = _step(setting)
            write_text(file, json_text(known))
            say(f"{job}, {classes} classes: {found if isinstance(found, str) else f'{found / 1e9:.1f} GB'}")
        if isinstance(known[key], str):
            broken.append(Broken(job, known[key], file))
    return broken


def _identity(config: Config, setting: Setting) -> str:
    """Hash of what a step depends on beside its size."""
    backbone = config.backbone.model_dump(mode="json", include={"architecture"})
    return slice_hash(backbone | {key: getattr(setting, key) for key in ("method", "options", "drop_path")})


def _step(setting: Setting) -> int | str:
    """Bytes that a step takes, or why there is none."""
    try:
        found = peak_memory(setting, videos=1, steps=1)
    except Exception as error:  # whatever a row's own code raises is what is looked for
        return f"{type(error).__name__}: {error}"
    return str(found) if isinstance(found, TrainingFailed) else found


def _steps(config: Config) -> Iterator[tuple[str, int, str]]:
    """Data set, its classes, and row of each step; those of short clips first."""
    widest: dict[int, tuple[int, str]] = {}
    for name, dataset in config.datasets.items():
        with suppress(DataError):  # own videos that could not be listed
            classes, frames = class_count(config, name), dataset.clips.num_frames
            widest[frames] = max(widest.get(frames, (0, "")), (classes, name))
    for _, (classes, name) in sorted(widest.items()):
        yield from ((name, classes, row) for row in config.methods)
