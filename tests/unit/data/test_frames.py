"""The frame store returns the frames that were extracted, and says which videos could not be."""

import io
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from ssp.data import jpegs, read_frames
from ssp.data.children import Child, Children, KilledError
from ssp.data.frames import FrameStore, extract_shard, load_split
from ssp.data.manifest import read_manifest, write_manifest
from ssp.data.video import Span, VideoError
from ssp.errors import DataError
from ssp.paths import Paths
from tests.unit.made_videos import scene, small_config, ucf101_tree, unpacked_config, write_video


def prepare(root, files, **dataset):
    """A data set of these files up to its manifest."""
    config = unpacked_config(root, files, **dataset)
    write_manifest(config, "ucf101")
    return config, Paths.of(config)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    root = tmp_path_factory.mktemp("extracted")
    config, paths = prepare(root, ucf101_tree(root / "made"))
    for shard in (1, 0):
        extract_shard(config, "ucf101", shard)
    return config, paths


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """One test video is no video; 1 of 6 videos of its shard may be broken."""
    root = tmp_path_factory.mktemp("damaged")
    files = ucf101_tree(root / "made")
    files["UCF-101/YoYo/v_YoYo_g01_c01.avi"].write_bytes(b"RIFF no video")
    config, paths = prepare(root, files, frames={"shards": 2, "max_broken": 0.2})
    for shard in (0, 1):
        extract_shard(config, "ucf101", shard)
    return config, paths


def test_every_frame_of_every_video_is_there(extracted):
    _, paths = extracted
    manifest, store = read_manifest(paths.manifest("ucf101")), FrameStore(paths.frames("ucf101"))
    assert store.rows() == set(range(len(manifest)))
    for row, video in manifest.iterrows():
        assert store.length(row) == video["frames"]
        stored = store.read(row, range(video["frames"]))
        decoded = read_frames(paths.videos("ucf101") / video["path"], range(video["frames"]))
        assert stored.shape == decoded.shape
        assert stored.dtype == np.uint8
        distance = np.array([[abs(a.astype(int) - b).mean() for b in decoded] for a in stored])
        assert (distance.argmin(1) == np.arange(len(stored))).all()
        assert distance.diagonal().max() < 12  # JPEG of hard coloured edges


def test_frames_in_any_order_and_repeated(extracted):
    _, paths = extracted
    store = FrameStore(paths.frames("ucf101"))
    in_order = store.read(3, range(5))
    np.testing.assert_array_equal(store.read(3, [4, 0, 0, 2]), in_order[[4, 0, 0, 2]])


@pytest.mark.parametrize("index", [-1, 13, 100])
def test_a_frame_that_is_not_there(extracted, index):
    _, paths = extracted
    store = FrameStore(paths.frames("ucf101"))
    assert store.length(0) == 13
    with pytest.raises(IndexError, match="the video has 13"):
        store.read(0, [0, index])


def test_one_file_per_shard_and_nothing_else(extracted):
    _, paths = extracted
    names = sorted(path.name for path in paths.frames("ucf101").iterdir())
    assert names == ["shard-0.json", "shard-0.lmdb", "shard-1.json", "shard-1.lmdb"]
    report = json.loads(paths.shard_report("ucf101", 0).read_text())
    assert len(report.pop("config_hash")) == 16
    manifest = read_manifest(paths.manifest("ucf101"))
    assert report == {"shard": 0, "videos": 6, "frames": int(manifest["frames"][::2].sum()), "broken": []}


def test_two_stores_and_a_pickled_one_share_a_process(extracted):
    _, paths = extracted
    stores = [FrameStore(paths.frames("ucf101")) for _ in range(2)]
    truth = stores[0].read(1, [2])
    np.testing.assert_array_equal(stores[1].read(1, [2]), truth)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stores[0])).read(1, [2]), truth)


def _sum_in_child(store, queue):
    opened, real = [], lmdb.open
    lmdb.open = lambda path, **settings: opened.append(Path(path).name) or real(path, **settings)
    queue.put((int(store.read(1, [2]).sum()), opened))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_store_that_was_open_before_its_process_had_children(extracted, method):
    _, paths = extracted
    store = FrameStore(paths.frames("ucf101"))
    truth = int(store.read(1, [2]).sum())
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=_sum_in_child, args=(store, queue)) for _ in range(2 if method == "fork" else 1)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [(truth, ["shard-1.lmdb"])] * len(children)
    for child in children:
        child.join()
    assert int(store.read(1, [2]).sum()) == truth


