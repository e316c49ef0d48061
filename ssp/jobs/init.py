"""`ssp init`: a config for a researcher's own videos, which runs as it stands.

Design choices
- It looks with the eyes of the data stage: the same listing, carving and headers, so that the run finds the same.
- Rules choose the settings, and stand beside them as comments; nothing is asked, everything can be changed.
- Methods, their options and spaces are those of config/demo.yaml on a small backbone, of config/paper.yaml on a
  published one. Without weights, a run's small backbone is taken, or one is pre-trained as the demo's in fewer steps.
- What is written has been read back and checked.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ssp.backbone.checkpoint import read_checkpoint
from ssp.backbone.conversion import PATCH, SPACE, TIME, unwrapped
from ssp.config import (
    Architecture,
    CarvedTest,
    Clips,
    Dataset,
    Frames,
    Hyperparameters,
    Pretrain,
    Recipe,
    load_config,
    parse_config,
    read_yaml,
)
from ssp.config.plugins import PACKAGE
from ssp.data.check import describe
from ssp.data.manifest import carve_splits, own_tree, tabulate
from ssp.data.sources import read_listing
from ssp.errors import CheckpointError, ConfigError, DataError, SSPError
from ssp.files import write_text
from ssp.jobs.check import check_config
from ssp.methods.build import BACKBONES

CONFIGS = PACKAGE.parent / "config"
TEMPLATES = Path(__file__).parent / "templates"
METHODS = ("linear", "vpt", "ssp", "full")
STEPS, EPOCHS = 400, (5, 30)  # optimizer steps of a training, within these epochs
DENSE_SECONDS, WINDOW_S = (4, 20), 2.5  # lengths that windows are taken of, and how long these are
SHORT_PRETRAINING = {"clips": 4000, "held_out": 480, "steps": 900}  # of the demo's 6000, 960 and 1400: a minute less
LISTED = 20  # classes


@dataclass(frozen=True)
class Start:
    """The backbone that is tuned."""

    architecture: str | Architecture
    image_size: int
    num_frames: int
    weights: Path | None = None  # the user's
    reused: Path | None = None  # another run's
    pretrain: Pretrain | None = None

    @property
    def published(self) -> bool:
        """Whether it is one of the published sizes."""
        return isinstance(self.architecture, str)


def init_config(
    videos: Path, out: Path | None = None, weights: Path | None = None, layout: str | None = None, force: bool = False
) -> tuple[Path, list[str]]:
    """Look at own videos and write a config for them.

    Args:
        videos: their folder, or a CSV that lists them.
        out: the config; by default the folder's name, in the working directory.
        weights: of a pre-trained backbone; None: a small one.
        layout: how paths below the folder read.
        force: whether `out` may be replaced.

    Returns:
        The path, and what was found.

    Raises:
        ConfigError: `out` is there already, or has the name of a config of this software.
        CheckpointError: the weights are no VideoMamba's.
        DataError: the videos cannot be listed.
    """
    out = out or Path(f"{_name(videos)}.yaml")
    if out.exists() and not force:
        raise ConfigError(f"{out}: is there already; name another file with --out, or replace it with --force")
    name = _name(out)
    if (CONFIGS / f"{name}.yaml").exists():
        raise ConfigError(
            f"{out}: '{name}' is a config of this software, whose results it would share; take another --out"
        )
    settings, manifest, broken = _look(videos, layout)
    start = start_from(weights) if weights else _small_start()
    found = _found(manifest, broken)
    words = {
        "command": shlex.join(["ssp", "init", str(videos), *_said(out, weights, layout)]),
        "out": out,
        "found": [re.sub(r"[^\x20-\x7e\xa0-\uffff]", "?", line) for line in found],
        "name": name,
        "title": f"Own videos: {_name(videos)}, on {weights.name if weights else 'a small backbone of moving shapes'}",
        "dataset": _name(videos),
        "source": settings.source,
        "videos": str(videos.absolute()),
        "layout": layout,
        "carved": settings.test,
        "has_validation": bool((manifest["split"] == "val").any()),
        "gpus": int(torch.cuda.is_available()),
    }
    text = _template().render(words | _backbone(start) | rules(manifest, broken, start) | _rows(start))
    config = parse_config(yaml.safe_load(text), str(out))
    check_config(config, str(out))
    write_text(out, text)
    return out, found


def _look(videos: Path, layout: str | None) -> tuple[Dataset, pd.DataFrame, list[dict[str, str]]]:
    """What the data stage will find: data set (of which training is still open), manifest, unreadable videos."""
    source = "table" if videos.suffix.lower() == ".csv" else "folder"
    if source == "folder" and videos.is_file():
        raise ConfigError(f"{videos}: neither a folder nor a CSV; name what holds, or lists, your videos")
    if source == "table" and layout:
        raise ConfigError("--layout: only for folders; the table says class, split and group")
    tree = own_tree(videos)
    listing = read_listing(source, tree, split=1, layout=layout)
    settings = Dataset(
        source=source,
        videos=videos,
        layout=layout,
        test=None if all(entry.split for entry in listing.entries) else CarvedTest(),
        frames=Frames(shards=1),
        clips=Clips(sampling="sparse", num_frames=1),
        checkpoint="start",
        recipe=Recipe(epochs=1, batch_size=1),
        start=Hyperparameters(lr=1),
    )
    splits = carve_splits(listing, settings)
    return settings, *tabulate(listing, splits, tree, processes=2, limit_s=settings.frames.timeout_s)


def _found(manifest: pd.DataFrame, broken: list[dict[str, str]]) -> list[str]:
    """What the user wants to know about the videos; what gives reason to doubt begins with `!`."""
    counts = manifest.groupby(["class_name", "split"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["train", "val", "test"], fill_value=0)
    lines = [f"{len(manifest)} videos in {len(counts)} classes: {', '.join(f'{counts[s].sum()} {s}' for s in counts)}"]
    for name, row in counts.head(LISTED).iterrows():
        lines.append(f"  {name}: {', '.join(f'{row[split]} {split}' for split in counts)}")
    if len(counts) > LISTED:
        lines.append(f"  and {len(counts) - LISTED} more classes")
    lines += [f"! cannot be read: {video['id']} ({video['reason']})" for video in broken]
    lines += describe(manifest, len(counts), own=True)
    if (smallest := counts["test"].min()) < 10:
        lines.append(f"! as few as {smallest} test videos a class: only large differences can be found")
    return lines


def rules(manifest: pd.DataFrame, broken: list[dict[str, str]], start: Start) -> dict[str, Any]:
    """Sampling, size of batches, length of training: see the comments of the template."""
    seen = manifest[manifest["frames"] > 0]
    if seen.empty:
        raise DataError(f"none of the videos can be read; of the first: {broken[0]['reason']}")
    fps = float(seen["fps"].median()) or 25.0
    frames = float(seen["frames"].median())
    is_dense = DENSE_SECONDS[0] < frames / fps <= DENSE_SECONDS[1]
    stride = max(1, round(WINDOW_S * fps / start.num_frames))
    train = int((seen["split"] != "test").sum())
    batch = largest = 32 if start.published else 16
    while batch > 1 and train < 4 * batch:
        batch //= 2
    epochs = min(max(EPOCHS[0], math.ceil(STEPS / math.ceil(train / batch))), EPOCHS[1])
    return {
        "seconds": frames / fps,
        "sampling": "dense" if is_dense else "sparse",
        "stride": stride,
        "segments": min(4, math.ceil(frames / (start.num_frames * stride))),
        "batch": batch,
        "largest_batch": largest,
        "epochs": epochs,
        "warmup": max(1, epochs // 10),
        "shards": 1 + len(manifest) // 500,
        "short_side": start.image_size * 8 // 7,
        "max_broken": round(0.05 + len(broken) / len(manifest), 2),
    }


def _small_start() -> Start:
    """The demo's backbone: of a run that has pre-trained one, else to be pre-trained in fewer steps."""
    demo = load_config(CONFIGS / "demo.yaml")
    checkpoint = next(iter(demo.backbone.checkpoints.values()))
    size = demo.backbone.architecture, demo.backbone.image_size, checkpoint.num_frames
    found: list[tuple[int, str, Path]] = []
    for path in Path("results").glob("*/config.yaml"):
        try:
            config = load_config(path)
        except SSPError:
            continue  # of another version
        for name, theirs in config.backbone.checkpoints.items():
            file = path.parent / "backbone" / f"{name}.safetensors"
            if (config.backbone.architecture, config.backbone.image_size, theirs.num_frames) != size:
                continue
            if theirs.pretrain and file.is_file():
                found.append((theirs.pretrain.steps, path.parent.name, file))
    pretrain = checkpoint.pretrain.model_copy(update=SHORT_PRETRAINING)
    return Start(*size, reused=max(found)[-1] if found else None, pretrain=pretrain)


