"""From a video file to its value in the frame store, in a child process that can be killed.

Design choices
- A hanging or crashing decoder costs one video, not the job: the child has a time limit for each and is replaced.
- The child is started fresh, since decord hangs after a fork; this module is small so that it starts quickly.
- Each child has one video in memory, as JPEGs; a pool of children holds two a child, whatever their number.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from ssp.data import jpegs
from ssp.data.video import VideoError, iterate_frames
from ssp.errors import DataError

START_LIMIT_S = 120  # for the child's imports


class Decoder:
    """A child process that turns video files into packed JPEGs, replaced when it hangs or dies."""

    def __init__(self, short_side: int | None, quality: int, limit_s: float) -> None:
        self._options, self._limit_s = (short_side, quality), limit_s
        self._process: multiprocessing.Process | None = None
        self._pipe: Connection | None = None

    def decode(self, path: Path) -> bytes:
        """The packed JPEGs of a video, see `ssp.data.jpegs`.

        Raises:
            VideoError: it cannot be decoded to its end within the time limit.
        """
        if self._process is None or not self._process.is_alive():
            self._stop()
            self._start()
        try:
            self._pipe.send(str(path))
            if not self._pipe.poll(self._limit_s):
                self._stop()
                raise VideoError(
                    f"{path}: not decoded within {self._limit_s:g} s; raise frames.timeout_s if it is long"
                )
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError):
            self._stop()
            raise VideoError(f"{path}: the decoder crashed on it; fetch the file again") from None
        if answer[:1] == b"\0":
            raise VideoError(answer[1:].decode())
        return answer[1:]

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(childs_end, *self._options), daemon=True)
        self._process.start()
        childs_end.close()
        if not self._pipe.poll(START_LIMIT_S):
            self._stop()
            raise DataError(f"the decoding process did not start within {START_LIMIT_S} s; is the machine overloaded?")
        try:
            self._pipe.recv_bytes()
        except EOFError:
            self._stop()
            raise DataError("the decoding process ended at its start; its own words are above") from None

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def kill(self) -> None:
        """End the child, whatever it does; for another thread than the one that waits in `decode`."""
        if (process := self._process) is not None:
            process.kill()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


class DecoderPool:
    """Several decoders at work at once.

    Args:
        count: child processes.
        short_side, quality, limit_s: of each, see `Decoder`.
    """

    def __init__(self, count: int, short_side: int | None, quality: int, limit_s: float) -> None:
        self._count = count
        self._decoders = [Decoder(short_side, quality, limit_s) for _ in range(count)]
        self._idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        for decoder in self._decoders:
            self._idle.put(decoder)
        self._threads = ThreadPoolExecutor(count)  # they wait for the children

    def decode_all(self, paths: Iterable[Path]) -> Iterator[bytes | VideoError]:
        """The packed JPEGs of each video, in order, or why it cannot be decoded."""
        waiting: deque[Future[bytes | VideoError]] = deque()
        for path in paths:
            waiting.append(self._threads.submit(self._decode, path))
            if len(waiting) >= 2 * self._count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _decode(self, path: Path) -> bytes | VideoError:
        decoder = self._idle.get()
        try:
            return decoder.decode(path)
        except VideoError as error:
            return error
        finally:
            self._idle.put(decoder)

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.kill()  # a thread that waits for it goes on
        self._threads.shutdown()
        for decoder in self._decoders:
            decoder.__exit__()


def _serve(pipe: Connection, short_side: int | None, quality: int) -> None:
    """The child: a path comes in; 1 and the packed JPEGs, or 0 and the reason, go out."""
    pipe.send_bytes(b"ready")
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        try:
            answer = b"\1" + jpegs.pack(iterate_frames(path, short_side), quality)
        except VideoError as error:
            answer = b"\0" + str(error).encode()
        pipe.send_bytes(answer)
