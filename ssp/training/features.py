"""Features of a frozen trunk, taken once for all trainings that differ in their readout alone.

Where only final norm and head train, what they read depends on the clips and on drop path: functions of (seed, epoch,
step) alone, whatever the learning rate and the weight decay. So the trials of a study share one stream of features.

Design choices
- Exact: features are taken in the very passes that a training alone would make, with the same batches, draws and
  precision, and kept as they are (float32). Losses, gradients and choices are equal bit for bit.
- A file per epoch, and one of validation, which has no drop path and so is the same after each epoch. Each is written
  atomically, so that a kill leaves whole ones; what cannot be read is taken again.
- Their size: videos x repeats x width x 4 bytes an epoch, for each drop path rate that is tried; in memory twice that
  while it is written.
- Where nothing is shared (no folder) validation's features are kept in memory, for the epochs of one training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from ssp.backbone.videomamba import VideoMamba
from ssp.files import atomic_path
from ssp.training.evaluate import forward_all
from ssp.training.execution import Execution
from ssp.training.mixing import StepMix


class Features(nn.Module):
    """Stands in for a model whose trunk is frozen: maps clips to logits as it does, and features to the same logits.

    Args:
        model: `trunk_is_frozen`; in the mode of the training that goes on.
        folder: of what is shared between trainings on the same clips with the same drop path; None: nothing is.
        validation: of what is shared between trainings with the same validation.
    """

    def __init__(self, model: VideoMamba, folder: Path | None = None, validation: Path | None = None) -> None:
        super().__init__()
        self.norm_f, self.head = model.norm_f, model.head  # what trains, under its names
        self._trunk = (_Trunk(model),)  # in a tuple: no part of this module, whose parameters are those that train
        self._size = model.img_size
        self._folder, self._validation = folder, validation
        self._embedded: TensorDataset | None = None
        self._taken: tuple[list[Tensor], list[Tensor]] | None = None  # features and labels of this epoch so far

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of clips (B, 3, T, H, W), whose features are kept, or of features (B, D)."""
        features = clips
        if clips.dim() > 2:
            features = self._trunk[0](clips)
            if self._taken:
                self._taken[0].append(features.cpu())
        return VideoMamba.forward_head(self, features)

    def train(self, mode: bool = True) -> Features:
        """Training or evaluation, of the trunk as well: clips may come in either."""
        self._trunk[0].train(mode)
        return super().train(mode)

    def epoch(
        self, epoch: int, batches: Sequence[Sequence[int]], clips: Callable[[], Iterable[Sequence[Tensor]]]
    ) -> tuple[Iterator[Sequence[Tensor]], bool]:
        """What an epoch trains on: kept features, or clips whose features are being kept.

        Args:
            epoch: counted from 0.
            batches: videos of each pass, in order.
            clips: loads the clips of these.

        Returns:
            Clips (B, R, 3, T, H, W) or features (B, R, D), and labels (B,), of each pass; and whether it is features.
        """
        self._taken = None
        if kept := self._folder and _load(self._folder / f"epoch{epoch}.pt"):
            sizes = [len(batch) for batch in batches]
            # Copied: torch's own memory is aligned as that of a tensor that was just computed.
            parts = zip(kept["features"].split(sizes), kept["labels"].split(sizes), strict=True)
            return ((features.clone(), labels.clone()) for features, labels in parts), True
        if self._folder:
            self._taken = [], []
        return self._labelled(clips()), False

    def _labelled(self, clips: Iterable[Sequence[Tensor]]) -> Iterator[Sequence[Tensor]]:
        for batch in clips:
            if self._taken:
                self._taken[1].append(batch[1])
            yield batch

    def keep(self, epoch: int) -> None:
        """Write down what this epoch has taken, now that it is over."""
        if self._taken:
            features, labels = (torch.cat(parts) for parts in self._taken)
            _save(self._folder / f"epoch{epoch}.pt", features=features.unflatten(0, (len(labels), -1)), labels=labels)
            self._taken = None

    def forget(self) -> None:
        """Keep nothing of this epoch: some of it was taken twice."""
        self._taken = None

    def mixing(self, mix: StepMix | None) -> _Mixed | None:
        """The mixing of features whose clips have been mixed."""
        return mix and _Mixed(mix, self._size)

    def embedded(self, clips: Dataset, *, batch_size: int, execution: Execution) -> TensorDataset:
        """Validation clips as features; taken once."""
        path = self._validation and self._validation / "validation.pt"
        if self._embedded is None and path:
            kept = _load(path)
            # A process that lacks them takes them together with all others.
            if all(execution.group.gather("features", lambda: bool(kept))):
                self._embedded = TensorDataset(*kept.values())
        if self._embedded is None:
            parts = zip(*forward_all(self._trunk[0], clips, batch_size, None, execution), strict=True)
            features, labels, rows, views = (torch.cat(part).clone() for part in parts)
            if path:
                _save(path, features=features, labels=labels, rows=rows, views=views)
            self._embedded = TensorDataset(features, labels, rows, views)
        return self._embedded


class _Trunk(nn.Module):
    """Everything in front of the final norm."""

    def __init__(self, model: VideoMamba) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model.forward_features(clips)


class _Mixed:
    """Mixing that is done: leaves features alone, and says what shares their clips have kept."""

    def __init__(self, mix: StepMix, size: tuple[int, int]) -> None:
        self._mix, self._size = mix, size

    def clips(self, features: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The features, and what the mixing of as many clips gives besides."""
        return features, self._mix.clips(torch.empty(len(features), *self._size), first)[1]


def _load(path: Path) -> dict[str, Tensor] | None:
    """Kept tensors, mapped from the file; None where there are none."""
    try:
        return torch.load(path, mmap=True, weights_only=True)
    except Exception:  # not there, or damaged: whatever garbage makes a reader raise
        return None


def _save(path: Path, **tensors: Tensor) -> None:
    with atomic_path(path) as temporary:
        torch.save(tensors, temporary)
