"""Results of a tiny benchmark, trained by the real code: of a method that folds into the backbone, and of SSP."""

import contextlib
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from tests.unit.conftest import tracking


@pytest.fixture(scope="session")
def trained(tiny_data, tracked, tmp_path_factory):
    """Config, folder of results and test videos of two seeds each of ssp and bitfit; with tables."""
    from ssp.files import write_text
    from ssp.jobs.seed import train_cell
    from ssp.jobs.sweep import run_sweep
    from ssp.paths import Paths
    from ssp.tables import write_tables
    from tests.unit.made_records import write_costs
    from tests.unit.tiny_benchmark import PLAIN, tiny_config

    folder = tmp_path_factory.mktemp("trained")
    config = tiny_config(
        tiny_data,
        tracking=tracking(tracked),
        methods={"ssp": PLAIN["methods"]["ssp"], "folded": {"method": "bitfit"}},
        sweep__trials=0,
        datasets__ucf101__recipe__epochs=1,
        datasets__ucf101__recipe__micro_batch=2,
        datasets__ucf101__clips__test_segments=3,
        datasets__ucf101__clips__test_crops=2,
    )
    with contextlib.chdir(folder):
        write_text(Paths.of(config).mlflow / "ready.json", (tracked / "ready.json").read_text())
        for row in config.methods:
            run_sweep(config, "ucf101", row)
            for seed in config.seeds:
                train_cell(config, "ucf101", row, seed)
        write_costs(config)
        write_tables(config)
    results = folder / "results" / "tiny"
    kept = results / "manifests" / "ucf101.parquet"
    manifest = pd.read_parquet(tiny_data / "ucf101" / "manifest.parquet")
    kept.parent.mkdir()
    manifest.to_parquet(kept, index=False)
    (results / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    tested = manifest[manifest["split"] == "test"]
    videos = [tiny_data / "ucf101" / "videos" / path for path in tested["path"]]
    return SimpleNamespace(config=config, folder=folder, results=results, manifest=manifest, videos=videos)