def test_a_broken_video_is_reported_and_left_out_of_its_split(damaged):
    config, paths = damaged
    manifest = read_manifest(paths.manifest("ucf101"))
    row = manifest.index[manifest["id"] == "YoYo/v_YoYo_g01_c01.avi"].item()
    report = json.loads(paths.shard_report("ucf101", row % 2).read_text())
    assert [video["id"] for video in report["broken"]] == ["YoYo/v_YoYo_g01_c01.avi"]
    rows = load_split(config, "ucf101", "test")
    assert len(rows) == 3
    assert rows.attrs == {"videos": 4, "broken": ["YoYo/v_YoYo_g01_c01.avi"]}
    store = FrameStore(paths.frames("ucf101"))
    for call in (lambda: store.length(row), lambda: store.read(row, [0])):
        with pytest.raises(DataError, match=f"no frames of video {row}"):
            call()


@pytest.mark.slow
def test_a_damaged_frame_is_an_error_that_names_its_shard(tmp_path):
    config, paths = prepare(tmp_path, ucf101_tree(tmp_path / "made"))
    extract_shard(config, "ucf101", 1)
    path = paths.shard("ucf101", 1)
    content = bytearray(path.read_bytes())
    for start in [match.start() for match in re.finditer(b"\xff\xd8\xff\xe0", content)]:
        content[start + 400 : start + 402] = b"\xff\xd9"  # the picture ends where its data should go on
    path.write_bytes(content)
    extract_shard(config, "ucf101", 0)
    with pytest.raises(DataError, match=r"shard-1\.lmdb: damaged \(.*run `ssp data frames` again"):
        FrameStore(paths.frames("ucf101")).read(3, [0])


def test_a_flipped_bit_is_noticed():
    clip = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 3), dtype=np.uint8)
    packed = jpegs.pack(clip, 50)
    for place in range(len(packed)):
        flipped = bytearray(packed)
        flipped[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="checksum"):
            jpegs.unpack(bytes(flipped), [0, 1])


@pytest.mark.parametrize("page", range(2, 12))
def test_a_damaged_page_of_a_shard_is_noticed(extracted, tmp_path, page):
    """Whatever it held: an error of one line, or nothing is read from it."""
    _, paths = extracted
    whole, damaged = FrameStore(paths.frames("ucf101")), FrameStore(tmp_path)
    for shard in (0, 1):
        content = bytearray(paths.shard("ucf101", shard).read_bytes())
        content[4096 * page : 4096 * (page + 1)] = bytes(4096)
        (tmp_path / f"shard-{shard}.lmdb").write_bytes(content)
    for row in whole.rows():
        every = range(whole.length(row))
        try:
            np.testing.assert_array_equal(damaged.read(row, every), whole.read(row, every))
        except DataError as error:
            assert re.search(r"shard-[01]\.lmdb: .*run `ssp data frames`|no frames of video", str(error))
            assert "\n" not in str(error)


def test_jpegs_decode_to_the_pixels_of_another_decoder():
    clip = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 3), dtype=np.uint8).repeat(5, 1).repeat(5, 2)[:, :-1]
    packed = jpegs.pack(clip, 90)
    starts = [match.start() for match in re.finditer(b"\xff\xd8\xff\xe0", packed)]
    pillow = [np.asarray(Image.open(io.BytesIO(packed[start:]))) for start in starts]
    np.testing.assert_array_equal(jpegs.unpack(packed, [2, 0, 1]), np.stack(pillow)[[2, 0, 1]])


def test_too_many_broken_videos_fail_the_shard(damaged):
    config, paths = damaged
    manifest = read_manifest(paths.manifest("ucf101"))
    shard = manifest.index[manifest["id"] == "YoYo/v_YoYo_g01_c01.avi"].item() % 2
    frames = config.datasets["ucf101"].frames.model_copy(update={"max_broken": 0.1})
    dataset = config.datasets["ucf101"].model_copy(update={"frames": frames})
    strict = config.model_copy(update={"datasets": {"ucf101": dataset}})
    kept = paths.shard("ucf101", shard).read_bytes()
    try:
        with pytest.raises(
            DataError, match=r"1 of 6 videos of shard \d cannot be decoded \(YoYo/v_YoYo_g01_c01\.avi\)"
        ):
            extract_shard(strict, "ucf101", shard)
        assert not paths.shard("ucf101", shard).exists()
        assert not [path for path in paths.frames("ucf101").iterdir() if path.suffix == ".tmp"]
    finally:
        paths.shard("ucf101", shard).write_bytes(kept)


