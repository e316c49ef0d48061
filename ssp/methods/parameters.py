"""How many parameters a model has, what of it trains, and which way of counting gives the published figures.

- The published column mixes conventions: some figures count new parameters alone, some count head and final norm too,
  most are cut after two decimals and not rounded. So the table shows every count, and names those that meet the figure.
- Models of the table are built on torch's meta device (shapes without storage), one per clip length; data sets of one
  length differ in the head alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from ssp.backbone.layout import is_head, is_readout
from ssp.config import Row
from ssp.data.manifest import class_count
from ssp.methods.build import BACKBONES, build_model
from ssp.methods.registry import method_names
from ssp.records.published import BACKBONE, published_parameters

if TYPE_CHECKING:
    from ssp.backbone.videomamba import VideoMamba
    from ssp.config import Config

PAPER_DATASETS = {"hmdb51": (51, 8), "ucf101": (101, 8), "ssv2": (174, 8), "breakfast": (10, 32)}  # classes, frames
COUNTS = ("total", "trainable", "extra", "head", "extra_norm_head")


def parameter_counts(model: VideoMamba) -> dict[str, int]:
    """Numbers of parameters.

    Returns:
        total: all; trainable: those that train; extra: what the method added (neither head nor final norm);
        head: weight and bias of the head, without the final norm; tuned: those that train, without head and final norm
        (a method that trains what was there before adds nothing and tunes something).
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        "total": sum(sizes.values()),
        "trainable": sum(sizes[name] for name in trains),
        "extra": sum(size for name, size in sizes.items() if name in model.added),
        "head": sum(size for name, size in sizes.items() if is_head(name)),
        "tuned": sum(sizes[name] for name in trains if not is_readout(name)),
    }


def parameter_table(
    backbones: Mapping[str, Any] | Sequence[str] = tuple(BACKBONES),
    methods: Mapping[str, dict[str, Any]] | None = None,
    datasets: Mapping[str, tuple[int, int]] = PAPER_DATASETS,
    *,
    img_size: int = 224,
) -> pd.DataFrame:
    """Parameters of every backbone, method and data set, beside the published figures (VideoMamba-M only).

    Args:
        backbones: names, or name -> what `build_model` takes as backbone.
        methods: registered name -> options; by default all registered methods with their default options.
        datasets: name -> (classes, frames of a clip).
        img_size: side in pixels.

    Returns:
        Rows backbone x method x data set. Columns backbone, method, dataset, total, trainable, extra, head, tuned,
        extra_norm_head (extra + final norm + head), published_m (millions; NaN where not published), met_by (the
        counts that give the published figure, and whether rounded or truncated to two decimals; empty where none
        does), difference_m (millions: the count that meets it, or else the nearest one, minus the published figure).
    """
    backbones = backbones if isinstance(backbones, Mapping) else {name: name for name in backbones}
    methods = {name: {} for name in method_names()} if methods is None else methods
    rows = {name: Row(name, name, name, options, published=name) for name, options in methods.items()}
    return _row_table(backbones, rows, datasets, img_size)


def config_parameter_table(config: Config) -> pd.DataFrame:
    """The parameter table of a config's backbone, rows (with their options; points of ablations, too) and data sets."""
    architecture = config.backbone.architecture
    return _row_table(
        {architecture if isinstance(architecture, str) else config.name: architecture},
        config.rows,
        {name: (class_count(config, name), d.clips.num_frames) for name, d in config.datasets.items()},
        config.backbone.image_size,
    )


def _row_table(
    backbones: Mapping[str, Any], settings: Mapping[str, Row], datasets: Mapping[str, tuple[int, int]], img_size: int
) -> pd.DataFrame:
    published = published_parameters()
    rows = []
    for backbone, architecture in backbones.items():
        for method, setting in settings.items():
            figure = published.get(setting.published) if backbone == BACKBONE else None
            models: dict[int, VideoMamba] = {}
            for dataset, (classes, frames) in datasets.items():
                with torch.device("meta"):
                    if frames not in models:
                        models[frames] = build_model(
                            architecture,
                            setting.method,
                            classes,
                            num_frames=frames,
                            img_size=img_size,
                            method_options=setting.options,
                        )
                    model = models[frames]
                    model.head = nn.Linear(model.head.in_features, classes)
                counts = parameter_counts(model)
                readout = sum(p.numel() for name, p in model.named_parameters() if is_readout(name))
                counts["extra_norm_head"] = counts["extra"] + readout
                rows.append(
                    {"backbone": backbone, "method": method, "dataset": dataset}
                    | counts
                    | {"published_m": figure}
                    | _compare(counts, figure)
                )
    return pd.DataFrame(rows).astype({"published_m": float, "difference_m": float})


def _compare(counts: Mapping[str, int], figure: float | None) -> dict[str, Any]:
    """Which counts give the published figure, and how far off the nearest one is."""
    if figure is None:
        return {"met_by": "", "difference_m": None}
    hundredths = round(figure * 100)
    met: dict[str, str] = {}
    for name in ("extra", "extra_norm_head", "trainable", "total"):
        ways = {
            "rounded": (counts[name] + 5_000) // 10_000,
            "truncated": counts[name] // 10_000,
            "rounded to whole millions": (counts[name] + 500_000) // 1_000_000 * 100,
        }
        fitting = [way for way, value in ways.items() if value == hundredths]
        same = next((other for other in met if counts[other] == counts[name]), None)
        if fitting and same is None:  # counts that are the same number are named once
            met[name] = f"{name} ({' and '.join(fitting)})"
    candidates = met or [name for name in COUNTS if name != "head"]
    nearest = min((counts[name] for name in candidates), key=lambda count: abs(count / 1e6 - figure))
    return {"met_by": ", ".join(met.values()), "difference_m": nearest / 1e6 - figure}
