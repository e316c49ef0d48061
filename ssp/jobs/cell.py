"""A cell of the benchmark: one (data set, row), and all that its trials and its seeds share.

Design choices
- Sweep and final training build models and clips here, so both see the same thing.
- A split is read when it is asked for: a sweep never opens test.
- A trial may be validated on another fold than the manifest's and trained on a part of the videos: on another view of
  the cell (`dataclasses.replace`), of which models, clips and training know nothing.
- The backbone and the head start from the seed alone, the same for all methods; new parameters come after them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from ssp.backbone.checkpoint import checkpoint_hash, load_weights
from ssp.backbone.videomamba import VideoMamba
from ssp.config import Config, Hyperparameters, Row, slice_hash
from ssp.data.clips import ClipDataset, load_split
from ssp.data.frames import FrameStore
from ssp.data.manifest import class_count, class_names, manifest_hash, read_manifest
from ssp.data.validation import carve_folds, stratified_part
from ssp.errors import ConfigError
from ssp.jobs.stage import frames_of
from ssp.jobs.team import Team
from ssp.methods.build import build_model
from ssp.paths import Paths
from ssp.records.record import Chosen, package_versions, running_code
from ssp.scan import choose_backend
from ssp.training.execution import Execution, derive_seed

Split = Literal["train", "val", "trainval", "test"]


@dataclass(frozen=True)
class Cell:
    """One (data set, row) of a config; a row is called a method wherever it stands beside others."""

    config: Config
    dataset: str
    method: str
    study: int | None = None
    """Which of several studies chooses the hyper-parameters; None: there is one."""
    fold: int = 0
    """Which of the folds is validation."""
    share: float = 1.0
    """Of the training videos."""
    job: Literal["train", "sweep"] = "train"
    """Whose threads, GPUs and loader processes (`compute`) it has."""
    team: Team | None = None
    """The other processes of its trainings."""

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("data set", self.dataset, self.config.datasets),
            ("method", self.method, self.config.rows),
        ):
            if name not in known:
                raise ConfigError(f"config '{self.config.name}': no {kind} '{name}'; it has: {', '.join(known)}")

    @property
    def paths(self) -> Paths:
        """Where this config's files lie."""
        return Paths.of(self.config)

    @property
    def row(self) -> Row:
        """The row's setting."""
        return self.config.rows[self.method]

    @property
    def start(self) -> Hyperparameters:
        """The shared hyper-parameters of the first trial; those that are not searched stay there."""
        return self.config.first_trial(self.dataset, self.method)

    @property
    def choice_file(self) -> Path:
        """The choice that this cell is trained from: its own, or that of the row that it inherits from."""
        return self.paths.choice(self.dataset, self.row.tuned_as, self.study)

    @property
    def search_seed(self) -> int:
        """Of a study's proposals and trials; the first of several is the one that there would be alone."""
        return derive_seed(self.config.sweep.seed, "study", self.study) if self.study else self.config.sweep.seed

    @property
    def name(self) -> str:
        """The cell in words; unique within a tracking experiment."""
        study = "" if self.study is None else f"/study{self.study}"
        return f"{self.config.name}/{self.dataset}/{self.method}{study}"

    @cached_property
    def manifest_hash(self) -> str:
        """Hash of what the manifest says."""
        return manifest_hash(self.paths.manifest(self.dataset))

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Names of the classes, by number."""
        classes = class_count(self.config, self.dataset)
        return class_names(read_manifest(self.paths.manifest(self.dataset)), classes)

    @cached_property
    def backbone_hash(self) -> str:
        """Hash of the file of the pre-trained weights, which another may have taken the place of.

        Raises:
            CheckpointError: there is no such file, or it cannot be read.
        """
        return checkpoint_hash(self.backbone_file())

    @cached_property
    def store(self) -> FrameStore:
        """The frames of all videos."""
        return frames_of(self.config, self.dataset)

    @cached_property
    def execution(self) -> Execution:
        """Device, precision, threads."""
        return Execution.of(self.config.compute, self.job, self.config.datasets[self.dataset].recipe.precision)

    def rows(self, split: Split) -> pd.DataFrame:
        """Videos of a split; read once."""
        if split not in self._splits:
            self._splits[split] = self._part(split)
        return self._splits[split]

    def view(self, fold: int, share: float) -> Cell:
        """The same cell, validated on a fold and trained on a share of the videos."""
        if (fold, share) not in self._views:
            self._views[fold, share] = replace(self, fold=fold, share=share)
        return self._views[fold, share]

    @cached_property
    def _views(self) -> dict[tuple[int, float], Cell]:
        return {(self.fold, self.share): self}

    def _part(self, split: Split) -> pd.DataFrame:
        """Videos of a split, seen from this cell's fold and share."""
        validation = self.config.datasets[self.dataset].validation
        if self.fold and split in ("train", "val"):
            rows = load_split(self.config, self.dataset, "trainval")
            own = carve_folds(
                rows["label"].to_numpy(),
                rows["group"].to_numpy(),
                (rows["split"] == "val").to_numpy(),
                validation.fraction,
                validation.seed,
                validation.folds,
            )
            rows = rows[(own == self.fold) == (split == "val")].reset_index(drop=True)
            if rows.empty:
                raise ConfigError(
                    f"datasets.{self.config.column_of(self.dataset)}.validation.folds: no groups are left for number "
                    f"{self.fold + 1} of {validation.folds}; ask for fewer"
                )
        else:
            rows = load_split(self.config, self.dataset, split)
        if split == "train" and self.share < 1:
            rows = rows[stratified_part(rows["label"].to_numpy(), self.share, validation.seed)].reset_index(drop=True)
        return rows

    @cached_property
    def _splits(self) -> dict[str, pd.DataFrame]:
        return {}

    def clips(self, split: Split, seed: int = 0, *, central: bool = False) -> ClipDataset:
        """Clips of a split; `seed` is that of the augmentation. `central`: test as validation is read."""
        training = split in ("train", "trainval")
        dataset = self.config.datasets[self.dataset]
        return ClipDataset(
            self.rows(split),
            self.store,
            dataset.clips,
            image_size=self.config.backbone.image_size,
            mode="train" if training else "val" if central else split,
            seed=seed,
            augmentation=dataset.recipe.augmentation if training else None,
            validation_window=self.config.quirk("validation_window"),
            short_videos=self.config.quirk("short_videos"),
        )

    def options(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Method options: the config's, quirks included, then the chosen ones, then what an ablation varies."""
        return self.row.options | chosen | self.row.varied

    def build(self, chosen: Chosen, seed: int) -> VideoMamba:
        """The model before training, on its device: pre-trained backbone; new parameters and head from `seed`."""
        torch.manual_seed(derive_seed(seed, "weights"))
        model = new_model(self.config, self.dataset, self.row.method, chosen.options, chosen.drop_path)
        load_weights(model, self.backbone_file())
        return model.to(self.execution.device)

    def backbone_file(self) -> Path:
        """Weights of the pre-trained backbone."""
        name = self.config.datasets[self.dataset].checkpoint
        checkpoint = self.config.backbone.checkpoints[name]
        if checkpoint.pretrain:
            return self.paths.backbone(name)
        return checkpoint.local or self.paths.fetched_checkpoint(checkpoint.archive.file)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Where numbers come from, as tags of MLflow runs."""
        git = running_code()
        return {
            "ssp.dataset": self.dataset,
            "ssp.method": self.method,
            "ssp.registered_method": self.row.method,
            "ssp.git_commit": git.commit,
            "ssp.git_dirty": str(git.dirty),
            "ssp.config_hash": slice_hash(self.config.cell_slice(self.dataset, self.method)),
            "ssp.manifest_hash": self.manifest_hash,
            "ssp.backbone_hash": self.backbone_hash,
            "ssp.scan_backend": choose_backend(torch.float32, self.execution.device).name,
            "ssp.device": self.execution.name,
        } | {f"ssp.version.{name}": version for name, version in package_versions().items()}


def new_model(config: Config, dataset: str, method: str, options: dict[str, Any], drop_path: float = 0.0) -> VideoMamba:
    """A model for the clips and classes of a data set, with a method attached and nothing loaded."""
    settings = config.datasets[dataset]
    return build_model(
        config.backbone.architecture,
        method,
        class_count(config, dataset),
        num_frames=settings.clips.num_frames,
        img_size=config.backbone.image_size,
        drop_path=drop_path,
        method_options=options,
    )
