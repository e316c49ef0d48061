"""A video as one run of bytes: frame count, width, height, where each JPEG begins, then the JPEGs.

- Pillow encodes, once; simplejpeg decodes, every epoch: to the same pixels in two thirds of the time, straight into the
  clip. It does not encode, because it uses a coarser transform for that (0.4 dB less at quality 95).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from ssp.data.video import iterate_frames

_HEAD, _OFFSET = struct.Struct("<III"), "<u8"  # count, width, height; offsets from the beginning


def pack_video(path: Path, short_side: int | None, quality: int) -> bytes:
    """All frames of a video file, packed; see `ssp.data.video.iterate_frames` and `pack`.

    Raises:
        VideoError: it cannot be decoded to its end.
    """
    return pack(iterate_frames(path, short_side), quality)


def pack(frames: Iterable[np.ndarray], quality: int) -> bytes:
    """Encode frames uint8 (H, W, 3) of one size, at least one."""
    jpegs, height, width = [], 0, 0
    for frame in frames:
        height, width = frame.shape[:2]
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        jpegs.append(buffer.getvalue())
    head = _HEAD.size + 8 * (len(jpegs) + 1)
    starts = np.cumsum([head, *map(len, jpegs)]).astype(_OFFSET)
    return b"".join([_HEAD.pack(len(jpegs), width, height), starts.tobytes(), *jpegs])


def count(packed: memoryview | bytes) -> int:
    """Number of frames."""
    return _HEAD.unpack_from(packed)[0]


def unpack(packed: memoryview | bytes, indices: Sequence[int]) -> np.ndarray:
    """Decode frames: uint8 (len(indices), H, W, 3).

    Raises:
        IndexError: an index outside 0..n-1.
        ValueError: a damaged JPEG.
    """
    n, width, height = _HEAD.unpack_from(packed)
    starts = np.frombuffer(packed, _OFFSET, n + 1, _HEAD.size)
    frames = np.empty((len(indices), height, width, 3), np.uint8)
    for place, index in enumerate(indices):
        if not 0 <= index < n:
            raise IndexError(f"frame {index} asked, the video has {n}")
        simplejpeg.decode_jpeg(packed[starts[index] : starts[index + 1]], buffer=frames[place])
    return frames
