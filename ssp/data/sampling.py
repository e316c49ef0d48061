"""Which frames make a clip: the samplers of the published code, as pure functions of the video's length.

- `dense`: a window of num_frames x stride consecutive frames (HMDB51, UCF101).
- `sparse`: one frame from each of num_frames equal segments (Something-Something V2).
- `kinetics_sparse`: the same with segments of fractional length that share their end frames (Breakfast).

Every function returns int64 (num_frames,) in 0..length-1. `uniform` stands for the random draws of training. What the
published code does differently, and why that is not kept:
- dense validation takes the window before the central one, and its negative indices wrap around to the video's end:
  kept as `validation_window="published"`; `fixed` is the central window.
- dense with one test segment, and sparse with other than two, crash or repeat there: here one view is the central one.
- sparse training and validation take frame 0 throughout where there are fewer frames than segments: kept as
  `short_videos="published"`; with `fixed` frames repeat in order.
"""

from __future__ import annotations

import numpy as np

from ssp.config import Clips, Quirk


def train_indices(length: int, clips: Clips, rng: np.random.Generator, short_videos: Quirk = "fixed") -> np.ndarray:
    """A random clip."""
    if clips.sampling == "dense":
        window = clips.num_frames * clips.stride
        return _window(length, int(rng.integers(window, length)) if length > window else window, clips)
    if clips.sampling == "sparse":
        segment = length // clips.num_frames
        if segment == 0:
            return _stretched(length, clips.num_frames, short_videos)
        return np.arange(clips.num_frames) * segment + rng.integers(segment, size=clips.num_frames)
    starts = _fractional_starts(length, clips.num_frames)
    return np.minimum(rng.integers(starts[:-1], starts[1:], endpoint=True), length - 1)


def validation_indices(
    length: int, clips: Clips, validation_window: Quirk = "fixed", short_videos: Quirk = "fixed"
) -> np.ndarray:
    """The one clip of a video that validation sees: central."""
    if clips.sampling == "dense":
        window = clips.num_frames * clips.stride
        end = (length - window) // 2 + (window if validation_window == "fixed" else 0)
        return _window(length, end, clips) % length
    if clips.sampling == "sparse":
        segment = length // clips.num_frames
        if segment == 0:
            return _stretched(length, clips.num_frames, short_videos)
        return np.arange(clips.num_frames) * segment + segment // 2
    return _fractional_view(length, clips.num_frames, view=0, views=1)


def test_indices(length: int, clips: Clips, segment: int) -> np.ndarray:
    """Temporal view `segment` of `clips.test_segments`."""
    views, count = clips.test_segments, clips.num_frames
    if clips.sampling == "dense":
        window = count * clips.stride
        slack = max(length - window, 0)
        start = slack // 2 if views == 1 else int(segment * (slack / (views - 1)))
        return np.minimum(start + clips.stride * np.arange(count), _last_on_stride(start, length, clips.stride))
    if clips.sampling == "sparse":
        tick = length / count
        offset = segment * tick / views if views > 1 else tick / 2
        return (offset + tick * np.arange(count)).astype(np.int64)
    return _fractional_view(length, count, segment, views)


def _window(length: int, end: int, clips: Clips) -> np.ndarray:
    """num_frames spread over the window that ends at `end` (may begin below 0); a short video is stretched."""
    count, window = clips.num_frames, clips.num_frames * clips.stride
    if length <= window:
        spread = np.linspace(0, length, num=length // clips.stride)
        spread = np.concatenate([spread, np.full(count - len(spread), length)])
        return np.clip(spread, 0, length - 1).astype(np.int64)
    start = end - window
    return np.clip(np.linspace(start, end, num=count), start, end - 1).astype(np.int64)


def _last_on_stride(start: int, length: int, stride: int) -> int:
    """The last frame of the video that a walk from `start` reaches; padding repeats it."""
    return start + (length - 1 - start) // stride * stride


def _fractional_starts(length: int, count: int) -> np.ndarray:
    """Bounds of `count` segments of (length - 1) / count frames, rounded half to even."""
    return np.round((length - 1) / count * np.arange(count + 1)).astype(np.int64)


def _fractional_view(length: int, count: int, view: int, views: int) -> np.ndarray:
    """The same place in every segment: the (view + 1)-th of `views` that divide it equally."""
    segment = (length - 1) / count
    inside = int(segment / (views + 1) * (view + 1))
    return np.minimum(_fractional_starts(length, count)[:-1] + inside, length - 1)


def _stretched(length: int, count: int, short_videos: Quirk) -> np.ndarray:
    """All frames in order, some repeated; as published the first alone."""
    return np.arange(count) * length // count if short_videos == "fixed" else np.zeros(count, np.int64)
