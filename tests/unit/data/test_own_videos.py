"""Own videos, in folders or a table, are read where they are; what is wrong in a table is one line that names it."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp.cli.common import load
from ssp.config import parse_config
from ssp.data.check import check_dataset, findings
from ssp.data.frames import FrameStore, extract_shard
from ssp.data.manifest import (
    build_manifest,
    carve_splits,
    class_count,
    class_names,
    own_tree,
    read_manifest,
    write_manifest,
)
from ssp.data.sources import VIDEO_SUFFIXES, Tree, read_listing
from ssp.data.video import read_frames
from ssp.errors import ConfigError, DataError
from ssp.paths import Paths
from tests.unit.made_videos import scene, small_config, write_video


def own_config(root, place, **dataset):
    """The config of `small_config` over own videos."""
    plain = small_config(root).model_dump(mode="json")
    block = plain["datasets"]["ucf101"]
    for key in ("archives", "local", "expected"):
        del block[key]
    source = "table" if place.suffix == ".csv" else "folder"
    plain["datasets"] = {"mine": block | {"source": source, "videos": str(place)} | dataset}
    return parse_config(plain, "unit test")


CARVED = {"test": {"fraction": 0.25, "seed": 0}}


@pytest.fixture
def videos(tmp_path):
    """Two classes of four videos of 10 to 17 frames."""
    folder = tmp_path / "videos"
    for label, name in enumerate(("run", "walk")):
        for i in range(4):
            write_video(folder / name / f"{i}.avi", scene(10 + 4 * label + i, seed=4 * label + i))
    return folder


def write_table(videos, *lines):
    table = videos / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def folder_listing(*files, layout=None):
    return read_listing("folder", Tree("videos", list(files)), 1, layout=layout)


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "path", "said"),
    [
        (None, "walk/1.mp4", ("walk", None, "walk/1.mp4")),
        (None, "walk/anna/day 2/1.mp4", ("walk", None, "anna/day 2")),
        (None, "train/walk/1.mp4", ("train", None, "walk")),  # beside a folder that is no split
        ("{split}/{class}/**", "Training/walk/1.mp4", ("walk", "train", "Training/walk/1.mp4")),
        ("{class}/{split}/**", "walk/valid/anna/1.mp4", ("walk", "val", "anna")),
        ("{class}/{group}_*", "walk/anna_01_b.mp4", ("walk", None, "anna")),
        ("*/{group}/{class}/*", "x/anna/walk/1.mp4", ("walk", None, "anna")),
        ("{class}_*.mp4", "walk_01.mp4", ("walk", None, "walk_01.mp4")),
    ],
)
def test_what_a_path_says(layout, path, said):
    second = {None: "zz/1.mp4", "{class}/{group}_*": "zz/bo_1.mp4", "{class}_*.mp4": "zz_1.mp4"}
    other = second.get(layout) or path.replace("walk", "zz")
    entry = folder_listing(path, other, layout=layout).entries[0]
    assert (entry.class_name, entry.split, entry.group) == said


def test_outermost_folders_that_are_called_so_are_the_split():
    listing = folder_listing("train/a/1.mp4", "train/b/1.mp4", "test/a/2.mp4", "val/b/3.mp4")
    assert listing.classes == ["a", "b"]
    assert [entry.split for entry in listing.entries] == ["train", "train", "test", "val"]


@pytest.mark.parametrize(
    ("layout", "files", "says"),
    [
        (None, ["walk/1.mp4", "run/1.mp4", "1.mp4"], r"videos: '1\.mp4' does not read as '\{class\}/\*\*'; move it"),
        (None, ["walk/1.mp4"], r"videos: 1 classes \(walk\); there is something to tell from two on"),
        (None, ["walk/1.txt"], r"videos: no video in it; .*\.mp4"),
        ("{split}/{class}/*", ["a/b/1.mp4"], r"'a/b/1\.mp4' does not read as .* with a split of train, val or test"),
        ("{class}/{person}/*", ["a/b/1.mp4"], r"layout .*: \{person\} is not known; write \{class\}"),
        ("{class}/{class}/*", ["a/b/1.mp4"], r"\{class\} is there twice"),
        ("**", ["a/b/1.mp4"], r"no \{class\}"),
    ],
)
def test_a_folder_that_does_not_read(layout, files, says):
    with pytest.raises(DataError, match=says) as caught:
        folder_listing(*files, layout=layout)
    assert "\n" not in str(caught.value)


def test_every_suffix_is_one_that_the_decoder_reads():
    import av

    known = {suffix for name in av.formats_available for suffix in _extensions(name)}
    assert {suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES} <= known


def _extensions(name):
    from av.format import ContainerFormat

    try:
        return ContainerFormat(name, "r").extensions | ContainerFormat(name, "w").extensions
    except ValueError:
        return ContainerFormat(name).extensions


def test_hidden_files_are_none_of_the_videos(tmp_path):
    for name in ("a/1.mp4", "a/._1.mp4", ".cache/1.mp4", "b/2.MP4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert own_tree(tmp_path).videos == ["a/1.mp4", "b/2.MP4"]


# -- from the folder to frames ---------------------------------------------------------------------------------------


def test_manifest_and_frames_of_a_folder_that_stays_as_it_is(tmp_path, videos):
    before = {path: path.stat().st_mtime_ns for path in videos.rglob("*")}
    config = own_config(tmp_path, videos, **CARVED)
    paths = Paths.of(config)
    write_manifest(config, "mine")
    manifest = read_manifest(paths.manifest("mine"))
    assert manifest.groupby("class_name")["split"].value_counts().to_dict() == {
        (name, split): count for name in ("run", "walk") for split, count in (("train", 2), ("val", 1), ("test", 1))
    }
    for shard in range(2):
        extract_shard(config, "mine", shard)
    store = FrameStore(paths.frames("mine"))
    assert [store.length(row) for row in range(8)] == [10, 11, 12, 13, 14, 15, 16, 17]
    assert {path: path.stat().st_mtime_ns for path in videos.rglob("*")} == before
    assert not paths.videos("mine").exists()
    report = json.loads(paths.manifest_report("mine").read_text())
    assert report["expected"] is None
    assert report["found"] == {"classes": 2, "train": 6, "test": 2, "clips": 8}
    assert class_count(config, "mine") == 2
    assert class_names(manifest) == {0: "run", 1: "walk"}
    assert findings(check_dataset(config, "mine")) == []


def test_own_numbers_are_compared_where_they_are_said(tmp_path, videos):
    config = own_config(tmp_path, videos, expected={"classes": 2, "train": 6, "test": 3}, **CARVED)
    with pytest.raises(DataError, match="2 test, expected 3"):
        write_manifest(config, "mine")


@given(st.integers(0, 5), st.sampled_from([0.1, 0.25, 0.5]))
@settings(max_examples=20, deadline=None)
def test_test_is_carved_by_whole_groups(seed, fraction):
    files = [f"{name}/g{group}/{i}.mp4" for name in ("a", "b") for group in range(6) for i in range(3)]
    share = SimpleNamespace(fraction=fraction, seed=seed)
    found, settings = folder_listing(*files), SimpleNamespace(videos="videos", test=share, validation=share)
    split = carve_splits(found, settings)
    groups = pd.DataFrame({"group": [entry.group for entry in found.entries], "split": split})
    assert groups.groupby("group")["split"].nunique().max() == 1
    assert set(split) == {"train", "val", "test"}
    assert split == carve_splits(found, settings)


def test_videos_that_bring_validation_lose_none_to_it(tmp_path, videos):
    lines = [f"run/{i}.avi,run,{split}" for i, split in enumerate(("train", "train", "val", "test"))]
    lines += [f"walk/{i}.avi,walk,{split}" for i, split in enumerate(("train", "train", "train", "test"))]
    manifest = build_manifest(own_config(tmp_path, write_table(videos, "path,label,split", *lines)), "mine")
    assert manifest["split"].tolist() == [line.rpartition(",")[2] for line in lines]


@pytest.mark.parametrize(
    ("header", "dataset", "says"),
    [
        ("path,label", {}, r"mine: the videos have no split; give one, or carve test: `test: \{fraction"),
        ("path,label,split", CARVED, "mine: the videos have a split, and the config carves another; remove `test`"),
        ("path,label,group", CARVED, "mine: no video for test; where test is carved, some class needs a second group"),
    ],
)
def test_a_split_is_said_in_one_place(tmp_path, videos, header, dataset, says):
    more = {"path,label": "", "path,label,split": ",train", "path,label,group": ",one"}[header]
    lines = [f"{name}/{i}.avi,{name}{more}" for name in ("run", "walk") for i in range(4)]
    with pytest.raises(DataError, match=says):
        write_manifest(own_config(tmp_path, write_table(videos, header, *lines), **dataset), "mine")


# -- tables ----------------------------------------------------------------------------------------------------------

GOOD = ("run/0.avi,run", "walk/0.avi,walk")


def listing(videos, *lines):
    return read_listing("table", own_tree(write_table(videos, *lines)), 1)


def test_columns_in_any_order_and_absolute_paths(videos):
    found = listing(
        videos, "\ufeffLabel, split ,path,group", f'10,test,"{videos / "run/0.avi"}",p', "9,train,walk/1.avi,"
    )
    assert found.classes == ["9", "10"]  # numbers as numbers
    assert [(e.path, e.label, e.split, e.group) for e in found.entries] == [
        ("run/0.avi", 1, "test", "p"),
        ("walk/1.avi", 0, "train", "walk/1.avi"),
    ]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["path,class", *GOOD], "line 1: no column 'label'; name the columns there, separated by commas: path, label"),
        (
            ["path,label,gruop", *GOOD],
            "line 1: unknown column 'gruop'; did you mean 'group'? known: path, label, split",
        ),
        (["path,label,fold", *GOOD], "line 1: unknown column 'fold'; remove it known"),
        (["path,label,label", *GOOD], "line 1: column 'label' is there twice; remove one"),
        (["path;label", *GOOD], "line 1: no column 'path'; name the columns there, separated by commas"),
        (["path,label", *GOOD, "run/9.avi,run"], "line 4: no file 'run/9.avi' in"),
        (["path,label", *GOOD, "../x.avi,run"], "line 4: '../x.avi' lies outside of"),
        (["path,label", *GOOD, "list.csv,run"], "line 4: 'list.csv' is no video by its name (.avi"),
        (["path,label", *GOOD, "run/0.avi,run"], "line 4: 'run/0.avi' is listed twice (see line 2)"),
        (
            ["path,label", *GOOD, "./run/0.avi,walk"],
            "line 4: 'run/0.avi' is listed as 'run' and as 'walk' (see line 2)",
        ),
        (["path,label", *GOOD, "run/1.avi,"], "line 4: give path, label, separated by commas"),
        (["path,label", *GOOD, "run/1.avi,run,walk"], "line 4: give path, label, separated by commas"),
        (["path,label", GOOD[0]], "1 classes (run); there is something to tell from two on"),
        (["path,label,split", "run/0.avi,run,train", "walk/0.avi,walk,"], "line 3: no split; write train, val or test"),
        (
            ["path,label,split", "run/0.avi,run,dev", "walk/0.avi,walk,"],
            "line 2: split 'dev' is not known; write train",
        ),
        (["path,label,start", "run/0.avi,run,a", "walk/0.avi,walk,"], "line 2: start and end are no numbers"),
        (["path,label,start,end", "run/0.avi,run,2,1", "walk/0.avi,walk,,"], "line 2: start 2 and end 1.0 are no"),
        (["path,label,start", "run/0.avi,run,nan", "walk/0.avi,walk,"], "line 2: start nan and end None are no"),
    ],
)
def test_a_wrong_line_is_named(videos, lines, says):
    with pytest.raises(DataError) as caught:
        listing(videos, *lines)
    assert str(caught.value).startswith(f"{videos / 'list.csv'}: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_segments_are_the_frames_of_their_seconds(tmp_path):
    folder = tmp_path / "videos"
    for name in ("a", "b"):
        write_video(folder / f"{name}.avi", scene(36, seed=ord(name)), fps=12)  # 3 seconds
    table = write_table(
        folder,
        "path,label,split,start,end",
        *("a.avi,x,train,0,1", "a.avi,y,train,1,2", "b.avi,x,test,,1.5", "b.avi,y,test,2.5,"),
    )
    config = own_config(tmp_path, table)
    paths = Paths.of(config)
    manifest = write_manifest(config, "mine")
    assert manifest["id"].tolist() == ["a.avi#0-1", "a.avi#1-2", "b.avi#0-1.5", "b.avi#2.5-"]
    assert manifest["group"].tolist() == ["a.avi", "a.avi", "b.avi", "b.avi"]
    assert manifest["frames"].tolist() == [12, 12, 18, 6]
    for shard in range(2):
        extract_shard(config, "mine", shard)
    store = FrameStore(paths.frames("mine"))
    assert [store.length(row) for row in range(4)] == [12, 12, 18, 6]
    read, true = store.read(1, range(12)).astype(int), read_frames(folder / "a.avi", range(11, 25))
    apart = [np.abs(read - true[shift : shift + 12]).mean() for shift in range(3)]
    assert apart[1] < min(apart[0], apart[2]) / 2  # JPEG, and not one frame off
    page = check_dataset(config, "mine")
    assert not any("same bytes" in line for line in page.splitlines())


@pytest.mark.parametrize("segment", ["3,4", "3.2,", "1,4.5"])
def test_a_segment_behind_the_end(tmp_path, segment):
    folder = tmp_path / "videos"
    for name in ("a", "b"):
        write_video(folder / f"{name}.avi", scene(36), fps=12)
    table = write_table(folder, "path,label,split,start,end", f"a.avi,x,train,{segment}", "b.avi,y,test,,")
    with pytest.raises(DataError, match=r"'a\.avi#.*': no such segment, the video has 3\.0 s; mend its start and end"):
        build_manifest(own_config(tmp_path, table), "mine")


def test_one_person_in_train_and_test_is_a_finding(tmp_path, videos):
    who = (("train", "0"), ("train", "1"), ("train", "anna"), ("test", "anna"))
    lines = [f"{c}/{i}.avi,{c},{part},{name}" for c in ("run", "walk") for i, (part, name) in enumerate(who)]
    config = own_config(tmp_path, write_table(videos, "path,label,split,group", *lines))
    write_manifest(config, "mine")
    assert "! groups in test and in train, of which validation is a part, by the given split: 1" in findings(
        check_dataset(config, "mine")
    )


# -- config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ({"archives": [{"file": "a.zip"}]}, "datasets.mine.archives: give these, or as `videos` a folder"),
        ({"videos": None}, "datasets.mine.archives: give these, or as `videos` a folder"),
        ({"source": "ucf101"}, "datasets.mine.source: folder and table read own `videos`"),
        ({"local": "x"}, "datasets.mine.local: only for archives; leave it out"),
        ({"split": 2}, "datasets.mine.split: own videos have one; leave it out"),
        ({"source": "table", "layout": "{class}/*"}, "datasets.mine.layout: only for source folder"),
    ],
)
def test_keys_that_do_not_go_with_own_videos(tmp_path, dataset, says):
    with pytest.raises(ConfigError) as caught:
        own_config(tmp_path, tmp_path, **dataset)
    assert str(caught.value).startswith(f"unit test: {says}")


@pytest.mark.parametrize(("key", "value"), [("layout", "{class}/*"), ("test", {}), ("expected", None)])
def test_archives_need_their_numbers_and_carve_no_test(tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"datasets\.ucf101\.{key}: (missing|only for own videos)"):
        small_config(tmp_path, **{key: value})


def test_there_is_nothing_to_fetch(tmp_path):
    import yaml

    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(own_config(tmp_path, tmp_path).model_dump(mode="json")))
    with pytest.raises(ConfigError, match="'mine' has no archives, its videos are read from"):
        load(path, archives="mine")


def test_a_moved_folder_is_no_other_cell_but_another_manifest(tmp_path):
    here, there = (own_config(tmp_path, tmp_path / name) for name in ("a", "b"))
    assert here.cell_slice("mine", "linear") == there.cell_slice("mine", "linear")
    assert here.manifest_slice("mine") != there.manifest_slice("mine")


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="absent: no such file or folder; mend the path"):
        build_manifest(own_config(tmp_path, tmp_path / "absent"), "mine")
    assert os.listdir(tmp_path) == []
