"""Prediction: logits of every view of every video, as the table that all metrics are functions of.

Design choices
- Evaluation writes down logits and stops; merging views and counting hits is `ssp.records.predictions`, without torch.
- Nothing here depends on which clips share a batch, unless the model itself does (the published gates of SSP and STOP,
  which divide by what they find in the whole batch). For these, batches can be those of the published test
  (`co_batched`): views in turn, each of all videos, dealt out to the devices of that run.
- Rows are sorted by (id, view) and written with a fixed schema: equal logits give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from ssp.config import Recipe
from ssp.files import atomic_path
from ssp.records.predictions import SCHEMA
from ssp.training.execution import Execution
from ssp.training.stopping import stop_if_asked


def predict(
    model: nn.Module,
    dataset: Dataset,
    rows: pd.DataFrame,
    *,
    batch_size: int,
    execution: Execution,
    devices: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Logits of every view.

    Args:
        model: maps (B, 3, T, H, W) to (B, C).
        dataset: its items are (uint8 clip (3, T, H, W), label, row, view).
        rows: the videos; id and group are looked up at position `row`.
        batch_size: clips per forward pass.
        execution: device, precision and loader processes.
        devices: of the published run, whose batches these are then; None: clips in order.
        on_batch: called with (clips done, all clips).

    Returns:
        Columns id, group, label, view, logits; sorted by (id, view).
    """
    ids, groups = rows["id"].to_numpy(), rows["group"].to_numpy()
    found: dict[str, list] = {name: [] for name in SCHEMA.names}
    for logits, labels, positions, views in forward_all(model, dataset, batch_size, devices, execution):
        found["id"].extend(str(ids[i]) for i in positions.tolist())
        found["group"].extend(str(groups[i]) for i in positions.tolist())
        found["label"].extend(labels.tolist())
        found["view"].extend(views.tolist())
        found["logits"].extend(logits.numpy())
        if on_batch:
            on_batch(min(len(found["id"]), len(dataset)), len(dataset))
    # Clips that filled up the last batches are there twice: the first counts, as in the published merging.
    table = pd.DataFrame(found).drop_duplicates(["id", "view"])
    return table.sort_values(["id", "view"], kind="stable", ignore_index=True)


def validate(
    model: nn.Module, dataset: Dataset, *, batch_size: int, execution: Execution, devices: int | None = None
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy (percent) over a set that has one view per video; batches as in `predict`.

    Clips that fill up the last batches count twice, as published.
    """
    loss, correct, total = 0.0, 0, 0
    for logits, labels, _, _ in forward_all(model, dataset, batch_size, devices, execution):
        loss += cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
        total += len(labels)
    return loss / total, 100 * correct / total


def evaluation_batch(recipe: Recipe) -> int:
    """Clips per forward pass without gradients: twice the videos of a training pass."""
    return 2 * (recipe.micro_batch or recipe.batch_size)


def batching(recipe: Recipe, of: Literal["validation", "test"]) -> dict[str, int | None]:
    """The arguments `batch_size` and `devices` of `validate` and `predict`."""
    if together := recipe.co_batched:
        return {"batch_size": getattr(together, of), "devices": together.devices}
    return {"batch_size": evaluation_batch(recipe), "devices": None}


def co_batches(videos: int, views: int, batch_size: int, devices: int) -> list[list[int]]:
    """Clips (video x views + view) of each batch of the published evaluation, one device after the other.

    The clips are one view of all videos after the other; device r has every `devices`-th of them from the r-th on. The
    first clips come again at the end, so that all devices have as many.
    """
    order = [video * views + view for view in range(views) for video in range(videos)]
    filled = list(islice(cycle(order), math.ceil(len(order) / devices) * devices))
    shares = [filled[device::devices] for device in range(devices)]
    return [share[i : i + batch_size] for share in shares for i in range(0, len(share), batch_size)]


def forward_all(
    model: nn.Module, dataset: Dataset, batch_size: int, devices: int | None, execution: Execution
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Run over a set in evaluation mode: yields float32 logits (b, C), labels, rows and views, on the CPU.

    Several processes share the batches out, and each has all of them, in the same order as one alone.
    """
    if devices:
        batches = co_batches(len(dataset) // dataset.views, dataset.views, batch_size, devices)
    else:
        batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    was_training, group = model.training, execution.group
    model.eval()
    try:
        loader = iter(execution.loader(dataset, group.share(batches)))

        def forward() -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
            own = next(loader, None)
            stop_if_asked()
            if own is None:  # others have the last batches
                return None
            clips, *about = own
            with torch.inference_mode(), execution.autocast():
                logits = model(execution.clips(clips))
            return logits.float().cpu(), *about

        for _ in range(math.ceil(len(batches) / group.size)):
            yield from filter(None, group.gather("evaluation", forward))
    finally:
        model.train(was_training)


def write_predictions(predictions: pd.DataFrame, path: str | Path) -> None:
    """Write a predictions table atomically; the same table gives the same bytes."""
    table = pa.Table.from_pandas(predictions, schema=SCHEMA, preserve_index=False).replace_schema_metadata(None)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def empty_predictions() -> pd.DataFrame:
    """The predictions of a failed cell: all columns, no rows."""
    return SCHEMA.empty_table().to_pandas()
