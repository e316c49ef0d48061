"""The manifest holds every published video once, and validation never shares a group with train."""

import contextlib
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp.data import headers
from ssp.data.check import check_dataset
from ssp.data.frames import extract_shard, load_split
from ssp.data.manifest import COLUMNS, class_names, manifest_hash, read_manifest, write_manifest
from ssp.data.validation import carve
from ssp.errors import DataError
from ssp.paths import Paths
from tests.unit.made_videos import scene, small_config, ucf101_tree, unpacked_config, write_video

# -- validation ------------------------------------------------------------------------------------------------------

videos = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=80)


@settings(max_examples=150, deadline=None)
@given(videos, st.floats(0, 1), st.integers(0, 3))
def test_no_group_straddles_and_no_class_loses_its_training(rows, fraction, seed):
    labels, groups = np.array([r[0] for r in rows]), np.array([f"g{r[1]}" for r in rows])
    chosen = carve(labels, groups, fraction, seed)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert set(labels[~chosen]) == set(labels)
    np.testing.assert_array_equal(chosen, carve(labels, groups, fraction, seed))
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(chosen[order], carve(labels[order], groups[order], fraction, seed))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_every_class_gets_about_the_asked_fraction(fraction):
    labels = np.repeat(np.arange(20), 100)
    groups = np.array([f"{i}/g{j % 25}" for i in range(20) for j in range(100)])
    chosen = carve(labels, groups, fraction, seed=0)
    shares = np.bincount(labels[chosen], minlength=20) / 100
    assert abs(shares - fraction).max() <= 0.04  # groups have four videos


def test_groups_that_hold_all_classes():
    labels, groups = np.tile(np.arange(10), 40), np.repeat([f"P{i:02}" for i in range(40)], 10)
    chosen = carve(labels, groups, 0.2, seed=1)
    assert len(set(groups[chosen])) == 8


def test_another_seed_carves_other_groups():
    labels, groups = np.zeros(100, int), np.arange(100).astype(str)
    assert (carve(labels, groups, 0.2, 0) != carve(labels, groups, 0.2, 1)).any()
    assert carve(labels, groups, 0.2, 0).sum() == 20
    assert not carve(labels, groups, 0.0, 0).any()


def test_a_class_with_one_group_stays_in_train():
    labels, groups = np.array([0] * 10 + [1] * 10), np.array(["only"] * 10 + [str(i) for i in range(10)])
    chosen = carve(labels, groups, 0.3, seed=0)
    assert not chosen[:10].any()
    assert chosen[10:].sum() == 3


# -- the manifest of a small data set --------------------------------------------------------------------------------


def prepare(tmp_path, files, **dataset):
    """Unpacked archives of a data set made of these files."""
    config = unpacked_config(tmp_path, files, **dataset)
    return config, Paths.of(config)


@pytest.fixture
def files(tmp_path):
    return ucf101_tree(tmp_path / "made")


def test_columns_and_values(tmp_path, files):
    config, paths = prepare(tmp_path, files, validation={"fraction": 0.25})
    write_manifest(config, "ucf101")
    manifest = read_manifest(paths.manifest("ucf101"))
    assert list(manifest.columns) == list(COLUMNS)
    assert manifest["split"].value_counts().to_dict() == {"train": 6, "test": 4, "val": 2}
    assert manifest["id"].is_unique
    first = manifest.iloc[0]
    assert first["id"] == "Archery/v_Archery_g03_c01.avi"
    assert first["path"] == "UCF-101/Archery/v_Archery_g03_c01.avi"
    assert (paths.videos("ucf101") / first["path"]).is_file()
    assert first[["frames", "fps", "width", "height", "codec"]].tolist() == [13, 12.0, 64, 48, "mpeg4"]
    assert len(set(manifest["sha256"])) == len(manifest)
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["problem"] is None
    assert report["hash"] == manifest_hash(paths.manifest("ucf101"))
    assert report["splits"] == {"train": 6, "val": 2, "test": 4}


@pytest.mark.parametrize(("channels", "names"), [(1, ["P47_tea_ch0"]), (2, ["P47_tea_ch0", "P47_tea_ch1"])])
def test_second_stereo_channels_are_listed_where_the_config_asks(tmp_path, channels, names):
    video = write_video(tmp_path / "made.avi", scene(10))
    files = {f"B/{place}.avi": video for place in ("P03/cam01/P03_tea", *(f"P47/stereo/P47_tea_ch{i}" for i in (0, 1)))}
    expected = {"classes": 1, "train": 1, "test": channels}
    config, paths = prepare(tmp_path, files, source="breakfast", expected=expected, stereo_channels=channels)
    write_manifest(config, "ucf101")
    manifest = read_manifest(paths.manifest("ucf101"))
    assert manifest.loc[manifest["split"] == "test", "id"].tolist() == [f"P47/stereo/{name}.avi" for name in names]


