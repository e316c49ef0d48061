"""Published annotation formats, at the published size, give the published counts and class orders."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from ssp.data.sources import Tree, read_listing
from ssp.data.sources.hmdb51 import film
from ssp.errors import DataError
from ssp.records.predictions import merge_views, metrics
from tests.unit.made_videos import SHARED

ANNOTATIONS = SHARED / "annotations"
needs_lists = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="../shared is absent: no published lists to parse")


def tree(folder, annotations, videos):
    """A tree of annotation files and of videos that are only listed: sources open no video."""
    for name, text in annotations.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Tree(folder, sorted([*annotations, *videos]))


def splits(listing):
    return dict(Counter(entry.split for entry in listing.entries))


def found(listing, files):
    return {entry.path for entry in listing.entries} <= set(files.files)


# -- UCF101 ----------------------------------------------------------------------------------------------------------


@needs_lists
@pytest.mark.parametrize("labels", ["as published here", "without a label column"])
def test_ucf101_at_full_size(tmp_path, labels):
    names = ("classInd.txt", "trainlist01.txt", "testlist01.txt")
    text = {name: (ANNOTATIONS / "ucf101" / name).read_text() for name in names}
    clips = [line.split()[0] for name in names[1:] for line in text[name].splitlines()]
    if labels == "without a label column":
        text["testlist01.txt"] = "\r\n".join(line.split()[0] for line in text["testlist01.txt"].splitlines())
    files = tree(tmp_path, {f"ucfTrainTestlist/{k}": v for k, v in text.items()}, [f"UCF-101/{c}" for c in clips])
    listing = read_listing("ucf101", files, 1)
    assert splits(listing) == {"train": 9537, "test": 3783}
    assert len(listing.classes) == 101
    assert (listing.classes[0], listing.classes[-1]) == ("ApplyEyeMakeup", "YoYo")
    assert found(listing, files)
    for entry in listing.entries:
        folder = entry.id.split("/")[0]
        assert entry.class_name == folder == listing.classes[entry.label]  # never the label column
        assert entry.group == f"{folder}/{entry.id.split('_')[-2]}"
    groups = {split: {e.group for e in listing.entries if e.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]  # g01 to g07 are test
    assert len(groups["train"] | groups["test"]) == 101 * 25


def test_ucf101_a_class_that_is_not_in_the_index(tmp_path):
    text = {
        "classInd.txt": "1 Archery\n",
        "trainlist01.txt": "Archery/v_Archery_g01_c01.avi 1\n",
        "testlist01.txt": "Yo/v_Yo_g01_c01.avi\n",
    }
    with pytest.raises(DataError, match=r"testlist01\.txt: line 1 names no clip of a known class"):
        read_listing("ucf101", tree(tmp_path, text, []), 1)


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_ucf101_a_missing_annotation_is_named(tmp_path, name):
    text = {
        "classInd.txt": "1 Archery\n",
        "trainlist01.txt": "Archery/v_Archery_g01_c01.avi 1\n",
        "testlist01.txt": "Archery/v_Archery_g02_c01.avi\n",
    }
    del text[name]
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read_listing("ucf101", tree(tmp_path, text, []), 1)


@pytest.mark.parametrize("line", ["² Archery", "one Archery", f"{'9' * 5000} Archery", "1", "1 Archery fast"])
def test_ucf101_a_damaged_index(tmp_path, line):
    text = {"classInd.txt": line, "trainlist01.txt": "", "testlist01.txt": ""}
    with pytest.raises(DataError, match=r"classInd\.txt: a line is not '<number> <class>'"):
        read_listing("ucf101", tree(tmp_path, text, []), 1)


# -- HMDB51 ----------------------------------------------------------------------------------------------------------


@needs_lists
def test_hmdb51_at_full_size(tmp_path):
    """The published members of split 1, written in the per-class form of the original, with unused clips between."""
    names = (ANNOTATIONS / "hmdb51" / "label_map.txt").read_text().split()
    lists = {name: ["unused_clip_1.avi 0"] for name in names}
    videos = [f"{name}/unused_clip_1.avi" for name in names]
    for part, use in (("train", 1), ("test", 2)):
        for line in (ANNOTATIONS / "hmdb51" / f"{part}list01.txt").read_text().splitlines():
            clip, number = line.rsplit(maxsplit=1)
            lists[names[int(number) - 1]].append(f"{clip}.avi {use} ")
            videos.append(f"hmdb51_org/{names[int(number) - 1]}/{clip}.avi")
    text = {f"testTrainMulti_7030_splits/{name}_test_split1.txt": "\n".join(lines) for name, lines in lists.items()}
    text |= {f"testTrainMulti_7030_splits/{name}_test_split2.txt": "wrong" for name in names}
    files = tree(tmp_path, text, videos)
    listing = read_listing("hmdb51", files, 1)
    assert splits(listing) == {"train": 3570, "test": 1530}
    assert listing.classes == names
    assert found(listing, files)
    assert set(Counter(e.label for e in listing.entries if e.split == "train").values()) == {70}
    assert len(listing.unused) == 51
    assert all(entry.id.startswith(f"{entry.class_name}/") for entry in listing.entries)


@pytest.mark.parametrize(
    ("clip", "name"),
    [
        ("Finding_Forrester_3_clap_u_nm_np1_ri_med_0.avi", "findingforrester"),
        ("Basketball_Dribbling_Tips__2_dribble_f_cm_np1_le_med_4.avi", "basketballdribblingtips"),
        ("RETURN_OF_THE_KING_12_sword_exercise_f_cm_np2_ba_goo_11.avi", "returnoftheking"),
        ("The_Slow_Clap_clap_u_nm_np1_fr_bad_0.avi", "theslowclap"),
        ("clap_u_nm_np1_ri_med_0.avi", "clap"),
        # One film under several names, as they are in the published lists.
        ("castaway1_clap_f_nm_np1_ri_med_0.avi", "castaway"),
        ("castaway2_clap_f_nm_np1_ri_med_0.avi", "castaway"),
        ("TheSlowClap1_clap_f_nm_np1_ri_med_0.avi", "theslowclap"),
        ("boom-snap-clap_clap_u_nm_np1_fr_med_0.avi", "boomsnapclap"),
        ("BoomSnapClap!_clap_u_nm_np1_fr_med_0.avi", "boomsnapclap"),
        ("turnen(part1)_clap_f_nm_np1_ri_med_0.avi", "turnenpart"),
        ("Goal_(2007)_-_watch_online_-_3_4_clap_f_nm_np1_ri_med_0.avi", "goal2007watchonline"),
        # A number that is the name, or a year in it, is no part's.
        ("21_clap_f_nm_np1_ri_med_0.avi", "21"),
        ("film1234_clap_f_nm_np1_ri_med_0.avi", "film1234"),
        ("prelinger_LetsPlay1949_9_clap_f_nm_np1_ri_med_0.avi", "prelingerletsplay1949"),
        ("6_flick_flacks_clap_f_nm_np1_ri_med_0.avi", "6flickflacks"),
    ],
)
def test_hmdb51_the_film_is_what_is_left_of_the_name(clip, name):
    assert film(clip, ["clap", "dribble", "sword", "sword_exercise"]) == name


def test_hmdb51_a_line_of_another_form(tmp_path):
    files = tree(tmp_path, {"wave_test_split1.txt": "a.avi 1\nb.avi\n"}, [])
    with pytest.raises(DataError, match=r"wave_test_split1\.txt: line 2"):
        read_listing("hmdb51", files, 1)
    with pytest.raises(DataError, match="_test_split3"):
        read_listing("hmdb51", files, 3)


def test_hmdb51_a_list_that_is_there_twice_is_refused(tmp_path):
    lists = {f"{folder}/wave_test_split1.txt": f"a.avi {use}\n" for folder, use in (("one", 1), ("two", 0))}
    with pytest.raises(DataError, match=r"'wave_test_split1\.txt' is there 2 times: one/wave.*, two/wave.*; keep one"):
        read_listing("hmdb51", tree(tmp_path, lists, []), 1)


# -- Something-Something V2 ------------------------------------------------------------------------------------------


def ssv2_files(folder, templates, train, validation, test=0):
    """Lists of any size: videos are numbered, templates cycle; lists hold templates with brackets."""

    def rows(start, count):
        return [
            {
                "id": str(start + i),
                "label": "holding a cup",
                "template": templates[i % len(templates)].replace("something", "[something]"),
                "placeholders": ["a cup"],
            }
            for i in range(count)
        ]

    text = {
        "labels/labels.json": json.dumps({name: str(i) for i, name in enumerate(templates)}),
        "labels/train.json": json.dumps(rows(1, train)),
        "labels/validation.json": json.dumps(rows(1 + train, validation)),
        "labels/test.json": json.dumps([{"id": str(1 + train + validation + i)} for i in range(test)]),
    }
    videos = [f"20bn-something-something-v2/{i}.webm" for i in range(1, 1 + train + validation + test)]
    return tree(folder, text, videos)


@needs_lists
@pytest.mark.slow
def test_ssv2_at_full_size(tmp_path):
    templates = (ANNOTATIONS / "ssv2" / "label_map.txt").read_text().splitlines()
    files = ssv2_files(tmp_path, templates, 168_913, 24_777, 27_157)
    listing = read_listing("ssv2", files, 1)
    assert splits(listing) == {"train": 168_913, "test": 24_777}
    assert listing.classes == templates
    assert len(listing.classes) == 174
    assert len(listing.unused) + len(listing.entries) == 220_847
    assert found(listing, files)
    assert all(entry.class_name == templates[entry.label] for entry in listing.entries)
    assert all(entry.group == entry.id.removesuffix(".webm") for entry in listing.entries)


def test_ssv2_a_template_that_is_not_in_the_index(tmp_path):
    files = ssv2_files(tmp_path, ["Holding something", "Dropping something"], 4, 2)
    (tmp_path / "labels/labels.json").write_text('{"Holding something": "0"}')
    with pytest.raises(DataError, match=r"train\.json.*'Dropping something'"):
        read_listing("ssv2", files, 1)


WRONG = ('"zero"', '"0.7"', "0.7", "Infinity", "true", "null", '"1"')


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"a": "0", "b": "2"}', "[" * 100_000, *(f'{{"Holding something": {n}}}' for n in WRONG)]
)
def test_ssv2_a_damaged_index(tmp_path, text):
    files = ssv2_files(tmp_path, ["Holding something"], 1, 1)
    (tmp_path / "labels/labels.json").write_text(text)
    with pytest.raises(DataError, match=r"labels\.json"):
        read_listing("ssv2", files, 1)


def test_ssv2_a_damaged_list(tmp_path):
    files = ssv2_files(tmp_path, ["Holding something"], 1, 1)
    (tmp_path / "labels/train.json").write_text('[{"template": "Holding [something]"}]')
    with pytest.raises(DataError, match=r"train\.json"):
        read_listing("ssv2", files, 1)


# -- Breakfast -------------------------------------------------------------------------------------------------------


def breakfast_videos():
    """Files of the published list, as the archive names them: (path, split, class number, activity)."""
    for split in ("train", "test"):
        for line in (ANNOTATIONS / "breakfast" / f"{split}.csv").read_text().splitlines()[1:]:
            name, _, activity, number = line.split(",")
            subject, camera, file = name.split("-")
            yield f"BreakfastII_15fps_qvga_sync/{subject}/{camera}/{file}.avi", split, int(number), activity


@needs_lists
def test_breakfast_at_full_size(tmp_path):
    published = {path: (split, number, activity) for path, split, number, activity in breakfast_videos()}
    second_channels = [path.replace("_ch0", "_ch1") for path in published if "_ch0" in path]
    files = tree(tmp_path, {}, [*published, *second_channels])
    listing = read_listing("breakfast", files, 1)
    assert splits(listing) == {"train": 1357, "test": 355}
    assert {e.path: (e.split, e.label, e.class_name) for e in listing.entries} == published
    assert listing.unused == set(second_channels)
    test_ids = [entry.id for entry in listing.entries if entry.split == "test"]
    assert len(set(test_ids)) == 355  # the camera is in the id
    assert len({name.split("/")[-1] for name in test_ids}) == 136  # what file names alone would leave
    assert {e.group for e in listing.entries if e.split == "test"} == {f"P{i}" for i in range(47, 55)}


@needs_lists
def test_breakfast_by_its_lists_at_full_size(tmp_path):
    """Lists and names say the same; with lists it is known which video is missing."""
    published = {path: (split, number, activity) for path, split, number, activity in breakfast_videos()}
    second_channels = [path.replace("_ch0", "_ch1") for path in published if "_ch0" in path]
    more = "BreakfastII_15fps_qvga_sync/P03/cam09/P03_tea.avi"
    text = {f"lists/{part}.csv": (ANNOTATIONS / "breakfast" / f"{part}.csv").read_text() for part in ("train", "test")}
    gone, *there = published
    by_name = read_listing("breakfast", tree(tmp_path, {}, [*published, *second_channels]), 1)
    listing = read_listing("breakfast", tree(tmp_path, text, [*there, *second_channels, more]), 1)
    assert splits(listing) == {"train": 1357, "test": 355}
    assert [entry.path for entry in listing.entries] == [gone.split("/", 1)[1], *there]
    assert listing.classes == by_name.classes
    assert listing.unused == by_name.unused == set(second_channels)
    rows = [{(e.id, e.label, e.class_name, e.split, e.group) for e in one.entries} for one in (listing, by_name)]
    assert rows[0] == rows[1]


@needs_lists
@pytest.mark.parametrize("with_lists", [False, True])
def test_breakfast_with_both_stereo_channels_merges_into_the_192_published_ids(tmp_path, with_lists):
    """80 names of single cameras and 2 x 56 of the stereo camera; with the first channel alone there are 136."""
    first = [path for path, *_ in breakfast_videos()]
    both = [one for path in first for one in dict.fromkeys((path, path.replace("_ch0.", "_ch1.")))]
    names = [f"{part}.csv" for part in ("train", "test")] if with_lists else []
    files = tree(tmp_path, {f"lists/{n}": (ANNOTATIONS / "breakfast" / n).read_text() for n in names}, both)
    listing = read_listing("breakfast", files, 1, stereo_channels=2)
    assert splits(listing) == {"train": 1605, "test": 411} and not listing.unused
    assert {entry.path for entry in listing.entries} == set(both)
    if with_lists:
        assert [entry.path for entry in listing.entries] == both  # each second channel behind its first
    for channels, ids in ((1, 136), (2, 192)):
        test = [entry for entry in read_listing("breakfast", files, 1, channels).entries if entry.split == "test"]
        predictions = pd.DataFrame(
            {
                "id": [entry.id for entry in test],
                "group": [entry.group for entry in test],
                "label": [entry.label for entry in test],
                "view": 0,
                "logits": [np.eye(10, dtype=np.float32)[entry.label] for entry in test],
            }
        )
        found = merge_views(predictions, "published")
        assert len(found) == ids and metrics(found)["top1"] == 100
        assert len(merge_views(predictions)) == len(test)


HEAD = "file_name,duration,action,class_id\n"


def breakfast_lists(folder, train, test=f"{HEAD}P47-cam01-P47_tea,9,tea,0\n"):
    videos = [f"B/P{subject}/cam01/P{subject}_{name}.avi" for subject in ("03", "47") for name in ("tea", "milk")]
    return tree(folder, {"lists/train.csv": train, "lists/test.csv": test}, videos)


def test_breakfast_lists_decide_split_and_label(tmp_path):
    train = f"{HEAD}P47-cam01-P47_milk,9,milk,1\n"
    listing = read_listing("breakfast", breakfast_lists(tmp_path, train), 1)
    assert listing.classes == ["tea", "milk"]
    assert [(e.path, e.split, e.label) for e in listing.entries] == [
        ("B/P47/cam01/P47_milk.avi", "train", 1),
        ("B/P47/cam01/P47_tea.avi", "test", 0),
    ]


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("", r"train\.csv: the first line is not 'file_name,duration,action,class_id'"),
        ("P03-cam01-P03_tea,9,tea,0\n", r"train\.csv: the first line is not"),
        (f"{HEAD}P03-cam01-P03_tea,9,tea\n", r"train\.csv: 'P03-cam01-P03_tea,9,tea' is not 'PNN-"),
        (f"{HEAD}P03-cam01-P03_tea,9,tea,²\n", r"train\.csv: .* is not 'PNN-"),
        (f"{HEAD}P03-cam01-P04_tea,9,tea,0\n", r"train\.csv: .* is not 'PNN-"),
        (f"{HEAD}../x,9,tea,0\n", r"train\.csv: .* is not 'PNN-"),
        (f"{HEAD}P03-cam01-P03_milk,9,milk,2\n", "do not number their activities"),
        (f"{HEAD}P03-cam01-P03_milk,9,milk,0\n", "do not number their activities"),
        (f"{HEAD}P03-cam01-P03_tea,9,tea,1\n", "do not number their activities"),
        (f"{HEAD}P47-cam01-P47_tea,9,tea,0\n", r"'P47/cam01/P47_tea\.avi' is listed 2 times"),
    ],
)
def test_breakfast_lists_of_another_form(tmp_path, train, says):
    with pytest.raises(DataError, match=says):
        read_listing("breakfast", breakfast_lists(tmp_path, train), 1)


def test_breakfast_one_list_without_the_other(tmp_path):
    files = tree(tmp_path, {"train.csv": f"{HEAD}P03-cam01-P03_tea,9,tea,0\n"}, ["P03/cam01/P03_tea.avi"])
    with pytest.raises(DataError, match=r"no annotation file 'test\.csv'"):
        read_listing("breakfast", files, 1)


def test_breakfast_cameras_of_one_take_are_different_videos(tmp_path):
    videos = [f"P{s}/{camera}/P{s}_tea.avi" for s in ("03", "50") for camera in ("cam01", "webcam02")]
    listing = read_listing("breakfast", tree(tmp_path, {}, [*videos, "P03/cam01/P03_tea.avi.labels"]), 1)
    assert [entry.id for entry in listing.entries] == sorted(videos)
    assert listing.classes == ["tea"]


# -- all -------------------------------------------------------------------------------------------------------------


def test_the_same_video_in_two_places_is_refused(tmp_path):
    videos = ["one/P03/cam01/P03_tea.avi", "two/P03/cam01/P03_tea.avi"]
    with pytest.raises(DataError, match=r"'P03/cam01/P03_tea\.avi' is listed 2 times"):
        read_listing("breakfast", tree(tmp_path, {}, videos), 1)


BOM = "\ufeff"


@pytest.mark.parametrize(
    ("source", "text", "classes"),
    [
        ("hmdb51", {"wave_test_split1.txt": f"{BOM}a.avi 1\n"}, ["wave"]),
        ("ucf101", {"classInd.txt": f"{BOM}1 A", "trainlist01.txt": f"{BOM}A/v_A_g01_c01.avi 1"}, ["A"]),
        ("ssv2", {"labels.json": f'{BOM}{{"A": "0"}}', "train.json": f'{BOM}[{{"id": "1", "template": "A"}}]'}, ["A"]),
        ("breakfast", {"train.csv": f"{BOM}{HEAD}P03-cam01-P03_tea,9,tea,0\n"}, ["tea"]),
    ],
)
def test_a_byte_order_mark_is_no_part_of_an_annotation(tmp_path, source, text, classes):
    empty = {"testlist01.txt": "", "validation.json": "[]", "test.csv": HEAD}
    videos = ["wave/a.avi", "A/v_A_g01_c01.avi", "1.webm", "P03/cam01/P03_tea.avi"]
    files = tree(tmp_path, text | empty, videos)
    listing = read_listing(source, files, 1)
    assert listing.classes == classes
    assert found(listing, files)
    assert len(listing.entries) == 1


@pytest.mark.parametrize("source", ["ssv2", "breakfast"])
def test_splits_that_are_not_published(tmp_path, source):
    with pytest.raises(DataError, match="split 2 is not defined"):
        read_listing(source, tree(tmp_path, {}, []), 2)


def test_a_missing_video_keeps_its_entry(tmp_path):
    """Whether a video is there is compared later; a source that dropped it would hide the loss."""
    text = {
        "classInd.txt": "1 Archery\n",
        "trainlist01.txt": "Archery/v_Archery_g01_c01.avi 1\n",
        "testlist01.txt": "Archery/v_Archery_g02_c01.avi\n",
    }
    assert len(read_listing("ucf101", tree(tmp_path, text, []), 1).entries) == 2
