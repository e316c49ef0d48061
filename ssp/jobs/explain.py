"""What SSP attends to in test videos of a data set: the job of the rule `explain`.

Design choices
- After the fact: it reads a finished run's record, predictions and weights, and nothing that trains reads it.
- The videos are chosen by a rule from the run's own predictions. They are read as the test read them, in the view that
  `ssp predict --explain` shows too; what they were named is what the record's predictions say over all views.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from scipy.special import softmax

from ssp.config import Config
from ssp.errors import ConfigError, RecordError
from ssp.figures.attention import Shown, draw_explanations, frames_of
from ssp.files import atomic_path, file_sha256, write_json
from ssp.jobs.cell import Cell
from ssp.jobs.inference import central_view, saved_model
from ssp.methods.observe import explain_clip
from ssp.records.explained import Explained, ExplainedClip, Origin
from ssp.records.predictions import merge_views
from ssp.records.record import Record
from ssp.records.runs import read_run, train_again

log = logging.getLogger(__name__)


def explain_dataset(config: Config, dataset: str) -> Explained:
    """Write the picture and the facts of a data set, from the run of the explained row with the config's first seed.

    Raises:
        ConfigError: the config explains no row, or has no such data set.
        RecordError: the record or its predictions are missing, broken, or of another config or other data; or the
            weights are others than its own.
        CheckpointError: its weights are missing or do not fit.
        DataError: manifest or frames are missing.
    """
    if not config.explained:
        raise ConfigError(f"config '{config.name}': `explained` names no row; name one of ssp, such as explained: ssp")
    cell, seed = Cell(config, dataset, config.explained), config.seeds[0]
    record, predictions = _run(cell, seed)
    facts, picture = cell.paths.explained(dataset), cell.paths.explained_picture(dataset)
    if record.status == "failed":
        log.warning("%s seed %d failed, nothing to explain: %s", cell.name, seed, record.reason)
        explained = Explained(made_from=Origin.of(record))
        picture.unlink(missing_ok=True)
    else:
        clips, shown = _explain(cell, seed, predictions)
        content = draw_explanations(shown)
        with atomic_path(picture) as temporary:
            temporary.write_bytes(content)
        explained = Explained(
            made_from=Origin.of(record),
            weights=file_sha256(cell.paths.weights(dataset, cell.method, seed)),
            picture=file_sha256(picture),
            clips=clips,
        )
    write_json(facts, explained.model_dump(mode="json"))
    return explained


def _run(cell: Cell, seed: int) -> tuple[Record, pd.DataFrame]:
    """The run's record and predictions; they must be of this config and these data."""
    record, predictions = read_run(cell.config, cell.dataset, cell.method, seed)
    if record.manifest_hash != cell.manifest_hash:
        path = cell.paths.record(cell.dataset, cell.method, seed)
        again = train_again(cell.config, cell.dataset, cell.method, seed)
        raise RecordError(f"{path}: stale, made with another manifest; run again: {again}")
    return record, predictions


def choose_videos(videos: pd.DataFrame) -> list[str]:
    """Ids of the videos to show: the first that was named right, the first of another class that was named wrong.

    Where all are right or all are wrong, the first of two classes; where there is one class, one video.

    Args:
        videos: merged predictions, see `ssp.records.predictions.merge_views`; at least one.
    """
    videos = videos.sort_values("id", kind="stable")
    right = videos["predicted"] == videos["label"]
    first = (videos[right] if right.any() else videos).iloc[0]
    others = videos[videos["label"] != first["label"]]
    wrong = others[~right[others.index]]
    return [first["id"], *(others if wrong.empty else wrong)["id"].iloc[:1]]


def _explain(cell: Cell, seed: int, predictions: pd.DataFrame) -> tuple[list[ExplainedClip], list[Shown]]:
    """Facts and pictures of the chosen videos."""
    model, _ = saved_model(cell, seed)
    clips, names = cell.clips("test"), cell.class_names
    view = central_view(clips.clips)
    places = {video: place for place, video in enumerate(cell.rows("test")["id"])}
    facts, shown = [], []
    for video in choose_videos(merge_views(predictions)):
        logits = np.stack(predictions.loc[predictions["id"] == video, "logits"].to_numpy())
        probabilities = softmax(logits.astype(np.float64), axis=1).mean(axis=0)
        predicted = int(probabilities.argmax())
        clip, label, _, _ = clips[places[video] * clips.views + view]
        with cell.execution.autocast():
            explanation = explain_clip(model, cell.execution.clips(clip))
        strength = explanation.mean_strength
        fact = ExplainedClip(
            id=video,
            label=label,
            name=names[label],
            predicted=predicted,
            predicted_name=names[predicted],
            probability=float(probabilities[predicted]),
            view=view,
            gate=explanation.mean_gate.tolist(),
            strength=(float(strength.min()), float(strength.max())),
        )
        facts.append(fact)
        shown.append(Shown(explanation, frames_of(clip), _title(fact)))
    return facts, shown


def _title(clip: ExplainedClip) -> str:
    named = "named right" if clip.right else f"named {clip.predicted_name}"
    return f"{clip.name}, {named} ({100 * clip.probability:.0f} %); {clip.id}"
