"""From a folder to a predictor: results wherever they lie, or an export."""

from __future__ import annotations

from pathlib import Path

from ssp.config import load_results_config
from ssp.errors import ConfigError
from ssp.use.export import is_export, read_export
from ssp.use.predictor import Predictor
from ssp.use.run import load_run


def load(folder: str | Path, dataset: str | None = None, row: str | None = None, seed: int = 0) -> Predictor:
    """A predictor from a folder of results, wherever that lies, or from an export (`ssp export`).

    Of results it needs config.yaml, the run's record and weights, the data set's manifest under `manifests`, and the
    backbone where the config says (relative paths there start from the working directory); no videos and no frames.
    Forward passes run as the config has trainings run, and on the CPU where there is no GPU.

    Args:
        folder: of results, such as results/demo; or of an export.
        dataset: as the config names it; None for an export.
        row: a row of the config; None for an export.
        seed: of the training.

    Raises:
        ConfigError: there is no such folder, data set, row or seed.
        RecordError: the run's record is missing, or says that the run failed; or the manifest is another than its own.
        CheckpointError: tuned weights or the backbone are missing, damaged, or not those of the run.
    """
    folder = Path(folder)
    if is_export(folder):
        if dataset is not None or row is not None:
            raise ConfigError(f"{folder}: an export, which holds one model; leave data set and row out")
        return read_export(folder)
    if not (folder / "config.yaml").is_file():
        wrong = (
            "neither config.yaml of results nor config.json of an export is in it" if folder.is_dir() else "no folder"
        )
        raise ConfigError(f"{folder}: {wrong}; give results such as results/demo, or an export")
    if dataset is None or row is None:
        raise ConfigError(f"{folder}: results of several models; say which by data set and row")
    return load_run(load_results_config(folder), dataset, row, seed).predictor
