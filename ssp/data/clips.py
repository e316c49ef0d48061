"""Clips for training and evaluation: frames of a video, sampled and augmented.

Design choices
- What clip comes out is a function of (seed, epoch, row of the manifest) alone: not of worker processes, order, earlier
  samples, or of which other videos can be read.
- The epoch lies in shared memory, so worker processes that outlive an epoch see `set_epoch` too.
- A test video gives segments x crops views; index = video x views + view, view = segment x crops + crop. The crops of
  one segment follow each other and share its decoded frames.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from ssp.config import Augmentation, Clips, Quirk
from ssp.data.augment import NOTHING, TrainTransform, test_view, validation_view
from ssp.data.frames import FrameStore, load_split
from ssp.data.sampling import test_indices, train_indices, validation_indices

__all__ = ["ClipDataset", "load_split"]


class ClipDataset(Dataset):
    """Clips of the videos of a split.

    Args:
        rows: from `load_split`; columns row (key in the store) and label are used.
        store: decoded frames.
        clips: sampling and number of views.
        image_size: pixels of the square clip.
        mode: "train" (random, augmented), "val" (one central view), "test" (all views).
        seed: of sampling and augmentation.
        augmentation: of training; None: random frames, but the central crop.
        validation_window, short_videos: quirks of sampling, see `ssp.data.sampling`.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        store: FrameStore,
        clips: Clips,
        *,
        image_size: int,
        mode: Literal["train", "val", "test"],
        seed: int,
        augmentation: Augmentation | None = None,
        validation_window: Quirk = "fixed",
        short_videos: Quirk = "fixed",
    ) -> None:
        self.store, self.clips, self.image_size, self.mode, self.seed = store, clips, image_size, mode, seed
        self.validation_window, self.short_videos = validation_window, short_videos
        self.repeats = augmentation.repeats if augmentation else 1
        self.views = clips.test_segments * clips.test_crops if mode == "test" else 1
        self.clip_bytes = self.repeats * 3 * clips.num_frames * image_size**2  # of an item
        self._keys, self._labels = rows["row"].tolist(), rows["label"].tolist()
        self._transform = TrainTransform(augmentation, image_size) if augmentation else None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._last: tuple[tuple[int, int], torch.Tensor] | None = None  # decoded frames of a (video, segment)

    def set_epoch(self, epoch: int) -> None:
        """Draw new clips: call it before iterating over an epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._keys) * self.views

    def __getitem__(self, index: int) -> tuple[torch.Tensor | int, ...]:
        """A clip, its label, its position in `rows`, its view; in training, what is to be erased of each repeat.

        Returns:
            Clips are uint8 (repeats, 3, T, H, W) in training, (3, T, H, W) otherwise: to be normalised, and erased as
            int64 (repeats, 5) says, on the device (`ssp.data.augment`).
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        video, view = divmod(index, self.views)
        if self.mode == "train":
            clips, erasing = self._train_clips(video)
            return clips, self._labels[video], video, view, erasing
        if self.mode == "val":
            length = self.store.length(self._keys[video])
            indices = validation_indices(length, self.clips, self.validation_window, self.short_videos)
            clip = validation_view(self._frames(video, indices), self.image_size)
        else:
            segment, crop = divmod(view, self.clips.test_crops)
            clip = test_view(self._segment(video, segment), self.image_size, crop, self.clips.test_crops)
        return clip, self._labels[video], video, view

    def _train_clips(self, video: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames are drawn once, each repeat is augmented by itself."""
        key = self._keys[video]
        rng = np.random.default_rng((self.seed, int(self._epoch), key))
        frames = self._frames(video, train_indices(self.store.length(key), self.clips, rng, self.short_videos))
        if self._transform is None:
            return validation_view(frames, self.image_size)[None], torch.tensor([NOTHING])
        clips, erasing = zip(*(self._transform(frames, rng) for _ in range(self.repeats)), strict=True)
        return torch.stack(clips), torch.stack(erasing)

    def _segment(self, video: int, segment: int) -> torch.Tensor:
        if self._last is None or self._last[0] != (video, segment):
            indices = test_indices(self.store.length(self._keys[video]), self.clips, segment)
            self._last = (video, segment), self._frames(video, indices)
        return self._last[1]

    def _frames(self, video: int, indices: np.ndarray) -> torch.Tensor:
        """uint8 (T, 3, H, W)."""
        return torch.from_numpy(self.store.read(self._keys[video], indices.tolist())).permute(0, 3, 1, 2)
