"""Frames on the node's own disk: the same results, one copy for all jobs of a node, and never half or damaged ones."""

import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import ssp.jobs.stage
from ssp.data.frames import FrameStore, load_split
from ssp.errors import ConfigError, DataError
from ssp.jobs.cell import Cell
from ssp.jobs.seed import train_cell
from ssp.jobs.stage import StagedStore, frames_of
from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from tests.unit.tiny_benchmark import tiny_config

# A job that reads frames, slowly copied where it is asked to be, and stays until it is killed or its input ends.
JOB = """
import sys, time
from pathlib import Path
import ssp.jobs.stage as stage
from ssp.training.stopping import stoppable
from tests.unit.tiny_benchmark import tiny_config

stage.LOOK_S, stage.PIECE = 0.02, 20_000
data, place, pause = sys.argv[1:]
ask = stage.stop_if_asked
stage.stop_if_asked = lambda: (time.sleep(float(pause)), ask())
stage.log.info = stage.log.warning = lambda line, *about: print(line % about, flush=True)
with stoppable():
    store = stage.frames_of(tiny_config(Path(data), compute__stage_to=place), "ucf101")
print("reads", store.read(0, [0]).sum(), store.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The node's disk."""
    monkeypatch.setattr(ssp.jobs.stage, "LOOK_S", 0.02)
    return tmp_path / "local"


@pytest.fixture
def small(place):
    """The same, with a size of its own: 20 MB."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def said(caplog):
    """What is said on the way."""
    caplog.set_level(logging.INFO, "ssp.jobs.stage")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "ssp.jobs.stage"]


def frames(data, place):
    return frames_of(tiny_config(data, compute__stage_to=str(place)), "ucf101")


def frames_before(data, place):
    """What an earlier job read; it has ended, and holds nothing."""
    with get_context("fork").Pool(1) as pool:
        return pool.apply(frames, (data, place))


def start(data, place, pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", JOB, data, place, str(pause)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reading(job):
    """The job's lines up to the first frame that it has read."""
    lines = []
    for line in job.stdout:
        lines.append(line.strip())
        if line.startswith("reads"):
            return lines
    raise AssertionError((lines, job.stderr.read()))


def until(met):
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def copies(place):
    return sorted(path for path in place.glob("*/*") if path.is_dir())


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.lmdb")}


def another(data, folder, name):
    """Frames of another data set: the same ones, elsewhere."""
    shutil.copytree(data / "ucf101/frames", folder / name / "ucf101/frames")
    return folder / name


def filled(data, folder, name, size):
    """The same, in a store of so many bytes."""
    made = another(data, folder, name)
    os.truncate(made / "ucf101/frames/shard-0.lmdb", size)  # what is behind its last page does not matter
    return made


def test_a_copy_changes_no_result(tiny, place, said, tmp_path, monkeypatch):
    outcomes = []
    for folder, stage_to in (("without", None), ("with", str(place))):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        config = tiny(sweep__trials=1, sweep__epochs=1, compute__stage_to=stage_to)
        choice = run_sweep(config, "ucf101", "ssp")
        record = train_cell(config, "ucf101", "ssp", 0)
        paths = Paths.of(config)
        outcomes.append(
            (
                choice.model_dump(exclude={"run"}),
                record.model_dump(exclude={"run"}),
                paths.predictions("ucf101", "ssp", 0).read_bytes(),
                paths.weights("ucf101", "ssp", 0).read_bytes(),
            )
        )
    assert outcomes[0] == outcomes[1]
    (copy,) = copies(place)
    assert shards(copy) == shards(paths.frames("ucf101"))
    assert [re.sub(r"[\d.]+", "N", line.replace(str(copy), "COPY")) for line in said()] == [
        "N MB of frames copied to COPY in N s",
        "frames of ucfN are read from COPY",
    ]
    cell = Cell(config, "ucf101", "ssp")
    assert cell.clips("test").store.folder == copy


def test_the_next_job_takes_the_copy(tiny_data, place, said):
    first = frames_before(tiny_data, place)
    made = (first.folder / "shard-0.lmdb").stat()
    (second,) = {frames(tiny_data, place).folder for _ in range(2)}
    assert (second / "shard-0.lmdb").stat().st_ino == made.st_ino
    assert said() == [f"frames of ucf101 are read from {second}"]


@pytest.mark.slow
def test_of_two_jobs_at_once_one_copies_and_the_other_waits(tiny_data, place):
    jobs = [start(tiny_data, place, pause=0.02) for _ in range(2)]
    lines = sorted(map(reading, jobs), key=len)
    for job in jobs:
        job.kill()
        job.communicate()
    assert sorted(line.split()[0] for line in lines[0] + lines[1] if "MB of frames" not in line) == [
        *["frames"] * 2,
        *["reads"] * 2,
        "waiting",
    ]
    assert sum("MB of frames copied" in line for line in lines[0] + lines[1]) == 1
    assert lines[0][-1] == lines[1][-1]


@pytest.mark.slow
def test_a_job_that_is_killed_while_it_copies_leaves_nothing_that_is_read(tiny_data, place, said):
    job = start(tiny_data, place, pause=0.05)
    until(lambda: any(path.stat().st_size > 50_000 for path in place.glob("*/copying/*.lmdb")))
    job.kill()
    job.communicate()
    assert [path.name for path in copies(place)] == ["copying"]
    store = frames(tiny_data, place)
    assert copies(place) == [store.folder]
    assert shards(store.folder) == shards(tiny_data / "ucf101/frames")
    assert not any("waiting" in line for line in said())


