"""Exact frames of a video file, and what its header says.

- Two readers: decord, 1.5 to 4 times as fast, for the files on which it returns PyAV's pixels bit for bit (one video
  stream of a common codec, 8 bits a sample, no rotation); PyAV for all others, and where decord is not installed.
- decord is read forward only, as its seeking may return other frames than asked. Where it stops, and where a video
  ends in copies of a frame, which is how decord fills up missing ones, PyAV has the last word.
- So which frames there are does not depend on the reader. The pixels of damaged frames may.
- A file that was cut off is an error after its last frame, also where decoding ends without one. Other frame counts
  than announced are no error; `ssp data check` lists them.
- A reader lives within one call: memory does not grow, and nothing open crosses a fork. It also shrinks the frames.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssp.data.containers import announced_bytes
from ssp.errors import DataError

# Compared frame by frame with PyAV: codecs and pixel formats that decord decodes to the same RGB.
DECORD_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "vp8", "vp9"}
DECORD_PIXELS = {"yuv420p", "yuvj420p", "yuv422p", "yuv444p"}


class VideoError(DataError):
    """A file that is not a video, or whose asked frames cannot be decoded; the message names the file."""


class _DecordFailed(Exception):
    """decord could not open the file, stopped in the middle of it, or returned something else than RGB."""


class Probe(NamedTuple):
    """What the header of a video says: frames as announced (decoding has the last word), upright width and height."""

    frames: int
    fps: float
    width: int
    height: int
    codec: str


class Span(NamedTuple):
    """Frames of a video file from `first` to before `stop`; None: to its end."""

    path: Path
    first: int = 0
    stop: int | None = None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Header:
    stream: int  # index of the best video stream
    frames: int  # as announced; 0: not
    streams: int
    codec: str
    pixels: str
    width: int  # as stored, before rotation
    height: int
    turns: int  # quarter turns counter-clockwise that make frames upright


def read_frames(path: str | Path, indices: Iterable[int], short_side: int | None = None) -> np.ndarray:
    """Decode exactly the asked frames.

    Args:
        path: a video file.
        indices: frame numbers from 0, in any order, repeats allowed.
        short_side: shrink so that the shorter side has this many pixels (at least 1); never enlarges.

    Returns:
        uint8 (len(indices), H, W, 3) RGB, upright.

    Raises:
        IndexError: an index outside 0..n-1; negative ones do not count from the end.
        VideoError: the file, or one of the asked frames, cannot be decoded.
    """
    wanted = [operator.index(i) for i in indices]
    if wanted and min(wanted) < 0:
        raise IndexError(f"{path}: frame {min(wanted)} asked; frames are numbered from 0")
    if not wanted:
        header = _read_header(path)
        width, height = _upright(header.turns, *_shrunk(header.width, header.height, short_side))
        return np.empty((0, height, width, 3), np.uint8)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(wanted):
        places.setdefault(index, []).append(place)
    last, frames, seen = max(wanted), None, 0
    with contextlib.closing(_decode(path, short_side, places.__contains__)) as decoded:
        for index, frame in decoded:
            seen = index + 1
            if frame is not None:
                if frames is None:
                    frames = np.empty((len(wanted), *frame.shape), np.uint8)
                frames[places[index]] = frame
            if index == last:
                return frames
    raise IndexError(f"{path}: frame {last} asked, the video has {seen} frames")


def iterate_frames(
    path: str | Path, short_side: int | None = None, first: int = 0, stop: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames from `first` to before `stop` (None: the end): uint8 (H, W, 3) RGB, upright, in order.

    They are shrunk to `short_side` (never enlarged). A file is decoded from its beginning, as seeking may miss.

    Raises:
        VideoError: the file cannot be decoded that far, or has no frame there; frames before the damage have been
            yielded then.
    """
    index = -1
    with contextlib.closing(_decode(path, short_side, lambda i: i >= first)) as decoded:
        for index, frame in decoded:
            if frame is not None:
                yield frame
            if stop is not None and index == stop - 1:
                return
    if index < first:
        raise VideoError(f"{path}: the segment begins at frame {first}, the video has {index + 1}; mend its start")


