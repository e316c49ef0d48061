"""An export: the tuned model of a run in a folder of its own, which needs neither the results nor the data.

- `model.safetensors`: all parameters. Where the method folds into the backbone it is folded, and costs nothing more.
- `config.json`: what to build around them, how videos are read, the names of the classes, and where it all comes from.
- `README.md`: the model card, for people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field

from ssp.backbone.checkpoint import describe, load_whole, save_whole
from ssp.config import Config
from ssp.config.plugins import PACKAGE
from ssp.data.augment import MEAN, STD
from ssp.data.licences import licence
from ssp.errors import CheckpointError, ConfigError, RecordError
from ssp.files import atomic_path, file_sha256, write_json, write_text
from ssp.jobs.cell import Cell
from ssp.methods.build import build_model
from ssp.methods.registry import load_method
from ssp.records.record import Chosen, Record, Stored, load_checked
from ssp.tables.long import read_tables
from ssp.training.execution import Execution
from ssp.use.predictor import Predictor, Reading
from ssp.use.run import Run

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
TEMPLATES = Path(__file__).parent / "templates"


class Model(Stored):
    """What is built: the arguments of `ssp.build_model`."""

    method: str = Field(description="linear: what was tuned is folded into the backbone, if another method tuned it.")
    options: dict[str, Any]
    embed_dim: int
    depth: int
    patch_size: int
    num_classes: int
    num_frames: int
    img_size: tuple[int, int] = Field(description="Height and width in pixels.")


class Normalisation(Stored):
    """Of pixels between 0 and 1, colour by colour (RGB)."""

    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


class Compute(Stored):
    """How forward passes ran at test."""

    gpu: bool
    bfloat16: bool


class Origin(Stored):
    """The run that it is of."""

    title: str = Field(description="Of the benchmark.")
    dataset: str
    row: str
    method: str
    seed: int
    hyperparameters: Chosen
    top1: float = Field(description="Of this run on test, percent.")
    commit: str
    dirty: bool | None
    config_hash: str
    manifest_hash: str
    backbone_hash: str | None
    tuned_sha256: str | None = Field(description="Of the file of tuned weights.")


class Exported(Stored):
    """config.json."""

    format: Literal[1] = 1
    model: Model
    classes: list[str] = Field(description="In the order of the outputs.")
    reading: Reading
    normalisation: Normalisation = Normalisation()
    compute: Compute
    origin: Origin
    sha256: str = Field(description="Of model.safetensors.")


def write_export(run: Run, out: Path) -> Path:
    """Write a run's model as a new folder: all of it or nothing.

    The run's predictor is folded where its method folds, and is not to be used afterwards.

    Raises:
        ConfigError: there is something at `out`.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; give a new folder")
    cell, record, predictor = run.cell, run.record, run.predictor
    model = predictor.model
    if folded := model.method.mergeable:
        model.method.merge(model)
    with atomic_path(out) as folder:
        folder.mkdir()
        save_whole(model, folder / WEIGHTS)
        exported = Exported(
            model=Model(**describe(model)),
            classes=predictor.classes,
            reading=predictor.reading,
            compute=Compute(gpu=predictor.execution.device.type == "cuda", bfloat16=predictor.execution.bfloat16),
            origin=Origin(
                title=cell.config.title,
                dataset=record.dataset,
                row=record.method,
                method=cell.row.method,
                seed=record.seed,
                hyperparameters=record.hyperparameters,
                top1=record.metrics.top1,
                commit=record.git.commit,
                dirty=record.git.dirty,
                config_hash=record.config_hash,
                manifest_hash=record.manifest_hash,
                backbone_hash=record.backbone_hash,
                tuned_sha256=record.weights_sha256,
            ),
            sha256=file_sha256(folder / WEIGHTS),
        )
        write_json(folder / CONFIG, exported.model_dump(mode="json"))
        write_text(folder / CARD, model_card(run, exported, folded=folded))
    return out


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export."""
    return (folder / CONFIG).is_file()


def read_export(folder: Path) -> Predictor:
    """The predictor of an export; on a GPU if it was tested on one and there is one.

    Raises:
        RecordError: config.json is damaged, or not of this version.
        CheckpointError: the weights are missing, damaged, or others.
        ConfigError: its method is not installed here.
    """
    again = "export it again"
    exported = load_checked(Exported, folder / CONFIG, "export", again)
    built, weights = exported.model, folder / WEIGHTS
    if exported.normalisation != Normalisation() or len(exported.classes) != built.num_classes:
        raise RecordError(f"{folder / CONFIG}: normalisation or classes are not those of the model; {again}")
    if not weights.is_file() or file_sha256(weights) != exported.sha256:
        raise CheckpointError(f"{weights}: missing, or not the weights that {CONFIG} has the SHA-256 of; {again}")
    model = build_model(
        {"embed_dim": built.embed_dim, "depth": built.depth, "patch_size": built.patch_size},
        built.method,
        built.num_classes,
        num_frames=built.num_frames,
        img_size=built.img_size,
        method_options=built.options,
    )
    load_whole(model, weights)
    compute = exported.compute
    device = torch.device("cuda" if compute.gpu and torch.cuda.is_available() else "cpu")
    return Predictor(model.to(device), exported.classes, exported.reading, Execution(device, compute.bfloat16))


def model_card(run: Run, exported: Exported, *, folded: bool) -> str:
    """The model card, as Markdown."""
    config, record, dataset = run.cell.config, run.record, run.cell.config.datasets[run.record.dataset]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    counts = run.manifest["split"].value_counts()
    return environment.get_template("model_card.md.j2").render(
        exported=exported,
        origin=exported.origin,
        metrics=record.metrics,
        title=load_method(run.cell.row.method).title,
        folded=folded,
        parameters=sum(parameter.numel() for parameter in run.predictor.model.parameters()),
        tuned=record.parameters,
        videos={split: int(counts.get(split, 0)) for split in ("train", "val", "test")},
        refit=config.refit,
        generated=dataset.generate is not None,
        own=dataset.videos is not None,
        licence=licence(dataset),
        checkpoint=dataset.checkpoint,
        pretrained=config.backbone.checkpoints[dataset.checkpoint].pretrain is not None,
        interval=_interval(config, run.cell, record),
        citation=_citation(),
    )


def _interval(config: Config, cell: Cell, record: Record) -> dict[str, Any] | None:
    """The row's mean over seeds with its interval, where the tables of these results have one."""
    try:
        table = read_tables(config).uncertainty
    except RecordError:
        return None
    found = table[(table["dataset"] == record.dataset) & (table["method"] == record.method)].dropna(subset=["low"])
    return None if found.empty else found.iloc[0].to_dict() | {"seeds": len(config.seeds)}


def _citation() -> dict[str, Any] | None:
    """CITATION.cff, where the repository is."""
    path = PACKAGE.parent / "CITATION.cff"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
