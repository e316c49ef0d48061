"""Small things that tests of training share: clips in memory that can be learned, and a small real model."""

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from ssp.methods.build import build_model
from ssp.training.execution import Execution

CPU = Execution(torch.device("cpu"))
CLASSES, FRAMES, SIZE = 3, 2, 16


class Clips(Dataset):
    """Clips whose class is their brightest channel; items as those of `ssp.data.clips.ClipDataset`."""

    def __init__(self, videos: int, mode: str = "train", repeats: int = 1, views: int = 2, seed: int = 0):
        random = np.random.default_rng(seed)
        self.labels = np.arange(videos) % CLASSES
        noise = random.normal(0, 1, (videos, 3, FRAMES, SIZE, SIZE)).astype(np.float32)
        noise[np.arange(videos), self.labels] += 1.5
        self.videos = torch.from_numpy(noise)
        self.mode, self.repeats, self.views, self.epoch = mode, repeats, views if mode == "test" else 1, 0
        self.seen = []

    def set_epoch(self, epoch: int):
        self.epoch = epoch
        self.seen.append([])

    def __len__(self):
        return len(self.labels) * self.views

    def __getitem__(self, index: int):
        row, view = divmod(index, self.views)
        clip, label = self.videos[row], int(self.labels[row])
        if self.mode != "train":
            return clip * (1 + 0.1 * view), label, row, view
        self.seen[-1].append(row)
        # Augmentation that depends on (epoch, sample, repeat) alone.
        return torch.stack([clip + 0.01 * self.epoch * (r + 1) for r in range(self.repeats)]), label, row, 0

    @property
    def rows(self) -> pd.DataFrame:
        ids = [f"class{label}/video.{i:03d}.avi" for i, label in enumerate(self.labels)]
        return pd.DataFrame({"id": ids, "group": [f"g{i % 4}" for i in range(len(ids))], "label": self.labels})


def small_model(method: str = "ssp", drop_path: float = 0.0, seed: int = 0, **options):
    """A VideoMamba of two narrow blocks."""
    torch.manual_seed(seed)
    if method == "ssp":
        options = {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1} | options
    architecture = {"embed_dim": 16, "depth": 2, "patch_size": 8}
    return build_model(
        architecture,
        method,
        CLASSES,
        num_frames=FRAMES,
        img_size=SIZE,
        drop_path=drop_path,
        method_options=options,
    )