def test_the_hash_is_of_the_content(tmp_path, files):
    config, paths = prepare(tmp_path, files)
    write_manifest(config, "ucf101")
    path = paths.manifest("ucf101")
    before = manifest_hash(path)
    write_manifest(config, "ucf101")
    assert manifest_hash(path) == before
    table = pd.read_parquet(path)
    table.to_parquet(path, compression="gzip")
    assert manifest_hash(path) == before
    table.loc[0, "label"] += 1
    table.to_parquet(path)
    assert manifest_hash(path) != before


def test_missing_and_extra_videos_are_listed(tmp_path, files):
    """All of them, however many."""
    gone = files.pop("UCF-101/YoYo/v_YoYo_g06_c01.avi")
    extra = [f"UCF-101/YoYo/v_YoYo_g99_c{number:04}.avi" for number in range(1, 1301)]
    files |= dict.fromkeys(extra, gone)
    config, paths = prepare(tmp_path, files)
    with pytest.raises(DataError, match=r"1 listed videos are not among.*v_YoYo_g06_c01\.avi.*report"):
        write_manifest(config, "ucf101")
    assert not paths.manifest("ucf101").exists()
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["missing"] == ["YoYo/v_YoYo_g06_c01.avi"]
    assert report["extra"] == extra


def test_counts_that_differ_from_the_config(tmp_path, files):
    config, paths = prepare(tmp_path, files, expected={"classes": 3, "train": 8, "test": 5})
    with pytest.raises(DataError, match="2 classes, expected 3; 4 test, expected 5"):
        write_manifest(config, "ucf101")
    assert not paths.manifest("ucf101").exists()


def test_the_number_of_all_videos_is_compared_where_the_config_gives_it(tmp_path, files):
    files["UCF-101/YoYo/v_YoYo_g99_c01.avi"] = files["UCF-101/YoYo/v_YoYo_g06_c01.avi"]
    config, paths = prepare(tmp_path, files)
    write_manifest(config, "ucf101")
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["found"] == {"classes": 2, "train": 8, "test": 4, "clips": 13}
    assert report["expected"] == {"classes": 2, "train": 8, "test": 4}
    expected = config.datasets["ucf101"].expected.model_copy(update={"clips": 12})
    dataset = config.datasets["ucf101"].model_copy(update={"expected": expected})
    with pytest.raises(DataError, match=r"ucf101: 13 clips, expected 12; .*report"):
        write_manifest(config.model_copy(update={"datasets": {"ucf101": dataset}}), "ucf101")
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["extra"] == ["UCF-101/YoYo/v_YoYo_g99_c01.avi"]


@pytest.mark.parametrize("clips", [None, 4])
def test_a_video_of_no_split_is_missed_too(tmp_path, files, clips):
    """Split lists of HMDB51 name the clips that this split leaves out; it is an error where all clips are counted."""
    split = tmp_path / "wave_test_split1.txt"
    split.write_text("a.avi 1\nb.avi 2\nc.avi 0\nd.avi 0\n")
    video = files["UCF-101/YoYo/v_YoYo_g06_c01.avi"]
    there = {f"wave/{name}.avi": video for name in "abd"} | {split.name: split}
    expected = {"classes": 1, "train": 1, "test": 1} | ({"clips": clips} if clips else {})
    config, paths = prepare(tmp_path, there, source="hmdb51", expected=expected)
    with pytest.raises(DataError, match="3 clips, expected 4") if clips else contextlib.nullcontext():
        write_manifest(config, "ucf101")
    page = check_dataset(config, "ucf101")
    assert ("! 1 listed videos are not there: wave/c.avi" in page) == bool(clips)
    assert ("  1 listed videos that no split uses are not there: wave/c.avi" in page) == (not clips)
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["missing"] == ["wave/c.avi"]
    assert report["unused_count"] == 1


def test_breakfast_with_lists_says_which_video_is_missing_and_which_too_many(tmp_path, files):
    """One missing and one extra: the counts alone would be right."""
    head = "file_name,duration,action,class_id\n"
    (tmp_path / "train.csv").write_text(f"{head}P03-cam01-P03_tea,9,tea,0\nP03-stereo-P03_tea_ch0,9,tea,0\n")
    (tmp_path / "test.csv").write_text(f"{head}P47-cam01-P47_tea,9,tea,0\n")
    names = ["P03/cam09/P03_tea", "P03/stereo/P03_tea_ch0", "P03/stereo/P03_tea_ch1", "P47/cam01/P47_tea"]
    there = {f"B/{name}.avi": files["UCF-101/YoYo/v_YoYo_g06_c01.avi"] for name in names}
    lists = {f"lists/{name}": tmp_path / name for name in ("train.csv", "test.csv")}
    settings = {"source": "breakfast", "expected": {"classes": 1, "train": 2, "test": 1}}
    config, paths = prepare(tmp_path, there | lists, **settings)
    with pytest.raises(DataError, match=r"1 listed videos .* the first is 'P03/cam01/P03_tea\.avi'"):
        write_manifest(config, "ucf101")
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert report["missing"] == ["P03/cam01/P03_tea.avi"]
    assert report["extra"] == ["B/P03/cam09/P03_tea.avi"]
    assert report["unused_count"] == 1


