"""The check finds what makes a data set unfit, and finds nothing in one that is fit."""

import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from ssp.cli import main
from ssp.data import jpegs
from ssp.data.check import check_dataset
from ssp.data.check import findings as found_on
from ssp.data.frames import ShardWriter
from ssp.data.manifest import COLUMNS, content_hash
from ssp.errors import DataError
from ssp.files import write_json
from ssp.paths import Paths
from tests.unit.made_videos import small_config


def manifest_of(changes=()):
    """A sound manifest of 8 training and 4 test videos, then changed: (row, column, value)."""
    rows = []
    for number in range(12):
        split = ("train", "train", "val", "test")[number % 4] if number < 8 else ("train", "test")[number % 2]
        rows.append(
            {
                "id": f"A/v{number}.avi",
                "path": f"A/v{number}.avi",
                "label": number // 4 % 2,
                "class_name": "AB"[number // 4 % 2],
                "split": split,
                "group": f"{split}{number}",
                "frames": 3,
                "fps": 12.0,
                "width": 16,
                "height": 16,
                "codec": "mpeg4",
                "sha256": f"{number:064}",
            }
        )
    manifest = pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)
    for row, column, value in changes:
        manifest.loc[row, column] = value
    return manifest


def prepared(tmp_path, changes=(), lengths=None, report=None, expected=None):
    """Write manifest, report and frame store; `lengths` are the decoded frames by row, without a row: no frames."""
    config = small_config(tmp_path, expected=expected or {"classes": 2, "train": 8, "test": 4}, frames={"shards": 1})
    paths, manifest = Paths.of(config), manifest_of(changes)
    path = paths.manifest("ucf101")
    path.parent.mkdir(parents=True)
    manifest.to_parquet(path, index=False)
    write_json(
        Paths.of(config).manifest_report("ucf101"),
        {"missing": [], "extra": [], "classes_without_validation": [], "broken": []} | (report or {}),
    )
    paths.frames("ucf101").mkdir()
    lengths = dict.fromkeys(range(12), 3) if lengths is None else lengths
    with ShardWriter(paths.shard("ucf101", 0)) as writer:
        for row, length in lengths.items():
            writer.put_video(row, jpegs.pack(np.zeros((length, 16, 16, 3), np.uint8), 90))
        writer.put_meta({"manifest": content_hash(manifest), "shard": 0, "shards": 1})
    return config


def findings(config):
    return found_on(check_dataset(config, "ucf101"))


def test_a_sound_data_set_is_fit(tmp_path):
    page = check_dataset(prepared(tmp_path), "ucf101")
    assert page.splitlines()[-1] == "fit for use"
    assert "frame store: 12 videos, 36 frames, 1 shards" in page
    assert "mpeg4 (12)" in page
    assert len(page.splitlines()) < 40


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ([(3, "sha256", f"{0:064}")], "1 videos are in two splits or classes with the same bytes: A/v0.avi = A/v3.avi"),
        ([(1, "id", "A/v0.avi")], "1 ids are there more than once: A/v0.avi"),
        ([(2, "group", "train0")], "groups in train and validation: train0"),
        ([(1, "fps", 0.0), (5, "fps", 90000.0)], "2 videos have other fps than 1 to 240: A/v1.avi, A/v5.avi"),
        ([(row, "label", 2) for row in range(4, 8)], "labels outside of the 2 classes: 2"),
        ([(4, "class_name", "A")], "1 classes have a single video in train: B"),
    ],
)
def test_what_is_wrong_with_the_manifest(tmp_path, changes, finding):
    assert findings(prepared(tmp_path, changes)) == [f"! {finding}"]


def test_copies_within_a_class_and_split_are_counted_but_no_finding(tmp_path):
    config = prepared(tmp_path, [(1, "sha256", f"{0:064}")])
    assert not findings(config)
    assert "1 videos are there more than once within a class" in check_dataset(config, "ucf101")


def test_counts_against_the_published_ones(tmp_path):
    config = prepared(tmp_path, expected={"classes": 3, "train": 8, "test": 5})
    assert findings(config) == ["! classes: 2 found, 3 expected", "! test: 4 found, 5 expected"]


def test_frames_that_are_lost_or_contradict_the_container(tmp_path):
    lengths = dict.fromkeys(range(12), 3) | {4: 2}
    del lengths[7]
    assert findings(prepared(tmp_path, lengths=lengths)) == [
        "! 1 videos without frames: A/v7.avi",
        "! 1 videos have other frames than their container announces: A/v4.avi (2 of 3)",
    ]


