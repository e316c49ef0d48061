"""What `ssp predict` does: which videos are meant, which model names them, and an answer for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ssp.config import Config
from ssp.data.archives import walk
from ssp.data.sources import VIDEO_SUFFIXES
from ssp.data.video import read_stream
from ssp.errors import ConfigError, DataError
from ssp.figures.timeline import write_timeline
from ssp.files import write_text
from ssp.jobs.cell import Cell
from ssp.methods.observe import check_explainable
from ssp.methods.registry import load_method
from ssp.progress import progress
from ssp.tables.long import to_csv
from ssp.use.loading import load
from ssp.use.predictor import Named, Predictor, Window
from ssp.use.run import load_run


@dataclass(frozen=True)
class Asked:
    """What is asked of which videos.

    Raises:
        ConfigError: a file is not there, options do not go together, or two videos would be written to one place.
    """

    given: Sequence[Path]
    top: int = 5
    window: float | None = None
    step: float | None = None
    out: Path | None = None
    explain: Path | None = None

    def __post_init__(self) -> None:
        files = self.files  # before a model is read, which takes longer
        if self.window is None and (self.step is not None or self.out is not None):
            raise ConfigError("--step, --out: they are of windows; give --window, too")
        if self.is_stream:
            if len(self.given) > 1 or self.out is not None or self.window is None:
                raise ConfigError(
                    f"{self.given[0]}: a pipe is named as it comes; give it alone, with --window, no --out"
                )
        elif self.window is not None:
            if self.out is None:
                raise ConfigError("--window: give --out, too, a folder for the CSV and the PNG of each video")
            if len(set(self.places.values())) < len(files):
                raise ConfigError(
                    f"--out: videos of the same name would go to one file in {self.out}; give one at a time"
                )
        if self.explain is not None:
            if len(files) > 1 or self.window is not None:
                raise ConfigError("--explain: one picture is of one video, as a whole; give one, without --window")
            if self.explain.suffix.lower() != ".png":
                raise ConfigError(f"--explain: {self.explain}: the picture is a PNG; give a name that ends in .png")

    @property
    def is_stream(self) -> bool:
        """Whether it is a pipe, whose end nobody knows."""
        return any(path.is_fifo() for path in self.given)

    @cached_property
    def files(self) -> dict[Path, str]:
        """Files as they are given, and the video files below folders, sorted; by file its path below the folder.

        Raises:
            ConfigError: there is no such file or folder, or no video below a folder.
        """
        found: dict[Path, str] = {}
        for path in self.given:
            if not path.exists():
                raise ConfigError(f"{path}: no such file or folder; give videos, or folders of them")
            if not path.is_dir():
                found[path] = path.name
                continue
            below = [file for file in walk(path) if file.name.lower().endswith(VIDEO_SUFFIXES)]
            if not below:
                raise ConfigError(f"{path}: no video below it; taken are names in {', '.join(VIDEO_SUFFIXES)}")
            found |= {file: file.relative_to(path).as_posix() for file in sorted(below)}
        return found

    @property
    def places(self) -> dict[Path, Path]:
        """Where the files of each video go, with .csv and .png behind it."""
        return {file: self.out / name for file, name in self.files.items()}


@dataclass(frozen=True)
class Answer:
    """What came out of a video, or of a window of a stream."""

    file: Path
    classes: list[Named] = field(default_factory=list)
    window: Window | None = None
    csv: Path | None = None
    png: Path | None = None
    error: str | None = None

    def json(self) -> str:
        """One line."""
        plain = {"file": str(self.file)}
        if self.window:
            plain |= {"start": self.window.start, "end": self.window.end}
        if self.csv:
            plain |= {"csv": str(self.csv), "png": str(self.png)}
        else:
            plain["classes"] = [{"class": name, "probability": probability} for name, probability in self.classes]
        return json.dumps(plain | {"error": self.error}, ensure_ascii=False)

    def text(self, *, named: bool) -> str:
        """Lines for people; `named`: the file's name first."""
        if self.csv:
            return f"{self.csv}\n{self.png}"
        lines = [f"{100 * probability:6.2f} %  {name}" for name, probability in self.classes]
        if self.window:
            return f"{self.window.start:8.1f} s to {self.window.end:8.1f} s  {lines[0]}"
        return "\n".join([str(self.file), *lines] if named else lines)


def chosen_predictor(
    asked: Asked, config: Config | None, folder: Path | None, dataset: str | None, row: str | None, seed: int
) -> Predictor:
    """The predictor that a command line names, by a config or by a folder.

    Raises:
        ConfigError, RecordError, CheckpointError: as `ssp.load`; or not exactly one of config and folder is given, or
            a picture is asked for and the row is not one of SSP.
    """
    if (config is None) == (folder is None):
        raise ConfigError("ssp predict: give --config with --dataset and --method, or --from with a folder")
    if folder is not None:
        predictor = load(folder, dataset, row, seed)
        if asked.explain is not None:
            check_explainable(predictor.model.method)
        return predictor
    if dataset is None or row is None:
        raise ConfigError("ssp predict: --config has several models; give --dataset and --method, too")
    if asked.explain is not None:  # before anything is read that takes time
        cell = Cell(config, dataset, row)
        check_explainable(load_method(cell.row.method)(cell.options({})))
    return load_run(config, dataset, row, seed).predictor


def answers(predictor: Predictor, asked: Asked) -> Iterator[Answer]:
    """An answer for each video, or for each window of a stream, as they come.

    Raises:
        ConfigError: a window or a step is shorter than a frame.
        StorageError: a file cannot be written.
    """
    if asked.is_stream:
        yield from _of_stream(predictor, asked)
    elif asked.window is not None:
        yield from _of_windows(predictor, asked)
    else:
        yield from _of_videos(predictor, asked)


def _of_videos(predictor: Predictor, asked: Asked) -> Iterator[Answer]:
    files = list(asked.files)
    with progress("videos") as on_video:
        for done, (file, classes, error) in enumerate(predictor.predict_many(files, asked.top), start=1):
            if asked.explain is not None and error is None:
                predictor.explain(file, asked.explain, Path(file).name)
            yield Answer(file, classes, error=error)
            on_video(done, len(files))


def _of_windows(predictor: Predictor, asked: Asked) -> Iterator[Answer]:
    for file, place in asked.places.items():
        csv, png = (place.with_name(f"{place.name}{suffix}") for suffix in (".csv", ".png"))
        try:
            windows = predictor.timeline(file, asked.window, asked.step)
        except DataError as error:
            yield Answer(file, error=str(error))
            continue
        write_timeline(windows, file.name, png)
        write_text(csv, to_csv(windows))
        yield Answer(file, csv=csv, png=png)


def _of_stream(predictor: Predictor, asked: Asked) -> Iterator[Answer]:
    (file,) = asked.given
    try:
        with read_stream(file, predictor.reading.short_side) as (fps, frames):
            for window in predictor.stream(frames, fps, asked.window, asked.step):
                yield Answer(file, [Named(window.name, window.probability)], window)
    except DataError as error:
        yield Answer(file, error=str(error))
