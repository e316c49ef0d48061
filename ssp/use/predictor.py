"""A tuned model that names the classes of videos: of files, of frames in memory, of a stream without end.

Design choices
- A video is sampled, cropped and averaged over views exactly like a test video: it is a test set of one. So is a
  window of a long video; no two share a forward pass.
- A file is decoded once, to its end: how many frames it has is known then, and not just announced.
- Of a stream only the frames that an open window samples are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from ssp.backbone.videomamba import VideoMamba
from ssp.config import Clips
from ssp.data.clips import ClipDataset
from ssp.data.sampling import test_indices
from ssp.data.video import iterate_frames, probe, sample_frames, shrink
from ssp.errors import ConfigError, DataError
from ssp.figures.attention import Shown, draw_explanations, frames_of
from ssp.files import atomic_path
from ssp.jobs.inference import central_view
from ssp.methods.observe import explain_clip
from ssp.progress import progress
from ssp.records.record import Stored
from ssp.training.evaluate import predict
from ssp.training.execution import Execution

Video = str | Path | np.ndarray
"""A file, or frames: uint8 (T, H, W, 3) RGB."""


class Named(NamedTuple):
    """A class, and its probability: the mean over a video's test views of each one's softmax."""

    name: str
    probability: float


class Window(NamedTuple):
    """The most probable class of a stretch of a video, from `start` to before `end`, in seconds."""

    start: float
    end: float
    name: str
    probability: float


class Outcome(NamedTuple):
    """What came out of one of many videos: its most probable classes, or why there are none."""

    video: Video
    classes: list[Named]
    error: str | None


class Reading(Stored):
    """How a video is read, as the test videos were."""

    clips: Clips
    image_size: int = Field(description="Side of the square clips in pixels.")
    short_side: int | None = Field(description="Frames are shrunk to this short side first; null: as they are.")
    batch_size: int = Field(description="Views per forward pass.")

    def wanted(self, length: int) -> set[int]:
        """Which frames of so many the views are made of."""
        views = range(self.clips.test_segments)
        return {int(i) for segment in views for i in test_indices(length, self.clips, segment)}


@dataclass(frozen=True)
class _Frames:
    """A frame store of one video, which holds what is asked of it."""

    frames: int
    held: Mapping[int, np.ndarray]

    def length(self, row: int) -> int:
        return self.frames

    def read(self, row: int, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.held[index] for index in indices])


@dataclass(frozen=True)
class _Open:
    """A window whose frames are still coming."""

    first: int
    stop: int
    wanted: set[int]
    held: dict[int, np.ndarray] = field(default_factory=dict)


class Predictor:
    """Names the classes of videos; `ssp.load` makes one.

    Args:
        model: tuned; it is put into evaluation mode.
        classes: names, in the order of the model's outputs.
        reading: how videos become clips.
        execution: where and in which precision forward passes run.
    """

    def __init__(self, model: VideoMamba, classes: Sequence[str], reading: Reading, execution: Execution) -> None:
        self.model, self.classes, self.reading = model.eval(), list(classes), reading
        self.execution = replace(execution, loader_workers=0)  # the frames are here, and no process need be started

    def predict(self, video: Video, top: int = 5) -> list[Named]:
        """The most probable classes of a video, at most `top`, the first the most probable.

        Raises:
            VideoError: the file cannot be decoded to its end.
            DataError: the frames are not uint8 (T, H, W, 3).
            ConfigError: `top` is no positive number.
        """
        _positive("top", top)
        return self._named(self._store(video), top)

    def predict_many(self, videos: Iterable[Video], top: int = 5) -> Iterator[Outcome]:
        """The same for one video after the other, as they come; one that cannot be read says why and stops no other."""
        for video in videos:
            try:
                yield Outcome(video, self.predict(video, top), None)
            except DataError as error:
                yield Outcome(video, [], str(error))

    def timeline(
        self, video: Video, window: float, step: float | None = None, fps: float | None = None
    ) -> pd.DataFrame:
        """The most probable class of each window of a long video.

        Windows begin every `step` seconds. The last one ends where the video ends; of a video that is shorter than a
        window there is one. Times are frame numbers over the mean frame rate.

        Args:
            video: a file, which is decoded once and never held as a whole, or frames.
            window: seconds.
            step: seconds between two starts; None: the windows follow each other.
            fps: frames a second; None: as the file says.

        Returns:
            One row a window, in order: start and end in seconds, class, probability.

        Raises:
            VideoError, DataError, ConfigError: as `predict`; or there is no frame rate, or a window or step is shorter
                than a frame.
        """
        is_file = isinstance(video, str | Path)
        if is_file:
            header = probe(video)
            name, total, fps = Path(video).name, header.frames, fps or header.fps
        else:
            name, total = "frames", len(_checked(video))
        if not fps:
            raise DataError(f"{name}: says no frame rate; give fps, frames a second")
        length, step = _lengths(fps, window, step)
        seen = 0
        while seen != total:  # once, unless the header announced another number of frames
            total = seen or total
            frames = iterate_frames(video, self.reading.short_side) if is_file else iter(video)
            with progress(f"{name}, seconds") as on_second:
                seen, rows = 0, []

                def counted(frames: Iterator[np.ndarray] = frames, on_second=on_second, of: int = total):  # noqa: ANN001, ANN202
                    nonlocal seen
                    for frame in frames:
                        seen += 1
                        if seen % max(1, round(fps)) == 0:
                            on_second(round(seen / fps), max(round(seen / fps), round(of / fps)))
                        yield frame

                rows = [*self._windows(counted(), _spans(length, step * fps, total), fps)]
        return pd.DataFrame(rows, columns=["start", "end", "class", "probability"])

    def stream(
        self, frames: Iterable[np.ndarray], fps: float, window: float, step: float | None = None
    ) -> Iterator[Window]:
        """The most probable class of each window of a stream, which may have no end, as soon as the window is full.

        What is left at the end and fills no window is not named. Memory holds the sampled frames of open windows only.

        Args:
            frames: uint8 (H, W, 3) RGB, one after the other, all of one size.
            fps: frames a second.
            window: seconds.
            step: seconds between two starts; None: the windows follow each other.

        Raises:
            DataError: a frame is something else.
            ConfigError: a window or a step is shorter than a frame.
        """
        _positive("fps", fps)
        length, step = _lengths(fps, window, step)
        return self._windows(frames, _spans(length, step * fps), fps)

    def explain(self, video: Video, picture: Path, title: str) -> None:
        """Draw what SSP attends to in the central view of a video, as a PNG; the title gets the class behind it.

        Raises:
            ConfigError: the model is not one of SSP with all its parts.
            VideoError, DataError: as `predict`.
        """
        store = self._store(video)
        named = self._named(store, 1)[0]
        clip = self._clips(store)[central_view(self.reading.clips)][0]
        with self.execution.autocast():
            explanation = explain_clip(self.model, self.execution.clips(clip))
        told = f"{title}: {named.name} ({100 * named.probability:.0f} %)"
        with atomic_path(picture) as temporary:
            temporary.write_bytes(draw_explanations([Shown(explanation, frames_of(clip), told)]))

    def _store(self, video: Video) -> _Frames:
        if isinstance(video, str | Path):
            return _Frames(*sample_frames(video, self.reading.wanted, self.reading.short_side))
        frames = _checked(video)
        return _Frames(len(frames), {i: self._shrunk(frames[i]) for i in self.reading.wanted(len(frames))})

    def _shrunk(self, frame: np.ndarray) -> np.ndarray:
        return shrink(frame, self.reading.short_side)

    def _clips(self, store: _Frames) -> ClipDataset:
        return ClipDataset(_ROWS, store, self.reading.clips, image_size=self.reading.image_size, mode="test", seed=0)

    def _named(self, store: _Frames, top: int) -> list[Named]:
        found = predict(
            self.model, self._clips(store), _ROWS, batch_size=self.reading.batch_size, execution=self.execution
        )
        logits = torch.tensor(np.stack(found["logits"].to_numpy()), dtype=torch.float64)
        probabilities, order = logits.softmax(1).mean(0).sort(descending=True, stable=True)
        best = zip(order.tolist()[:top], probabilities.tolist()[:top], strict=True)
        return [Named(self.classes[number], probability) for number, probability in best]

    def _windows(self, frames: Iterable[np.ndarray], spans: Iterator[tuple[int, int]], fps: float) -> Iterator[Window]:
        """The class of each span of frames, as soon as its last frame has come; spans are in order, by both ends."""
        windows: deque[_Open] = deque()
        coming = next(spans, None)
        for index, frame in enumerate(frames):
            while coming is not None and coming[0] <= index:
                windows.append(_Open(*coming, self.reading.wanted(coming[1] - coming[0])))
                coming = next(spans, None)
            takers = [window for window in windows if index - window.first in window.wanted]
            if takers:
                shrunk = self._shrunk(_checked(np.asarray(frame)[None])[0]).copy()  # a camera may reuse its buffer
                for window in takers:
                    window.held[index - window.first] = shrunk
            while windows and windows[0].stop <= index + 1:
                done = windows.popleft()
                best = self._named(_Frames(done.stop - done.first, done.held), 1)[0]
                yield Window(done.first / fps, done.stop / fps, *best)


_ROWS = pd.DataFrame([{"row": 0, "id": "", "label": 0, "group": ""}])


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise DataError(f"frames: uint8 (T, H, W, 3) in RGB are taken, these are {frames.dtype} {frames.shape}")
    return frames


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name}: {value:g} is too little; give a positive number")


def _lengths(fps: float, window: float, step: float | None) -> tuple[int, float]:
    """Frames of a window, and the seconds between two."""
    step = window if step is None else step
    for name, seconds in (("window", window), ("step", step)):
        _positive(name, seconds)
        if seconds * fps < 1:
            raise ConfigError(f"{name}: {seconds:g} s are less than a frame at {fps:g} frames a second; give more")
    return round(window * fps), step


def _spans(length: int, step: float, total: int | None = None) -> Iterator[tuple[int, int]]:
    """Windows of `length` frames, a new one every `step` frames; of `total` frames the last ends with the video."""
    for number in count():
        first = round(number * step)
        if total is not None and first + length >= total:
            yield max(0, total - length), total
            return
        yield first, first + length
