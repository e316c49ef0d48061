"""A finished run as whoever uses its results gets it: a record of this config, and the predictions that it sealed."""

from __future__ import annotations

import pandas as pd

from ssp.config import Config, slice_change, slice_hash
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.predictions import recorded_predictions
from ssp.records.record import Record, load_record


def read_run(config: Config, dataset: str, method: str, seed: int) -> tuple[Record, pd.DataFrame]:
    """Record and predictions of a run; those of a failed one are empty.

    Raises:
        RecordError: the record is missing, broken, of another run or of another config; or the predictions are not
            those that it was made from.
    """
    paths = Paths.of(config)
    path = paths.record(dataset, method, seed)
    again = train_again(config, dataset, method, seed)
    if not path.is_file():
        raise RecordError(f"{path}: missing; make it with: {again}")
    record = load_record(path, f"run again: {again}")
    if (record.dataset, record.method, record.seed) != (dataset, method, seed):
        raise RecordError(f"{path}: holds {record.dataset}/{record.method}/seed{record.seed}; run again: {again}")
    if record.config_hash != slice_hash(config.cell_slice(dataset, method)):
        changed = slice_change(record.config, config.cell_slice(dataset, method))
        raise RecordError(f"{path}: stale, made with another config ({changed}); run again: {again}")
    file = paths.predictions(dataset, method, seed)
    return record, recorded_predictions(file, record.predictions.sha256, f"run again: {again}")


def train_again(config: Config, dataset: str, method: str, seed: int) -> str:
    """The command that makes a run anew."""
    return config.command("train", dataset=dataset, method=method, seed=seed)