def start_from(weights: Path) -> Start:
    """What the shapes in a checkpoint say about the model."""
    state = unwrapped(read_checkpoint(weights))
    try:
        patch, rows = state[PATCH].shape[-1], state[SPACE].shape[1] - 1  # without the class token's
        depth = 1 + max(int(found[1]) for key in state if (found := re.match(r"layers\.(\d+)\.", key)))
        size = Architecture(embed_dim=state[SPACE].shape[2], depth=depth, patch_size=patch)
    except (KeyError, IndexError, ValueError):
        raise CheckpointError(f"{weights}: no weights of a VideoMamba (its embeddings are not there)") from None
    named = next((name for name, published in BACKBONES.items() if published == size), size)
    frames = state[TIME].shape[1] if TIME in state else 8
    return Start(named, patch * math.isqrt(rows), frames, weights=weights)


def _backbone(start: Start) -> dict[str, Any]:
    size = start.architecture
    return {
        "architecture": size if start.published else _flow(size.model_dump()),
        "image_size": start.image_size,
        "num_frames": start.num_frames,
        "published": start.published,
        "weights": str(start.weights.absolute()) if start.weights else None,
        "reused": str(start.reused) if start.reused else None,
        "pretrain": _flow(start.pretrain.model_dump(exclude_defaults=True)) if start.pretrain else None,
    }


def _rows(start: Start) -> dict[str, Any]:
    """Rows and shared space of the shipped config whose backbone is of that kind."""
    plain = read_yaml(CONFIGS / ("paper.yaml" if start.published else "demo.yaml"))
    kept = ("options", "space", "start")
    rows = {name: {key: value for key, value in plain["methods"][name].items() if key in kept} for name in METHODS}
    return {"rows": {name: _flow(row) for name, row in rows.items()}, "space": _flow(plain["sweep"]["space"])}


def _flow(plain: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """One line of YAML; JSON is that, and reads the same."""
    return re.sub(r'"([a-z_]+)"(?=[:,}\]])', r"\1", json.dumps(plain))


def _name(path: Path) -> str:
    """A name for configs and folders, of what a path is called."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", path.absolute().with_suffix("").name).strip("-_") or "own"


def _said(out: Path, weights: Path | None, layout: str | None) -> list[str]:
    given = {"--out": out, "--weights": weights, "--layout": layout}
    return [word for option, value in given.items() if value is not None for word in (option, str(value))]


def _template() -> Any:  # noqa: ANN401 - jinja's
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    ).get_template("own.yaml.j2")