def test_what_the_manifests_report_says(tmp_path):
    report = {
        "extra": ["A/new.avi"],
        "classes_without_validation": ["B"],
        "broken": [{"id": "A/v0.avi", "reason": "damaged"}],
    }
    config = prepared(tmp_path, report=report)
    assert findings(config) == [
        "! classes with one group have no validation: B",
        "! 1 videos cannot be opened: A/v0.avi",
    ]
    assert "no list names: A/new.avi" in check_dataset(config, "ucf101")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"broken": []}'])
def test_reports_that_cannot_be_read(tmp_path, content):
    lengths = dict.fromkeys(range(11), 3)
    config = prepared(tmp_path, lengths=lengths)
    path = Paths.of(config).manifest_report("ucf101")
    path.write_text(content)
    Paths.of(config).shard_report("ucf101", 0).write_text(content)
    unreadable = f"! {path}: not a readable report; run `ssp data manifest` again"
    assert findings(config) == [unreadable, "! 1 videos without frames: A/v11.avi"]
    Paths.of(config).manifest("ucf101").unlink()
    assert findings(config) == [unreadable]


def test_a_single_frame_is_no_video(tmp_path):
    config = prepared(tmp_path, [(4, "frames", 1)], lengths=dict.fromkeys(range(12), 3) | {4: 1})
    assert findings(config) == ["! 1 videos have a single frame: A/v4.avi"]


def test_before_frames_are_extracted(tmp_path):
    config = prepared(tmp_path)
    Paths.of(config).shard("ucf101", 0).unlink()
    assert len(findings(config)) == 1
    assert "no complete frame store" in findings(config)[0]


def test_a_lost_video_has_its_reason(tmp_path):
    lengths = dict.fromkeys(range(12), 3)
    del lengths[7]
    config = prepared(tmp_path, lengths=lengths)
    broken = [{"id": "A/v7.avi", "reason": "v7.avi: cannot be decoded"}]
    write_json(Paths.of(config).shard_report("ucf101", 0), {"broken": broken})
    assert findings(config) == ["! 1 videos without frames: A/v7.avi (v7.avi: cannot be decoded)"]


def test_where_the_manifest_was_refused_its_report_says_why(tmp_path):
    config = prepared(tmp_path)
    path = Paths.of(config).manifest("ucf101")
    path.unlink()
    names = [f"A/v{i}.avi" for i in range(2000)]
    write_json(
        Paths.of(config).manifest_report("ucf101"),
        {"problem": "7 test, expected 9", "missing": [], "extra": names},
    )
    page = check_dataset(config, "ucf101").splitlines()
    assert page[1] == "! 7 test, expected 9"
    assert page[2] == "! 2000 videos on disk are in no list: " + ", ".join(names[:5]) + " and 1995 more"
    assert page[-1].startswith("2 findings")


def check(capsys, monkeypatch, *arguments):
    """Exit code and output of `ssp data check`."""
    monkeypatch.setattr(sys, "argv", ["ssp", "data", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_the_command_takes_the_config_by_place_or_by_name(tmp_path, monkeypatch, capsys):
    config = prepared(tmp_path)
    second = config.model_copy(update={"datasets": config.datasets | {"other": config.datasets["ucf101"]}})
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(second.model_dump(mode="json")))
    for arguments in ([file, "--dataset", "ucf101"], ["--config", file, "--dataset", "ucf101"]):
        code, out, _ = check(capsys, monkeypatch, *arguments)
        assert code == 0
        assert out.startswith("ucf101: 12 videos")
        assert "fit for use" in out
    code, out, err = check(capsys, monkeypatch, file)
    assert code == 1
    assert "fit for use" in out  # of the first
    assert "other/manifest.parquet: no such file" in err.replace("\n", "")
    for arguments in ([], [file, "--config", file]):
        assert check(capsys, monkeypatch, *arguments)[0] == 1


def test_the_command_fails_where_there_are_findings(tmp_path, monkeypatch, capsys):
    config = prepared(tmp_path, [(2, "group", "train0")])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    code, out, _ = check(capsys, monkeypatch, tmp_path / "c.yaml")
    assert (code, out.splitlines()[-1]) == (1, "1 finding above, marked with !")


def test_without_a_manifest(tmp_path):
    with pytest.raises(DataError, match="ssp data manifest"):
        check_dataset(small_config(tmp_path), "ucf101")
