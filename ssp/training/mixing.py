"""Mixup and CutMix on batches of clips.

Design choices
- One draw (mixup or CutMix, lambda, box) for a whole optimizer step, or, with `mix_videos`, for every so many videos of
  it (as published: one for the batch of each GPU), a pure function of (seed, epoch, step, which of them).
- A video's partner is its neighbour in the batch (0 with 1, 2 with 3, ...). Pairs never straddle two micro-batches, or
  two draws, of even size, so mixing is the same however a batch is cut up. Both of a pair get the same lambda.
- The published partner is the clip at the mirrored place (first with last). That is no other mixing: the order of
  videos is random and so are the augmentations of each, so either way clips meet those of a random other video.
- A CutMix box is the same in all frames; lambda is corrected to the share of pixels that the box really left.
- Sources: Zhang et al. 2018, "mixup"; Yun et al. 2019, "CutMix". With both on, each is drawn half of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ssp.config import Augmentation
from ssp.training.execution import derive_seed


@dataclass(frozen=True)
class Mix:
    """One draw: share of the video's own pixels, and for CutMix the centre of the box in units of height and width."""

    keep: float
    centre: tuple[float, float] | None = None

    def clips(self, clips: Tensor) -> tuple[Tensor, float]:
        """Mix clips (B, ..., H, W) with their neighbours.

        Returns:
            Mixed clips and the share of a clip that is its own.
        """
        partner = clips[neighbours(len(clips))]
        if self.centre is None:
            return clips * self.keep + partner * (1 - self.keep), self.keep
        height, width = clips.shape[-2:]
        (top, bottom), (left, right) = (
            _interval(centre, (1 - self.keep) ** 0.5, size)
            for centre, size in zip(self.centre, (height, width), strict=True)
        )
        mixed = clips.clone()
        mixed[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _interval(centre: float, share: float, size: int) -> tuple[int, int]:
    """Pixels of an axis covered by a box of this relative length, cut off at the edges."""
    start, length = round(centre * size - share * size / 2), round(share * size)
    return max(start, 0), max(min(start + length, size), 0)


@dataclass(frozen=True)
class StepMix:
    """The draws of an optimizer step: one for each `videos` of it in turn."""

    draws: tuple[Mix, ...]
    videos: int

    def clips(self, clips: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Mix clips (B, ..., H, W) of the videos of a step from `first` on, which is even.

        Returns:
            Mixed clips, and of each video the share that is its own, float64 (B,) on the CPU.
        """
        mixed, keep, at = [], [], 0
        while at < len(clips):
            draw, inside = divmod(first + at, self.videos)
            piece = clips[at : at + self.videos - inside]
            own, share = self.draws[draw].clips(piece)
            mixed.append(own)
            keep += [share] * len(piece)
            at += len(piece)
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed), torch.tensor(keep, dtype=torch.float64)


def draw_step(augmentation: Augmentation, seed: int, epoch: int, step: int, videos: int) -> StepMix | None:
    """The draws of an optimizer step over so many videos; None where mixing is off."""
    if not (augmentation.mixup or augmentation.cutmix):
        return None
    shared = augmentation.mix_videos
    if shared is None:
        return StepMix((draw_mix(augmentation, seed, epoch, step),), videos)
    return StepMix(
        tuple(draw_mix(augmentation, seed, epoch, step, which) for which in range(math.ceil(videos / shared))), shared
    )


def draw_mix(augmentation: Augmentation, seed: int, *place: int) -> Mix:
    """The draw for a place: epoch, step, and which of the step's where there are several."""
    kinds = [(name, beta) for name, beta in (("mixup", augmentation.mixup), ("cutmix", augmentation.cutmix)) if beta]
    random = np.random.default_rng(derive_seed(seed, "mix", *place))
    name, beta = kinds[random.integers(len(kinds))]
    keep, centre = float(random.beta(beta, beta)), tuple(random.random(2).tolist())
    return Mix(keep, centre if name == "cutmix" else None)


def neighbours(count: int) -> Tensor:
    """Position of each one's partner: 1, 0, 3, 2, ...; the last of an odd number is alone."""
    partner = torch.arange(count) ^ 1
    return torch.where(partner < count, partner, torch.arange(count))


def mixed_targets(labels: Tensor, classes: int, keep: Tensor) -> Tensor:
    """Class probabilities (B, classes) of clips that each kept a share of their own, float64 (B,)."""
    own = one_hot(labels, classes).float()
    keep, rest = (share.float()[:, None].to(labels.device) for share in (keep, 1 - keep))
    return own * keep + own[neighbours(len(labels)).to(labels.device)] * rest
