"""The trainings and tests of a cell, as trials and seeds run them: shown, logged, tracked, and shared by processes.

Design choices
- One generator of epochs drives a training, whoever asks for it: a sweep prunes and a seed keeps weights between them.
- Where several processes share a training, the first one leads: what it is asked to do, it has the others do as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from ssp.backbone.videomamba import VideoMamba
from ssp.config import Config, slice_hash
from ssp.errors import ConfigError
from ssp.jobs.cell import Cell
from ssp.jobs.team import obey, team
from ssp.jobs.tracking import TrackedRun
from ssp.progress import progress
from ssp.records.record import Chosen, Epoch
from ssp.training.evaluate import batching, predict
from ssp.training.failure import TrainingFailed, failures
from ssp.training.features import Features
from ssp.training.loop import EpochResult, TrainingState, fit
from ssp.training.parallel import current, launched

log = logging.getLogger(__name__)


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
        save_every_s=60 * getattr(cell.config.compute, cell.job).save_minutes,
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
