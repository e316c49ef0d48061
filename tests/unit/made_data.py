"""Manifests and frame stores that go with made records: a few real videos, decoded by the real code."""

import shutil
from tempfile import TemporaryDirectory

import pandas as pd

from ssp.data.frames import extract_shard
from ssp.data.manifest import COLUMNS, manifest_hash
from ssp.paths import Paths
from tests.unit.made_videos import scene, write_video

_made: dict[tuple, TemporaryDirectory] = {}  # copies of what this process has made, by all that decides it


def write_data(config, dataset, videos=200, classes=6, per_group=5):
    """The test videos of `made_records.predictions`, each one of four files; returns the hash of the manifest."""
    paths, files = Paths.of(config), [f"{i}.avi" for i in range(4)]
    write_manifest(config, dataset, manifest_rows(dataset, files, videos, classes, per_group))
    key = dataset, videos, classes, per_group, config.datasets[dataset].frames.model_dump_json()
    if key not in _made:  # decoders take seconds to start
        for i, file in enumerate(files):
            write_video(paths.videos(dataset) / file, scene(10 + i, width=40, height=32, seed=i))
        for shard in range(config.datasets[dataset].frames.shards):
            extract_shard(config, dataset, shard)
        _made[key] = TemporaryDirectory(prefix="made-data-")
        shutil.copytree(paths.dataset(dataset), _made[key].name, dirs_exist_ok=True)
    shutil.copytree(_made[key].name, paths.dataset(dataset), dirs_exist_ok=True)
    return manifest_hash(paths.manifest(dataset))


def write_manifest(config, dataset, rows):
    """The manifest of these rows, and its copy with the results."""
    paths = Paths.of(config)
    for path in (paths.manifest(dataset), paths.kept_manifest(dataset)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).astype(COLUMNS).to_parquet(path, index=False)


def manifest_rows(dataset, files, videos=200, classes=6, per_group=5):
    """The test videos of `made_records.predictions`, in turn each one of some files."""
    return [
        {
            "id": f"v{i:04}.avi",
            "path": files[i % len(files)],
            "label": i % classes,
            "class_name": f"kind <{i % classes}> of {dataset}",
            "split": "test",
            "group": f"g{i // per_group:03}",
            "frames": 10 + i % len(files),
            "fps": 12.0,
            "width": 40,
            "height": 32,
            "codec": "mpeg4",
            "sha256": "0" * 64,
        }
        for i in range(videos)
    ]
