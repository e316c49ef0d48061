"""Saved weights put to use: test them again, or name the classes of a video (and draw what SSP attends to in it).

Design choices
- The model is built as the run's record says, from the same backbone file, and the tuned weights go on top.
- A single video is sampled, cropped and averaged over views exactly like a test video: it is a test set of one.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ssp.backbone.checkpoint import load_tuned
from ssp.backbone.videomamba import VideoMamba
from ssp.config import Clips, Config
from ssp.data import read_frames
from ssp.data.clips import ClipDataset
from ssp.data.video import probe
from ssp.errors import ConfigError, RecordError
from ssp.figures.attention import Shown, draw_explanations, frames_of
from ssp.files import atomic_path
from ssp.jobs.cell import Cell, predict_test
from ssp.methods.observe import check_explainable, explain_clip
from ssp.methods.registry import load_method
from ssp.records.predictions import merge_views, metrics
from ssp.records.readings import count_rereading, load_readings
from ssp.records.record import Record, load_record, package_versions
from ssp.records.runs import read_run, train_again
from ssp.scan import choose_backend
from ssp.training.evaluate import evaluation_batch, predict

log = logging.getLogger(__name__)
TOP = 5


def saved_model(cell: Cell, seed: int) -> tuple[VideoMamba, Record]:
    """The model of a run that is done, and its record.

    Raises:
        RecordError: there is no record, it says that the run failed, or that it started from another backbone.
        CheckpointError: weights are missing or do not fit.
    """
    if seed not in cell.config.seeds:
        raise ConfigError(f"--seed: {seed} is not in config '{cell.config.name}'; it has: {cell.config.seeds}")
    again = f"run again: {train_again(cell.config, cell.dataset, cell.method, seed)}"
    record = load_record(cell.paths.record(cell.dataset, cell.method, seed), again)
    if record.hyperparameters is None or record.status != "ok":
        raise RecordError(f"{cell.name} seed {seed} has no weights: the run failed ({record.reason})")
    if record.backbone_hash not in (None, cell.backbone_hash):
        raise RecordError(
            f"{cell.backbone_file()}: not the weights that {cell.name} seed {seed} was trained from; put those back, "
            f"or {again}"
        )
    model = cell.build(record.hyperparameters, seed)
    load_tuned(model, cell.paths.weights(cell.dataset, cell.method, seed))
    return model, record


def evaluate_saved(config: Config, dataset: str, method: str, seed: int) -> str:
    """Read test again with saved weights, count that in the record, and give the metrics as text.

    Numbers must be those of the record, to the last digit. Another device, scan backend or version of torch may round a
    logit otherwise and so move a video that is nearly a tie: then they are not these numbers, and the error says on
    what they were read.

    Raises:
        RecordError: as `ssp.records.runs.read_run` and `saved_model`; or the metrics are others than the record's.
    """
    cell = Cell(config, dataset, method)
    path, readings = cell.paths.record(dataset, method, seed), cell.paths.readings(dataset, method, seed)
    load_readings(readings)  # before anything is read that could not be counted
    read_run(config, dataset, method, seed)  # a record that is stale or whose seal is broken is nothing to compare with
    model, _ = saved_model(cell, seed)
    log.warning(
        "This reads test again, and the record counts it. What is chosen after a look at test is measured on videos "
        "that it was chosen by, and tables mark it"
    )
    found = metrics(merge_views(predict_test(cell, model), config.quirk("merge_ids")))
    record = count_rereading(path, readings)
    recorded = record.metrics.model_dump(include=set(found))
    if differing := [name for name in found if recorded[name] != found[name]]:
        numbers = ", ".join(f"{name} {found[name]}, not {recorded[name]}" for name in differing)
        raise RecordError(f"{path}: test read again gives {numbers}; {_unlike(cell, record)}")
    lines = [
        f"{name:8} {value:.2f}" if isinstance(value, float) else f"{name:8} {value}" for name, value in found.items()
    ]
    return "\n".join([*lines, f"equal to the record; test was read {record.test_readings} times from this choice"])


def other_environment(cell: Cell, record: Record) -> list[str]:
    """What here is not as where a record was made, and may round otherwise: device, scan, versions of packages."""
    versions, scan = package_versions(), choose_backend(torch.float32, cell.execution.device).name
    names = record.versions.keys() | versions.keys()
    return [
        f"{name} {now} (recorded: {then})"
        for name, now, then in (
            ("device", cell.execution.name, record.device),
            ("scan", scan, record.scan.backend if record.scan else scan),
            *((name, versions.get(name), record.versions.get(name)) for name in sorted(names)),
        )
        if now != then
    ]


def _unlike(cell: Cell, record: Record) -> str:
    """What numbers that are not the record's may come from, as the end of an error."""
    if other := other_environment(cell, record):
        return f"this is {', '.join(other)}, which may round otherwise: evaluate where it was trained"
    return "device, scan and versions are the record's, so weights, data or code are others; run again: " + train_again(
        cell.config, cell.dataset, cell.method, record.seed
    )


class _OneVideo:
    """A frame store of one video file, decoded when it is read."""

    def __init__(self, path: Path, short_side: int | None) -> None:
        self.path, self.short_side = path, short_side
        self.frames = probe(path).frames

    def length(self, row: int) -> int:
        return self.frames

    def read(self, row: int, indices: list[int]) -> np.ndarray:
        return read_frames(self.path, indices, self.short_side)


def predict_video(
    config: Config, dataset: str, method: str, seed: int, video: Path, picture: Path | None = None
) -> list[tuple[str, float]]:
    """The most probable classes of a video, with probabilities (mean over the test views of each one's softmax).

    With `picture`, what SSP attends to in the central view is drawn there (PNG).

    Raises:
        VideoError: the file cannot be decoded.
        ConfigError: a picture is asked for, of another method than SSP or not as a PNG.
    """
    cell = Cell(config, dataset, method)
    if picture is not None:
        check_explainable(load_method(method)(cell.options({})))
        if picture.suffix.lower() != ".png":
            raise ConfigError(f"--explain: {picture}: the picture is a PNG; give a name that ends in .png")
    settings = config.datasets[dataset]
    store = _OneVideo(video, settings.frames.short_side)
    model, _ = saved_model(cell, seed)
    rows = pd.DataFrame([{"row": 0, "id": str(video), "label": 0, "group": ""}])
    clips = ClipDataset(
        rows,
        store,
        settings.clips,
        image_size=config.backbone.image_size,
        mode="test",
        seed=0,
    )
    found = predict(model, clips, rows, batch_size=evaluation_batch(settings.recipe), execution=cell.execution)
    logits = torch.tensor(np.stack(found["logits"].to_numpy()), dtype=torch.float64)
    probabilities, classes = logits.softmax(1).mean(0).sort(descending=True, stable=True)
    names = cell.class_names
    top = [(names[c], p) for c, p in zip(classes.tolist()[:TOP], probabilities.tolist()[:TOP], strict=True)]
    if picture is not None:
        clip = clips[central_view(settings.clips)][0]
        with cell.execution.autocast():
            explanation = explain_clip(model, clip)
        title = f"{video.name}: {top[0][0]} ({100 * top[0][1]:.0f} %)"
        with atomic_path(picture) as temporary:
            temporary.write_bytes(draw_explanations([Shown(explanation, frames_of(clip), title)]))
    return top


def central_view(clips: Clips) -> int:
    """Which of a video's test views is the middle crop of its middle segment."""
    return clips.test_segments // 2 * clips.test_crops + clips.test_crops // 2
