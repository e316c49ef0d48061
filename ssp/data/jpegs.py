"""A video as one run of bytes: frame count, width, height, where each JPEG begins, checksums, the JPEGs.

- Pillow encodes, once; simplejpeg decodes, every epoch: to the same pixels in two thirds of the time, straight into the
  clip. It does not encode, because it uses a coarser transform for that (0.4 dB less at quality 95).
- A JPEG with a flipped bit often decodes without an error. Comparing a checksum takes a hundredth of the decoding.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import simplejpeg
from PIL import Image

from ssp.data.video import Span, iterate_frames

_HEAD, _OFFSET, _CRC = struct.Struct("<III"), "<u8", "<u4"  # count, width, height; from the beginning; CRC-32


def pack_video(span: Span, short_side: int | None, quality: int) -> bytes:
    """The frames of a video, packed; see `ssp.data.video.iterate_frames` and `pack`.

    Raises:
        VideoError: it cannot be decoded to its end.
    """
    return pack(iterate_frames(span.path, short_side, span.first, span.stop), quality)


def pack(frames: Iterable[np.ndarray], quality: int) -> bytes:
    """Encode frames uint8 (H, W, 3) of one size, at least one."""
    jpegs, height, width = [], 0, 0
    for frame in frames:
        height, width = frame.shape[:2]
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        jpegs.append(buffer.getvalue())
    sums = np.array([zlib.crc32(jpeg) for jpeg in jpegs], _CRC)
    first = _HEAD.size + 8 * (len(jpegs) + 1) + sums.nbytes + 4
    starts = np.cumsum([first, *map(len, jpegs)]).astype(_OFFSET)
    head = _HEAD.pack(len(jpegs), width, height) + starts.tobytes() + sums.tobytes()
    return b"".join([head, zlib.crc32(head).to_bytes(4, "little"), *jpegs])


def count(packed: memoryview | bytes) -> int:
    """Number of frames.

    Raises:
        ValueError: damaged.
    """
    return _head(packed)[0]


def unpack(packed: memoryview | bytes, indices: Sequence[int]) -> np.ndarray:
    """Decode frames: uint8 (len(indices), H, W, 3).

    Raises:
        IndexError: an index outside 0..n-1.
        ValueError: damaged.
    """
    n, width, height, starts, sums = _head(packed)
    frames = np.empty((len(indices), height, width, 3), np.uint8)
    for place, index in enumerate(indices):
        if not 0 <= index < n:
            raise IndexError(f"frame {index} asked, the video has {n}")
        jpeg = packed[starts[index] : starts[index + 1]]
        if zlib.crc32(jpeg) != sums[index]:
            raise ValueError(f"frame {index} does not have its checksum")
        simplejpeg.decode_jpeg(jpeg, buffer=frames[place])
    return frames


def _head(packed: memoryview | bytes) -> tuple[int, int, int, np.ndarray, np.ndarray]:
    """Count, width, height, where each JPEG begins and the last ends, checksums."""
    if len(packed) < _HEAD.size:
        raise ValueError("too short")
    n, width, height = _HEAD.unpack_from(packed)
    end = _HEAD.size + 8 * (n + 1) + 4 * n
    if zlib.crc32(packed[:end]) != int.from_bytes(packed[end : end + 4], "little"):
        raise ValueError("its head does not have its checksum")
    starts = np.frombuffer(packed, _OFFSET, n + 1, _HEAD.size)
    return n, width, height, starts, np.frombuffer(packed, _CRC, n, _HEAD.size + starts.nbytes)
