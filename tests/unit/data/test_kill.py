"""Killed at any moment and started again: finished shards stay, nothing is corrupt, nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import yaml

from ssp.data.archives import unpack_dataset
from ssp.data.check import check_dataset
from ssp.data.fetch import fetch_dataset
from ssp.data.frames import FrameStore, extract_shard
from ssp.data.manifest import read_manifest, write_manifest
from ssp.paths import Paths
from tests.unit.made_videos import scene, small_config, ucf101_tree, write_video
from tests.workflow.running import ROOT, command_line, snakemake

VIDEOS = 12


@pytest.fixture
def benchmark(tmp_path):
    """A config in a file, and archives whose videos take a second or so to extract."""
    config = small_config(tmp_path, frames={"shards": 2})
    files = ucf101_tree(tmp_path / "made")
    clip = scene(150, 320, 240)
    for name in files:
        if name.endswith(".avi"):
            files[name] = write_video(tmp_path / "long" / f"{len(name)}.avi", clip)
    local = config.datasets["ucf101"].local
    local.mkdir()
    with zipfile.ZipFile(local / "videos.zip", "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return config, file


def start(command, folder):
    """A process in a group of its own, with all its children."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_when(process, condition, limit_s=240):
    """SIGKILL to the whole group once the condition holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end, "the moment to kill it never came"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(ProcessLookupError):  # its children are gone, too
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.005)


def half_written(folder, shard):
    """Whether some videos of a shard are in its temporary file."""
    return any(path.stat().st_size > 1 << 20 for path in folder.glob(f".shard-{shard}.lmdb.*.tmp"))


def whole(config):
    """The store holds every frame of every video."""
    paths = Paths.of(config)
    manifest, store = read_manifest(paths.manifest("ucf101")), FrameStore(paths.frames("ucf101"))
    assert store.rows() == set(range(VIDEOS))
    for row in range(VIDEOS):
        assert store.length(row) == manifest["frames"][row] == 150
        assert np.ptp(store.read(row, [149])) > 0
    assert "contain" not in check_dataset(config, "ucf101")  # no frames too many or too few
    assert sorted(path.name for path in paths.frames("ucf101").iterdir()) == [
        "shard-0.json",
        "shard-0.lmdb",
        "shard-1.json",
        "shard-1.lmdb",
    ]


@pytest.mark.slow
def test_a_killed_shard_leaves_no_shard_and_the_next_run_makes_it(benchmark, tmp_path):
    config, file = benchmark
    folder = Paths.of(config).frames("ucf101")
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    write_manifest(config, "ucf101")
    extract_shard(config, "ucf101", 0)
    command = [sys.executable, "-m", "ssp", "data", "frames", "--config", file, "--dataset", "ucf101", "--shard", 1]
    kill_when(start(command, tmp_path), lambda: half_written(folder, 1))
    assert not (folder / "shard-1.lmdb").exists()
    assert list(folder.glob(".shard-1.lmdb.*.tmp"))
    assert "no complete frame store" in check_dataset(config, "ucf101")
    extract_shard(config, "ucf101", 1)
    whole(config)


@pytest.mark.slow
@pytest.mark.workflow
def test_the_workflow_does_finished_shards_once(benchmark, tmp_path):
    config, file = benchmark
    paths = Paths.of(config)
    folder = paths.frames("ucf101")
    shards = [paths.shard("ucf101", shard) for shard in (0, 1)]
    words = ["--configfile", file, "--cores", 1]
    kill_when(
        start(command_line(tmp_path, *words, *shards), tmp_path),
        lambda: sum(shard.exists() for shard in shards) == 1 and any(half_written(folder, shard) for shard in (0, 1)),
    )
    (done,) = [shard for shard in shards if shard.exists()]
    before = done.stat()
    assert snakemake(tmp_path, *words, "--unlock").code == 0
    assert snakemake(tmp_path, *words, "--rerun-incomplete", *shards).code == 0
    after = done.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    whole(config)


def test_a_killed_unpacking_starts_clean(benchmark):
    config, _ = benchmark
    paths = Paths.of(config)
    fetch_dataset(config, "ucf101")
    parent = paths.videos("ucf101").parent
    left = parent / ".videos.4711.tmp" / "UCF-101"  # what a killed process leaves, under its number
    left.mkdir(parents=True)
    (left / "half.avi").write_bytes(b"half")
    unpack_dataset(config, "ucf101")
    assert sorted(path.name for path in parent.iterdir()) == ["archives", "fetched.done", "unpacked.json", "videos"]
    assert not list(parent.rglob("half.avi"))