def test_a_broken_video_keeps_its_row_and_is_named(tmp_path, files):
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"RIFF not a video")
    files["UCF-101/Archery/v_Archery_g01_c01.avi"] = broken
    config, paths = prepare(tmp_path, files)
    manifest = write_manifest(config, "ucf101").set_index("id")
    assert manifest.loc["Archery/v_Archery_g01_c01.avi", "frames"] == 0
    assert (manifest["split"] == "test").sum() == 4
    report = json.loads(paths.manifest_report("ucf101").read_text())
    assert [video["id"] for video in report["broken"]] == ["Archery/v_Archery_g01_c01.avi"]
    assert "cannot be decoded" in report["broken"][0]["reason"]


examine = headers.examine


def _dies_of_one(path):
    if path.endswith("v_YoYo_g02_c01.avi"):
        os.kill(os.getpid(), signal.SIGKILL)
    return examine(path)


@pytest.mark.slow
def test_a_video_that_kills_its_reader_is_broken_and_no_other(tmp_path, files, monkeypatch):
    config, _ = prepare(tmp_path, files)
    whole = write_manifest(config, "ucf101").set_index("id")
    monkeypatch.setattr(headers, "examine", _dies_of_one)
    manifest = write_manifest(config, "ucf101").set_index("id")
    assert manifest.index[manifest["frames"] == 0].tolist() == ["YoYo/v_YoYo_g02_c01.avi"]
    assert (manifest["sha256"] == whole["sha256"]).all()
    report = json.loads(Paths.of(config).manifest_report("ucf101").read_text())
    assert "the decoder crashed on it" in report["broken"][0]["reason"]


def test_nothing_unpacked_yet(tmp_path):
    with pytest.raises(DataError, match=r"unpacked\.json: no such file; run `ssp data unpack`"):
        write_manifest(small_config(tmp_path), "ucf101")


def test_a_video_that_vanished_after_unpacking(tmp_path, files):
    config, paths = prepare(tmp_path, files)
    (paths.videos("ucf101") / "UCF-101/YoYo/v_YoYo_g01_c01.avi").unlink()
    with pytest.raises(DataError, match=r"v_YoYo_g01_c01\.avi: cannot be read"):
        write_manifest(config, "ucf101")


def test_no_manifest_yet(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.parquet: no such file; run `ssp data manifest` first"):
        read_manifest(tmp_path / "manifest.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet"])
def test_a_damaged_manifest(tmp_path, content):
    path = tmp_path / "manifest.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.parquet: not a readable manifest") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_videos_are_probed_in_order_by_several_processes(tmp_path, files):
    config, _ = prepare(tmp_path, files)
    one = write_manifest(config, "ucf101")
    compute = config.compute.model_copy(update={"data": config.compute.data.model_copy(update={"threads": 3})})
    pd.testing.assert_frame_equal(one, write_manifest(config.model_copy(update={"compute": compute}), "ucf101"))


def test_the_header_of_a_longer_video(tmp_path, files):
    files["UCF-101/YoYo/v_YoYo_g06_c01.avi"] = write_video(tmp_path / "other.avi", scene(30, 96, 32), fps=25)
    config, _ = prepare(tmp_path, files)
    row = write_manifest(config, "ucf101").set_index("id").loc["YoYo/v_YoYo_g06_c01.avi"]
    assert row[["frames", "fps", "width", "height"]].tolist() == [30, 25.0, 96, 32]


@pytest.mark.slow
def test_splits_share_what_was_unpacked(tmp_path, files):
    """Each split has a manifest and frames of its own; validation is carved from its own training list."""
    lists = {}
    for name, groups in (("trainlist02", (1, 2, 3, 4)), ("testlist02", (5, 6))):
        path = tmp_path / f"{name}.txt"
        clips = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in ("Archery", "YoYo") for g in groups]
        path.write_text("".join(f"{clip}{' 1' * name.startswith('train')}\n" for clip in clips))
        lists[f"ucfTrainTestlist/{name}.txt"] = path
    config, paths = prepare(tmp_path, files | lists, split=[1, 2])
    tests = {}
    for dataset in config.datasets:
        manifest = write_manifest(config, dataset)
        extract_shard(config, dataset, 0)
        extract_shard(config, dataset, 1)
        assert len(load_split(config, dataset, "trainval")) == 8
        tests[dataset] = set(manifest.loc[manifest["split"] == "test", "group"])
    assert not tests["ucf101-split1"] & tests["ucf101-split2"] and all(map(len, tests.values()))
    assert paths.videos("ucf101").is_dir() and not paths.videos("ucf101-split1").exists()
    assert "fit for use" in check_dataset(config, "ucf101-split2")


def test_a_class_that_no_video_is_listed_of_is_called_by_its_number():
    listed = pd.DataFrame({"label": [2, 0, 2], "class_name": ["swim", "run", "swim"]})
    assert class_names(listed, 4) == {0: "run", 1: "class 1", 2: "swim", 3: "class 3"}
    assert class_names(listed) == {0: "run", 1: "class 1", 2: "swim"}
