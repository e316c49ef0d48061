"""Writing a clip as a real video file, with the containers and codecs of the published data sets.

- Same frames, same arguments: same bytes (one encoder thread, bit-exact muxing without dates and random ids).
- The caller sets the size of the file. A growing object costs other bits than a shrinking one, so a free size would
  tell classes apart: the quantiser is raised until the stream fits, and the container's own filler makes up the rest.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import av
import numpy as np


@dataclass(frozen=True)
class Format:
    """A container with its codec, the quantiser to begin with, and what a file costs: bytes, bytes a frame."""

    container: str
    codec: str
    quantiser: tuple[int, int]
    overhead: int
    frame_bytes: tuple[int, int]
    options: tuple[tuple[str, str], ...] = ()


PIXELS = 40 * 32  # of the pictures that the bytes a frame below are for
# HMDB51, UCF101, Breakfast: MPEG-4 part 2.
AVI = Format("avi", "mpeg4", quantiser=(4, 31), overhead=7500, frame_bytes=(260, 420))
# Something-Something V2: VP9, at the encoder's fastest.
WEBM = Format(
    "webm",
    "libvpx-vp9",
    quantiser=(24, 63),
    overhead=2000,
    frame_bytes=(300, 480),
    options=(("b", "0"), ("deadline", "realtime"), ("cpu-used", "8"), ("lag-in-frames", "0")),
)


def encode(frames: np.ndarray, fps: int, form: Format, fullness: float) -> bytes:
    """Encode a clip into a file of a size that depends on its length and on `fullness` alone.

    Args:
        frames: uint8 (T, H, W, 3) RGB; width and height must be even.
        fps: frames a second.
        form: container and codec.
        fullness: 0..1, where the size lies between the format's smallest and largest bytes a frame.

    Raises:
        ValueError: the clip does not fit even at the coarsest quantiser.
    """
    low, high = form.frame_bytes
    per_pixel = frames.shape[1] * frames.shape[2] / PIXELS
    size = form.overhead + round(len(frames) * (low + fullness * (high - low)) * per_pixel)
    finest, coarsest = form.quantiser
    for quantiser in range(finest, coarsest + 1, 1 if form.codec == "mpeg4" else 4):
        file = _encode(frames, fps, form, quantiser)
        if len(file) + 9 <= size:
            return _fill_avi(file, size + size % 2) if form.container == "avi" else _fill_webm(file, size)
    raise ValueError(f"a clip of {len(frames)} frames does not fit into {size} bytes")


def _encode(frames: np.ndarray, fps: int, form: Format, quantiser: int) -> bytes:
    if form.codec == "mpeg4":
        options = {"b": "10M", "qmin": str(quantiser), "qmax": str(quantiser)}
    else:
        options = {"crf": str(quantiser)}
    file = io.BytesIO()
    with av.open(file, "w", format=form.container, options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            form.codec, rate=fps, options={"flags": "+bitexact", **dict(form.options), **options}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _fill_avi(file: bytes, size: int) -> bytes:
    """Append a JUNK chunk to the RIFF list (whose length stands in bytes 4 to 7)."""
    junk = size - len(file) - 8
    return file[:4] + struct.pack("<I", size - 8) + file[8:] + b"JUNK" + struct.pack("<I", junk) + bytes(junk)


def _fill_webm(file: bytes, size: int) -> bytes:
    """Append a Void element: one byte of id, eight of length (the first is a marker), zeros."""
    void = size - len(file) - 9
    return file + b"\xec\x01" + void.to_bytes(7, "big") + bytes(void)
