"""A finished run as a predictor, with what it rests on."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch

from ssp.config import Config
from ssp.data.manifest import class_names, content_hash, read_manifest
from ssp.errors import RecordError
from ssp.jobs.cell import Cell
from ssp.jobs.inference import saved_model
from ssp.records.record import Record
from ssp.training.evaluate import evaluation_batch
from ssp.use.predictor import Predictor, Reading


class Run(NamedTuple):
    """A predictor, and what it rests on."""

    predictor: Predictor
    cell: Cell
    record: Record
    manifest: pd.DataFrame


def load_run(config: Config, dataset: str, row: str, seed: int) -> Run:
    """The predictor of a run; on the CPU where there is no GPU, whatever the config asks trainings to run on.

    Raises:
        ConfigError: there is no such data set, row or seed.
        RecordError: the run's record is missing, or says that the run failed; or manifest or weights are others than
            its own.
        CheckpointError: tuned weights or the backbone are missing, damaged, or do not fit.
    """
    if config.compute.train.gpus and not torch.cuda.is_available():
        train = config.compute.train.model_copy(update={"gpus": 0})
        config = config.model_copy(update={"compute": config.compute.model_copy(update={"train": train})})
    cell = Cell(config, dataset, row)
    settings = config.datasets[dataset]
    model, record = saved_model(cell, seed)
    manifest = _manifest(cell, record)
    reading = Reading(
        clips=settings.clips,
        image_size=config.backbone.image_size,
        short_side=settings.frames.short_side,
        batch_size=evaluation_batch(settings.recipe),
    )
    classes = [*class_names(manifest, model.head.out_features).values()]
    return Run(Predictor(model, classes, reading, cell.execution), cell, record, manifest)


def _manifest(cell: Cell, record: Record) -> pd.DataFrame:
    """The manifest that a run was made with: kept with its results, or still where the data are."""
    kept = cell.paths.kept_manifest(cell.dataset)
    for path in (kept, cell.paths.manifest(cell.dataset)):
        if path.is_file() and content_hash(manifest := read_manifest(path)) == record.manifest_hash:
            return manifest
    raise RecordError(
        f"{kept}: missing, or not the manifest that {cell.name} was trained with, so classes have no names; put the "
        f"one of hash {record.manifest_hash} there"
    )