def sample_frames(
    path: str | Path, choose: Callable[[int], Iterable[int]], short_side: int | None = None
) -> tuple[int, dict[int, np.ndarray]]:
    """Decode a video to its end, and keep the frames that are chosen from as many as there are.

    Args:
        path: a video file.
        choose: from the number of frames to the numbers of those that are kept.
        short_side: as `read_frames`.

    Returns:
        How many frames there are, and the chosen ones by number: uint8 (H, W, 3) RGB, upright.

    Raises:
        VideoError: the file cannot be decoded to its end.
    """
    length, done = probe(path).frames, 0
    while done != length:  # once, unless the header announced another number
        length, wanted, kept = done or length, set(choose(done or length)), {}
        with contextlib.closing(_decode(path, short_side, wanted.__contains__)) as decoded:
            for index, frame in decoded:
                done = index + 1
                if frame is not None:
                    kept[index] = frame
    return length, kept


@contextlib.contextmanager
def read_stream(path: str | Path, short_side: int | None = None) -> Iterator[tuple[float, Iterator[np.ndarray]]]:
    """Frames a second, and the frames as they come, of what cannot be read twice: a pipe that a video is written into.

    The container must be one that can be written into a pipe (Matroska, MPEG-TS, ...).

    Args:
        path: of the pipe, such as /dev/stdin.
        short_side: as `read_frames`.

    Raises:
        VideoError: it holds no video or announces no frame rate; while reading: what comes cannot be decoded.
    """
    with _opened(path) as container:
        stream = _best_stream(path, container)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        if not fps:
            raise VideoError(f"{path}: announces no frame rate; write one into the stream")

        def frames() -> Iterator[np.ndarray]:
            for frame in container.decode(stream):
                size, turns = _shrunk(frame.width, frame.height, short_side), round(frame.rotation / 90) % 4
                rgb = frame.reformat(*size, format="rgb24", interpolation="BILINEAR").to_ndarray()
                yield np.rot90(rgb, turns) if turns else rgb

        yield fps, frames()


def shrink(frame: np.ndarray, short_side: int | None) -> np.ndarray:
    """A frame, uint8 (H, W, 3) RGB, with the size that a decoded one has with this `short_side`."""
    height, width = frame.shape[:2]
    size = _shrunk(width, height, short_side)
    if size == (width, height):
        return frame
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(*size, interpolation="BILINEAR").to_ndarray()


def probe(path: str | Path) -> Probe:
    """Read the header of a video, quickly: no frame is decoded where the container has no rotation.

    Containers that do not announce their frames (Matroska, WebM) are read through, one packet a frame.

    Raises:
        VideoError: the file is not a video, announces no frame, or was cut off.
    """
    with _open(path) as container:
        stream = _best_stream(path, container)
        codec, rate = stream.codec_context, float(stream.average_rate or stream.guessed_rate or 0)
        width, height, turns = codec.width, codec.height, 0
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        if not frames:
            raise VideoError(f"{path}: holds no decodable frame; fetch the file again")
        if not stream.frames:
            _check_end(path, 0, frames)
        rotates = "mov" in container.format.name
    if rotates:
        header = _read_header(path)
        width, height, turns = header.width, header.height, header.turns
    return Probe(frames, rate, *_upright(turns, width, height), codec.codec.canonical_name)


