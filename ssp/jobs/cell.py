"""A cell of the benchmark: one (data set, row), and all that its trials and its seeds share.

Design choices
- Sweep and final training build models and clips here, so both see the same thing.
- A split is read when it is asked for: a sweep never opens test.
- A trial may be validated on another fold than the manifest's and trained on a part of the videos: on another view of
  the cell (`dataclasses.replace`), of which models, clips and training know nothing.
- The backbone and the head start from the seed alone, the same for all methods; new parameters come after them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
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
from ssp.jobs.team import Team, obey, team
from ssp.jobs.tracking import TrackedRun
from ssp.methods.build import build_model
from ssp.paths import Paths
from ssp.progress import progress
from ssp.records.record import Chosen, Epoch, package_versions, running_code
from ssp.scan import choose_backend
from ssp.training.evaluate import batching, predict
from ssp.training.execution import Execution, derive_seed
from ssp.training.failure import TrainingFailed, failures
from ssp.training.features import Features
from ssp.training.loop import EpochResult, TrainingState, fit
from ssp.training.parallel import current, launched

log = logging.getLogger(__name__)
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
            CheckpointError: there is no such file.
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


def train_epochs(
    cell: Cell,
    model: VideoMamba,
    chosen: Chosen,
    seed: int,
    run: TrackedRun,
    title: str,
    *,
    on: Literal["train", "trainval"] = "train",
    best_on_test: bool = False,
    epochs: int | None = None,
    share: bool = False,
    state: TrainingState | None = None,
) -> Iterator[EpochResult]:
    """The epochs of a training on a cell's data, shown, logged and tracked as they come.

    Args:
        cell: whose clips are taken.
        model: from `cell.build`; trained in place.
        chosen: hyper-parameters.
        seed: of data order and augmentation.
        run: the MLflow run that gets the curves.
        title: what the progress bar says.
        on: train, and validation is measured after each epoch, where there is any; or trainval, and nothing is.
        best_on_test: measure the test list instead, as validation is read, and end with the weights of the best epoch.
        epochs: fewer than the recipe's.
        share: keep the features of a frozen trunk for other trainings of this cell (`ssp.training.features`).
        state: where to continue.
    """
    of = epochs or cell.config.datasets[cell.dataset].recipe.epochs
    about = {"on": on, "best_on_test": best_on_test, "epochs": epochs, "share": share, "state": state}
    with progress(title) as on_step:
        found = _epochs(cell, model, chosen, seed, **about, on_step=on_step)
        if cell.team:
            found = _in_step(cell, found, {"chosen": chosen, "seed": seed} | about)
        for epoch in found:
            log.info(
                "epoch %d/%d: train loss %.4f%s, %.1f s%s",
                *(epoch.epoch, of, epoch.train_loss),
                "" if epoch.val_loss is None else f", val loss {epoch.val_loss:.4f}, val top-1 {epoch.val_top1:.1f} %",
                epoch.seconds,
                " (before the restart)" if epoch.restored else "",
            )
            curves = curve(epoch).model_dump(exclude={"epoch"}, exclude_none=True) | {"epoch_seconds": epoch.seconds}
            run.log_metrics(curves, epoch.epoch, epoch.finished)
            yield epoch


def _epochs(
    cell: Cell,
    model: VideoMamba,
    chosen: Chosen,
    seed: int,
    *,
    on: Literal["train", "trainval"],
    best_on_test: bool,
    epochs: int | None,
    share: bool,
    state: TrainingState | None,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[EpochResult]:
    """What each process of a training does of it."""
    settings, measured = cell.config.datasets[cell.dataset], None
    if best_on_test:
        measured = cell.clips("test", central=True)
    elif on == "train" and settings.validation.fraction > 0:
        measured = cell.clips("val")
    return fit(
        model,
        cell.clips(on, seed),
        measured,
        recipe=settings.recipe,
        chosen=chosen,
        seed=seed,
        execution=cell.execution,
        epochs=epochs,
        keep_best=best_on_test,
        features=_features(cell, model, chosen, seed, share) if model.trunk_is_frozen else None,
        state=state,
        save_every_s=60 * cell.config.compute.train.save_minutes,
        on_step=on_step,
    )


@contextmanager
def together(cell: Cell) -> Iterator[Cell]:
    """The cell, whose trainings and tests are shared by as many processes as `compute` says while the block runs.

    Raises:
        ConfigError: there are to be several nodes, and no launcher has started processes there.
    """
    if cell.job == "train" and cell.config.compute.train.nodes > 1 and launched().size == 1:
        raise ConfigError(
            f"compute.train.nodes: {cell.config.compute.train.nodes} asked for, but nothing has started processes on "
            "them; run the workflow with profiles/slurm, or set it to 1 to train on this node alone"
        )
    config, gpus = cell.config, getattr(cell.config.compute, cell.job).gpus
    whose = config, cell.dataset, cell.method, cell.study, cell.job
    with team(config.processes(cell.job), bool(gpus), _take_part, whose) as others:
        yield replace(cell, team=others) if others else cell


def _in_step(cell: Cell, epochs: Iterator[EpochResult], about: dict[str, Any]) -> Iterator[EpochResult]:
    """Epochs that the other processes take, too; whoever stops asking for more has them stop."""
    cell.team.order("train", fold=cell.fold, share_of_videos=cell.share, **about)
    current().gather("model", lambda: None)  # theirs; the first one's is built
    while True:
        cell.team.order("epoch")
        try:
            epoch = next(epochs)
        except StopIteration:
            return
        yield epoch


def _take_part(config: Config, dataset: str, method: str, study: int | None, job: Literal["train", "sweep"]) -> None:
    """What another process than the first does: the same trainings and tests, as it is told."""
    cell, model, epochs = Cell(config, dataset, method, study, job=job), None, iter(())

    def act(what: str, **about: Any) -> None:  # noqa: ANN401 - plain data
        nonlocal model, epochs
        if what == "epoch":
            next(epochs, None)
        elif what == "test":
            predict_test(cell, model)
        else:
            part, model = cell.view(about.pop("fold"), about.pop("share_of_videos")), None

            def build() -> None:
                nonlocal model
                model = part.build(about["chosen"], about["seed"])

            current().gather("model", build)
            epochs = _epochs(part, model, **about)

    obey(act)


def _features(cell: Cell, model: VideoMamba, chosen: Chosen, seed: int, share: bool) -> Features:
    """The features of a frozen trunk; shared with trainings for which all is equal that they depend on."""
    if not share:
        return Features(model)
    made_from = {
        "cell": cell.config.sweep_slice(cell.dataset, cell.method),
        "manifest": cell.manifest_hash,
        "backbone": cell.backbone_hash,
        "options": chosen.options,
        "tags": {name: value for name, value in cell.tags.items() if "git" not in name},  # device, scan, versions
    }
    group = cell.execution.group
    if group.size > 1:  # each keeps those of its own share
        made_from["share"] = [group.rank, group.size]
    drawn = {"seed": seed, "drop_path": chosen.drop_path}
    folder = cell.paths.features(cell.name)
    train, validation = (
        folder / slice_hash(made_from | more | {"videos": cell.rows(split)["row"].tolist()})
        for split, more in (("train", drawn), ("val", {}))
    )
    return Features(model, train, validation)


def tracked_params(chosen: Chosen, **more: object) -> dict[str, object]:
    """Hyper-parameters as MLflow shows them."""
    plain = chosen.model_dump()
    options = plain.pop("options")
    return plain | {f"option.{name}": value for name, value in options.items()} | more


def curve(epoch: EpochResult) -> Epoch:
    """What records hold of an epoch."""
    return Epoch(
        epoch=epoch.epoch,
        lr=epoch.lr,
        train_loss=epoch.train_loss,
        val_loss=epoch.val_loss,
        val_top1=epoch.val_top1,
    )


def predict_test(cell: Cell, model: VideoMamba) -> pd.DataFrame:
    """Logits of every test view.

    Raises:
        TrainingFailed: logits are not finite, or memory ran out.
    """
    if cell.team:
        cell.team.order("test")
    recipe, clips = cell.config.datasets[cell.dataset].recipe, cell.clips("test")
    with failures(), progress(f"{cell.name} test") as on_batch:
        predictions = predict(
            model,
            clips,
            cell.rows("test"),
            **batching(recipe, "test"),
            execution=cell.execution,
            on_batch=on_batch,
        )
    if not all(np.isfinite(logits).all() for logits in predictions["logits"]):
        raise TrainingFailed("logits of the test set are not finite")
    return predictions
