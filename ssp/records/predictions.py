"""What a predictions file says: views merged into videos, and the metrics of a cell. Pure functions, no torch.

Design choices
- A predictions file keeps the logits of every test view, so every way of merging views or ids is a function of it.
- It is sealed by its record, which holds its checksum: results are read by `recorded_predictions` alone.
- Views are merged as the published code does: the mean over the views of each view's softmax, in float64; in blocks of
  videos that stay in a core's cache, as there are files of 446,000 views (benchmarks/verify.py).
- `ids="fixed"` merges by the full video id. `ids="published"` merges by file name up to its first dot and keeps the
  first row of each (name, view): the cameras of a Breakfast recording collapse into one, as in the published numbers.
- Equal probabilities are ranked by class number, so that top-1 is `argmax` and no metric depends on a sort's whims.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from ssp.config import Quirk
from ssp.errors import RecordError
from ssp.files import file_sha256

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("label", pa.int64()),
        ("view", pa.int64()),
        ("logits", pa.list_(pa.float32())),
    ]
)
_PIECE = 1 << 13  # rows that are decoded at once
_BLOCK = 256  # rows whose softmax is taken at once: 0.4 MB for 174 classes
_LENGTHS = "predictions: logits differ in length from row to row; run the cell again"


def read_predictions(path: str | Path, fix: str = "run the cell again") -> pd.DataFrame:
    """Read a predictions file: one row per video and view with id, group, label, view and logits (C values).

    `fix` ends the message of an error.

    Raises:
        RecordError: the file is missing, is no Parquet, or lacks a column.
    """
    try:
        # ParquetFile, not read_table: the latter would take folder names such as `label=3` for columns.
        # In pieces, by one thread: nearly all bytes are one column, and in one go it takes twice the memory.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        table = pa.Table.from_batches(file.iter_batches(_PIECE, use_threads=False), file.schema_arrow)
    except FileNotFoundError:
        raise RecordError(f"{path}: missing; {fix}") from None
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"{path}: not a Parquet file ({error}); {fix}") from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise RecordError(f"{path}: no column {', '.join(missing)}; {fix}")
    return table.select(SCHEMA.names).to_pandas()


def recorded_predictions(path: str | Path, sha256: str, fix: str) -> pd.DataFrame:
    """Predictions, proven to be those that a record was made from: `sha256` is what it says of them.

    Raises:
        RecordError: as `read_predictions`, or it is another file; the message ends with `fix`.
    """
    predictions = read_predictions(path, fix)
    if file_sha256(path) != sha256:
        raise RecordError(f"{path}: not the file that its record was made from (SHA-256); {fix}")
    return predictions


def merged_ids(ids: Iterable[str], how: Quirk) -> list[str]:
    """What videos are called once views are merged."""
    return [PurePosixPath(path).name.split(".")[0] for path in ids] if how == "published" else list(ids)


def merge_views(predictions: pd.DataFrame, ids: Quirk = "fixed") -> pd.DataFrame:
    """One row per video, in the order of ids.

    Args:
        predictions: rows of a predictions file.
        ids: what makes rows one video: the full id ("fixed") or the file name up to its first dot ("published").

    Returns:
        Columns id, group, label, predicted (class with the highest mean probability), rank (number of classes ahead of
        the true one: 0 is a top-1 hit, below 5 a top-5 hit), views.

    Raises:
        RecordError: logits that are not finite or not of one length, a view that is there twice, a label outside the
            classes, or a video whose rows disagree about label or group.
    """
    if predictions.empty:
        columns = {"id": str, "group": str, "label": "int64", "predicted": "int64", "rank": "int64", "views": "int64"}
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
    rows = predictions.sort_values(["id", "view"], kind="stable")
    if ids == "published":
        rows = rows.assign(id=merged_ids(rows["id"], ids))
        rows = rows.drop_duplicates(["id", "view"]).sort_values(["id", "view"], kind="stable")
    elif rows.duplicated(["id", "view"]).any():
        twice = rows.loc[rows.duplicated(["id", "view"])].iloc[0]
        raise RecordError(f"predictions: view {twice['view']} of '{twice['id']}' is there twice; ids must be unique")
    names, first, counts = np.unique(rows["id"].to_numpy(dtype=str), return_index=True, return_counts=True)
    mean = _mean_probabilities(rows["logits"].to_numpy(), names, first)
    label, group = rows["label"].to_numpy(), rows["group"].to_numpy(dtype=str)
    if ids == "fixed":
        mixed = (label != np.repeat(label[first], counts)) | (group != np.repeat(group[first], counts))
        if mixed.any():
            name = rows["id"].iloc[int(mixed.argmax())]
            raise RecordError(f"predictions: rows of '{name}' disagree about its label or group; run the cell again")
    label = label[first]
    if label.min() < 0 or label.max() >= mean.shape[1]:
        raise RecordError(f"predictions: a label is outside the {mean.shape[1]} classes; run the cell again")
    own = np.take_along_axis(mean, label[:, None], axis=1)
    earlier = np.arange(mean.shape[1]) < label[:, None]
    rank = ((mean > own) | ((mean == own) & earlier)).sum(axis=1)
    return pd.DataFrame(
        {
            "id": names,
            "group": group[first],
            "label": label,
            "predicted": mean.argmax(axis=1),
            "rank": rank,
            "views": counts,
        }
    )


def metrics(merged: pd.DataFrame) -> dict[str, float | int]:
    """Metrics of merged predictions: top1 and top5 in percent, correct, videos, views (rows that were merged)."""
    videos, correct = len(merged), int((merged["rank"] == 0).sum())
    top5 = int((merged["rank"] < 5).sum())
    return {
        "top1": 100 * correct / videos if videos else float("nan"),
        "top5": 100 * top5 / videos if videos else float("nan"),
        "correct": correct,
        "videos": videos,
        "views": int(merged["views"].sum()),
    }


def _mean_probabilities(logits: np.ndarray, names: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Mean over the views of each video of their softmax, float64 (videos, C).

    Args:
        logits: (rows,) of (C,), those of a video side by side.
        names: (videos,).
        first: (videos,), the row where each video begins.

    Raises:
        RecordError: logits are not finite or not of one length.
    """
    bounds = np.append(first, len(logits))
    videos = max(1, _BLOCK * len(first) // len(logits))
    means = []
    for start in range(0, len(first), videos):
        own = bounds[start : start + videos + 1]
        block = _float64(logits[own[0] : own[-1]])
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            name = names[np.searchsorted(bounds, own[0] + finite.argmin(), side="right") - 1]
            raise RecordError(f"predictions: logits of '{name}' are not finite; run the cell again")
        means.append(np.add.reduceat(softmax(block, axis=1), own[:-1] - own[0], axis=0) / np.diff(own)[:, None])
    if len({mean.shape[1] for mean in means}) > 1:
        raise RecordError(_LENGTHS)
    return np.concatenate(means)


def _float64(logits: np.ndarray) -> np.ndarray:
    """Logits of some rows (rows,) of (C,) as one array (rows, C)."""
    try:
        return np.stack(logits).astype(np.float64)
    except ValueError:
        raise RecordError(_LENGTHS) from None