def test_splits_keep_their_place_in_the_manifest(extracted):
    config, paths = extracted
    manifest = read_manifest(paths.manifest("ucf101"))
    rows = [load_split(config, "ucf101", split) for split in ("train", "val", "test")]
    assert sorted(row for part in rows for row in part["row"]) == list(range(len(manifest)))
    for part in rows:
        assert part.index.tolist() == list(range(len(part)))
        assert part["id"].tolist() == manifest["id"][part["row"]].tolist()
        assert part.attrs == {"videos": len(part), "broken": []}


@pytest.mark.slow
def test_another_manifest_is_noticed(tmp_path):
    config, _ = prepare(tmp_path, ucf101_tree(tmp_path / "made"), frames={"shards": 1})
    extract_shard(config, "ucf101", 0)
    load_split(config, "ucf101", "val")
    reseeded = config.datasets["ucf101"].model_copy(
        update={"validation": config.datasets["ucf101"].validation.model_copy(update={"fraction": 0.5})}
    )
    config = config.model_copy(update={"datasets": {"ucf101": reseeded}})
    write_manifest(config, "ucf101")
    with pytest.raises(DataError, match="made from another manifest"):
        load_split(config, "ucf101", "val")


@pytest.mark.slow
def test_a_shard_of_another_extraction_is_noticed(tmp_path):
    config, paths = prepare(tmp_path, ucf101_tree(tmp_path / "made"))
    extract_shard(config, "ucf101", 0)
    frames = config.datasets["ucf101"].frames.model_copy(update={"jpeg_quality": 50})
    other = config.model_copy(
        update={"datasets": {"ucf101": config.datasets["ucf101"].model_copy(update={"frames": frames})}}
    )
    extract_shard(other, "ucf101", 1)
    with pytest.raises(DataError, match=r"shard-1\.lmdb: belongs to another extraction"):
        FrameStore(paths.frames("ucf101")).length(1)


@pytest.mark.slow
def test_several_decoders_make_the_same_store(tmp_path):
    """Also with a broken video among the others."""
    files = ucf101_tree(tmp_path / "made")
    files["UCF-101/Archery/v_Archery_g04_c01.avi"].write_bytes(b"RIFF no video")
    config, paths = prepare(tmp_path, files, frames={"shards": 1, "max_broken": 0.2})
    compute = config.compute.model_copy(update={"data": config.compute.data.model_copy(update={"threads": 3})})
    made = []
    for chosen in (config, config.model_copy(update={"compute": compute})):
        extract_shard(chosen, "ucf101", 0)
        store = FrameStore(paths.frames("ucf101"))
        records = {row: store.read(row, range(store.length(row))).tobytes() for row in store.rows()}
        made.append((records, json.loads(paths.shard_report("ucf101", 0).read_text())))
    assert made[0] == made[1]
    assert len(made[0][0]) == 11
    assert [video["id"] for video in made[0][1]["broken"]] == ["Archery/v_Archery_g04_c01.avi"]


def test_a_missing_store_and_a_wrong_shard(tmp_path):
    with pytest.raises(DataError, match=r"shard-0\.lmdb: cannot be opened.*ssp data frames"):
        FrameStore(tmp_path).length(0)
    with pytest.raises(DataError, match=r"shard 2 is outside 0\.\.1"):
        extract_shard(small_config(tmp_path), "ucf101", 2)


# -- the child process -----------------------------------------------------------------------------------------------


def decoder(limit_s=60, short_side=None):
    return Child(partial(jpegs.pack_video, short_side=short_side, quality=90), limit_s)


def test_the_child_survives_broken_videos_and_shrinks(tmp_path):
    good = write_video(tmp_path / "good.avi", scene(4, 64, 48))
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"no video")
    with decoder(short_side=24) as child:
        (first,) = child.answers([Span(good)])
        process = child.pid
        error, second = child.answers([Span(bad), Span(good)])
        assert isinstance(error, VideoError)
        assert "bad.avi: cannot be decoded" in str(error)
        assert second == first
        assert child.pid == process
    assert int.from_bytes(first[:4], "little") == 4