@pytest.mark.slow
def test_a_job_that_is_asked_to_stop_does_not_copy_to_the_end(tiny_data, place):
    job = start(tiny_data, place, pause=0.05)
    until(lambda: any(path.stat().st_size > 50_000 for path in place.glob("*/copying/*.lmdb")))
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=30)[1].splitlines()[-1]
    assert said == "ssp.training.stopping.Interrupted: interrupted (SIGTERM); run the same command again"
    assert not copies(place)


def _cut_off(shard):
    os.truncate(shard, shard.stat().st_size // 2)


def _rewritten(shard):
    shard.write_bytes(bytes(shard.stat().st_size))


@pytest.mark.parametrize("damage", [_cut_off, _rewritten, Path.unlink])
def test_a_damaged_copy_is_made_anew(tiny_data, place, damage):
    copy = frames_before(tiny_data, place).folder
    damage(copy / "shard-0.lmdb")
    assert frames(tiny_data, place).folder == copy
    assert shards(copy) == shards(tiny_data / "ucf101/frames")


def test_bits_that_changed_on_the_disk_are_read_from_the_store_itself(tiny_data, place, said):
    store, shared = frames_before(tiny_data, place), FrameStore(tiny_data / "ucf101/frames")
    shard = store.folder / "shard-0.lmdb"
    content, made = bytearray(shard.read_bytes()), shard.stat()
    for start_ in (match.start() for match in re.finditer(b"\xff\xd8\xff\xe0", content)):
        content[start_ + 400] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(made.st_atime_ns, made.st_mtime_ns))
    rows = load_split(tiny_config(tiny_data), "ucf101", "trainval")["row"].tolist()
    for row in rows:
        assert store.length(row) == shared.length(row)
        np.testing.assert_array_equal(store.read(row, [0, 1]), shared.read(row, [0, 1]))
    assert [line for line in said() if "damaged" in line] == [
        f"{store.folder}: damaged or gone; frames are read from {shared.folder} from now on"
    ]
    with pytest.raises(DataError, match="no frames of video 1000"):
        store.read(1000, [0])
    frames(tiny_data, place)
    assert shards(store.folder) == shards(shared.folder)


def test_what_the_store_itself_does_not_have_is_not_the_fault_of_the_copy(tiny_data, place, said):
    store = frames(tiny_data, place)
    with pytest.raises(DataError, match="no frames of video 1000"):
        store.read(1000, [0])
    assert not any("damaged" in line for line in said())
    assert pickle.loads(pickle.dumps(store)).rows() == FrameStore(tiny_data / "ucf101/frames").rows()


def test_a_store_that_was_made_anew_is_copied_anew(tiny_data, tmp_path, place):
    data = another(tiny_data, tmp_path, "data")
    old = frames_before(data, place).folder
    os.utime(data / "ucf101/frames/shard-0.lmdb", (1, 1))
    assert frames(data, place).folder != old


def test_without_room_frames_are_read_from_the_store_itself(tiny_data, tmp_path, small, said):
    data = filled(tiny_data, tmp_path, "large", 22_000_000)
    store = frames(data, small)
    assert (type(store), store.folder) == (FrameStore, data / "ucf101/frames")
    (line,) = said()
    assert re.match(r"compute.stage_to: .* MB are lacking for a copy of 22.0 MB; frames of ucf101 are read from", line)
    assert store.rows() == FrameStore(tiny_data / "ucf101/frames").rows()
    assert not copies(small)


def test_room_is_made_by_what_was_not_used_for_longest(tiny_data, tmp_path, small, said):
    """19 of 20 MB are for copies: three of 6 MB are too many beside a fourth."""
    folders = []
    for number, name in enumerate("abc"):
        folders.append(frames_before(filled(tiny_data, tmp_path, name, 6_000_000), small).folder)
        os.utime(folders[-1].with_name(folders[-1].name + ".lock"), (number, number))
    frames_before(tmp_path / "a", small)  # used again
    last = frames(filled(tiny_data, tmp_path, "d", 6_000_000), small).folder
    assert copies(small) == sorted([folders[0], folders[2], last])
    assert [line for line in said() if "evicting" in line] == [f"evicting {folders[1]}, to make room"]


@pytest.mark.slow
def test_a_copy_that_is_read_is_not_evicted_and_nothing_is_in_vain(tiny_data, tmp_path, small, said):
    used, unused = (filled(tiny_data, tmp_path, name, 6_000_000) for name in "ab")
    job = start(used, small)
    reading(job)
    unused_copy = frames_before(unused, small).folder
    large = filled(tiny_data, tmp_path, "c", 15_000_000)
    assert frames_before(large, small).folder == large / "ucf101/frames"
    assert len(copies(small)) == 2 and unused_copy in copies(small)  # both would have to go

    job.kill()
    job.communicate()
    assert isinstance(frames(large, small), StagedStore)
    assert len(copies(small)) == 1


@pytest.mark.parametrize(
    ("stage_to", "why"),
    [
        ("$NOT_SET_HERE/frames", r"\$NOT_SET_HERE is not set here"),
        ("$HERE/frames", r"\$HERE/frames is no absolute path here, but 'relative/frames'"),
        ("/proc/frames", r"\[Errno \d+\] .*"),
    ],
)
def test_a_node_without_such_a_folder_reads_the_store_itself(tiny_data, place, said, monkeypatch, stage_to, why):
    monkeypatch.setenv("HERE", "relative")
    store = frames(tiny_data, stage_to)
    assert type(store) is FrameStore
    assert [bool(re.fullmatch(f"compute.stage_to: {why}; frames of ucf101 .*", line)) for line in said()] == [True]


def test_variables_are_those_of_the_node(tiny_data, place, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(place))
    assert frames(tiny_data, "$NODE_DISK/x").folder.is_relative_to(place / "x")
    with pytest.raises(ConfigError, match=r"compute\.stage_to: give an absolute path, or one that begins with"):
        tiny_config(tiny_data, compute__stage_to="scratch")