def _decode(
    path: str | Path, short_side: int | None, keep: Callable[[int], bool]
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield (index, frame) of every frame in order; the frame is None where `keep(index)` is false."""
    header = _read_header(path)
    size = _shrunk(header.width, header.height, short_side)
    done = 0
    if _decord_is_right(header):
        try:
            for index, frame in _decode_decord(path, size, keep):
                yield index, frame
                done = index + 1
            _check_end(path, header.frames, done)
            return
        except _DecordFailed:
            pass  # PyAV delivers the rest, or the error message
    delivered = done
    for index, frame in _decode_pyav(path, header, size, lambda i: i >= delivered and keep(i)):
        if index >= delivered:
            yield index, frame
            done = index + 1
    if not done:
        raise VideoError(f"{path}: holds no decodable frame; fetch the file again")
    _check_end(path, header.frames, done)


def _check_end(path: str | Path, frames: int, done: int) -> None:
    """Refuse a file that was cut off: `done` frames are there, `frames` were announced (0: no number)."""
    length, announced = Path(path).stat().st_size, announced_bytes(path)
    if announced is not None and length < announced and (frames == 0 or done < frames):
        of = f" of {frames}" if frames else ""
        raise VideoError(
            f"{path}: cut off, {length} of {announced} bytes and {done}{of} frames are there; fetch the file again"
        )


def _decord_is_right(header: _Header) -> bool:
    return (
        header.streams == 1
        and header.codec in DECORD_CODECS
        and header.pixels in DECORD_PIXELS
        and header.turns == 0
        and importlib.util.find_spec("decord") is not None
    )


def _decode_decord(
    path: str | Path, size: tuple[int, int], keep: Callable[[int], bool]
) -> Iterator[tuple[int, np.ndarray | None]]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    width, height = size
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1, width=width, height=height)
        last, copies = None, []
        for index in range(len(reader)):
            frame = reader.next()
            if frame.shape != (height, width, 3):  # lines padded for alignment become channels (48 and 72 pixels wide)
                raise _DecordFailed
            frame = frame.asnumpy()
            if last is not None and np.array_equal(frame, last):
                copies.append(index)
                continue
            for copy in copies:
                yield copy, last if keep(copy) else None
            yield index, frame if keep(index) else None
            last, copies = frame, []
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        raise _DecordFailed from error
    if copies:
        raise _DecordFailed


def _decode_pyav(
    path: str | Path, header: _Header, size: tuple[int, int], keep: Callable[[int], bool]
) -> Iterator[tuple[int, np.ndarray | None]]:
    with _open(path) as container:
        stream = container.streams[header.stream]
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(container.decode(stream)):
            if not keep(index):
                yield index, None
                continue
            rgb = frame.reformat(*size, format="rgb24", interpolation="BILINEAR").to_ndarray()
            yield index, np.rot90(rgb, header.turns) if header.turns else rgb


def _read_header(path: str | Path) -> _Header:
    """The best video stream, and how its first frame looks."""
    with _open(path) as container:
        stream = _best_stream(path, container)
        stream.codec_context.thread_count = 1
        first = next(container.decode(stream), None)
        if first is None:
            raise VideoError(f"{path}: holds no decodable frame; fetch the file again")
        return _Header(
            stream=stream.index,
            frames=stream.frames,
            streams=len(_video_streams(container)),
            codec=stream.codec_context.codec.canonical_name,
            pixels=first.format.name,
            width=first.width,
            height=first.height,
            turns=round(first.rotation / 90) % 4,
        )


def _best_stream(path: str | Path, container: Any) -> Any:  # noqa: ANN401 - PyAV's types load lazily
    """The video stream with the largest picture."""
    streams = _video_streams(container)
    if not streams:
        raise VideoError(f"{path}: holds no video stream; fetch the file again")
    return max(streams, key=lambda s: s.width * s.height)


def _video_streams(container: Any) -> list[Any]:  # noqa: ANN401
    """Streams of moving pictures that can be decoded: a cover is none."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.still_image
    return [s for s in container.streams.video if s.codec_context is not None and not s.disposition & covers]


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    """The container of a file, whose errors are VideoErrors that name the file."""
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such file; fetch or unpack it first")
    with _opened(path) as container:
        yield container


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A PyAV container, of a file or not."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded ({error.strerror}); fetch the file again") from None


def _shrunk(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    short = min(width, height)
    if short_side is None or short_side >= short:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))


def _upright(turns: int, width: int, height: int) -> tuple[int, int]:
    return (height, width) if turns % 2 else (width, height)