def test_a_hanging_child_is_killed_and_replaced(tmp_path):
    """The child is stopped: it neither answers nor ends, as in a decoder that hangs."""
    good = write_video(tmp_path / "good.avi", scene(4))
    with decoder() as child:
        child.answers([Span(good)])
        child.limit_s = 0.5
        os.kill(child.pid, signal.SIGSTOP)
        stopped, start = child.pid, time.monotonic()
        assert isinstance(child.answers([Span(good)])[0], bytes)  # it was not the video's fault
        assert time.monotonic() - start < 10
        assert child.pid != stopped
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)


def test_leaving_children_does_not_wait_for_a_hanging_one(tmp_path):
    good = write_video(tmp_path / "good.avi", scene(4))
    work = partial(jpegs.pack_video, short_side=None, quality=90)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Children(1, work, 600) as children:
        results = children.map([Span(good)] * 9)
        assert isinstance(next(results), bytes)
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGSTOP)
        start = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30


def _sized(path):
    """Size of a file; the ones named so hang, or kill their process."""
    if path.name == "hangs":
        time.sleep(600)
    if path.name == "crashes":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_leaving_children_does_not_try_again_what_they_were_at(tmp_path, batch):
    (tmp_path / "0").touch()
    with pytest.raises(KeyboardInterrupt), Children(1, _sized, 20, batch) as children:
        results = children.map([tmp_path / "0"] * batch + [tmp_path / "hangs"] * 2 * batch)
        assert next(results) == 0
        start = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - start < 15


class _KillsAsItStarts:
    """Work whose child is killed while it is handed over."""

    def __reduce__(self):
        self.child.kill()
        return partial, (_sized,)


def test_a_child_that_is_killed_while_it_starts_is_not_waited_for(tmp_path):
    (tmp_path / "hangs").touch()
    work = _KillsAsItStarts()
    with Child(work, 20) as work.child:
        for _ in range(2):  # for good
            with pytest.raises(KilledError):
                work.child.answers([tmp_path / "hangs"])
            assert work.child.pid is None
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_a_hang_and_a_crash_cost_one_video_each(tmp_path, batch):
    """Also in a batch, where the others are tried again; order stays."""
    names = ["0", "1", "crashes", "3", "4", "5", "6", "hangs", "8"]
    for size, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(size))
    with Children(2, _sized, 1, batch) as children:
        found = list(children.map(tmp_path / name for name in names))
    assert found[:2] + found[3:7] + found[8:] == [0, 1, 3, 4, 5, 6, 8]
    assert isinstance(found[2], VideoError)
    assert "crashes: the decoder crashed" in str(found[2])
    assert isinstance(found[7], VideoError)
    assert "hangs: not decoded within 1 s" in str(found[7])


@pytest.mark.slow
def test_an_unforeseen_error_costs_one_video(tmp_path):
    (tmp_path / "1").write_bytes(b"a")
    with Children(1, _sized, 60) as children:
        first, second = children.map([str(tmp_path / "1"), tmp_path / "1"])  # a string has no name
    assert isinstance(first, VideoError)
    assert re.search(r"1: cannot be decoded \(AttributeError\(.*fetch the file again", str(first))
    assert second == 1


@pytest.mark.slow
@pytest.mark.parametrize("work", ["0", "re.match('(a+)+$', 'a' * 50 + 'b')"], ids=["waits", "hangs"])
def test_children_end_with_a_parent_that_is_killed(tmp_path, work):
    """Whatever they are doing: waiting for work, or hanging inside of a library."""
    began = tmp_path / "began"
    there = f"__import__('pathlib').Path('{began}').write_text(str(__import__('os').getpid()))"
    code = (
        "import sys, time; from ssp.data.children import Child\n"
        "child = Child(eval, 2); child.answers(sys.argv[1:]); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, there, work.replace("re.", "__import__('re').")]) as parent:
        while not (began.exists() and began.read_text()):
            time.sleep(0.01)
        orphan = int(began.read_text())
        os.kill(orphan, 0)
        parent.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{orphan}").exists() and "Z" not in Path(f"/proc/{orphan}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.05)
