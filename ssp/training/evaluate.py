"""Prediction: logits of every view of every video, as the table that all metrics are functions of.

Design choices
- Evaluation writes down logits and stops; merging views and counting hits is `ssp.records.predictions`, without torch.
- Nothing here depends on which clips share a batch, unless the model itself does (SSP's published entropy norm).
- Rows are sorted by (id, view) and written with a fixed schema: equal logits give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from ssp.files import atomic_path
from ssp.records.predictions import SCHEMA
from ssp.training.execution import Execution


def predict(
    model: nn.Module,
    dataset: Dataset,
    rows: pd.DataFrame,
    *,
    batch_size: int,
    execution: Execution,
    on_batch: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Logits of every view.

    Args:
        model: maps (B, 3, T, H, W) to (B, C).
        dataset: its items are (clip (3, T, H, W), label, row, view).
        rows: the videos; id and group are looked up at position `row`.
        batch_size: clips per forward pass.
        execution: device, precision and loader processes.
        on_batch: called with (clips done, all clips).

    Returns:
        Columns id, group, label, view, logits; sorted by (id, view).
    """
    ids, groups = rows["id"].to_numpy(), rows["group"].to_numpy()
    found: dict[str, list] = {name: [] for name in SCHEMA.names}
    for logits, labels, positions, views in forward_all(model, dataset, batch_size, execution):
        found["id"].extend(str(ids[i]) for i in positions.tolist())
        found["group"].extend(str(groups[i]) for i in positions.tolist())
        found["label"].extend(labels.tolist())
        found["view"].extend(views.tolist())
        found["logits"].extend(logits.numpy())
        if on_batch:
            on_batch(len(found["id"]), len(dataset))
    return pd.DataFrame(found).sort_values(["id", "view"], kind="stable", ignore_index=True)


def validate(model: nn.Module, dataset: Dataset, *, batch_size: int, execution: Execution) -> tuple[float, float]:
    """Mean cross-entropy and top-1 accuracy (percent) over a set that has one view per video."""
    loss, correct, total = 0.0, 0, 0
    for logits, labels, _, _ in forward_all(model, dataset, batch_size, execution):
        loss += cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
        total += len(labels)
    return loss / total, 100 * correct / total


def forward_all(
    model: nn.Module, dataset: Dataset, batch_size: int, execution: Execution
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Run over a set in order, in evaluation mode: yields float32 logits (b, C), labels, rows and views, on the CPU."""
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    was_training = model.training
    model.eval()
    try:
        for clips, labels, positions, views in execution.loader(dataset, batches):
            with torch.inference_mode(), execution.autocast():
                logits = model(clips.to(execution.device, non_blocking=True))
            yield logits.float().cpu(), labels, positions, views
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
