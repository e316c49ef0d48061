"""Folders in place of archives: what a user has unpacked already is taken over as it is."""

import json
import os
import shutil

import pytest

from ssp.data.archives import unpack, unpack_dataset
from ssp.data.fetch import fetch_dataset
from ssp.data.manifest import write_manifest
from ssp.errors import DataError
from ssp.paths import Paths
from tests.unit.made_archives import make_zip, unpacked
from tests.unit.made_videos import small_config, ucf101_tree


def test_videos_that_are_unpacked_already(tmp_path):
    """The same manifest as from an archive, nothing copied, and what the user has stays as it is."""
    files = ucf101_tree(tmp_path / "made")
    config = small_config(tmp_path, archives=[{"file": "UCF-101"}, {"file": "ucfTrainTestlist"}])
    local, paths = config.datasets["ucf101"].local, Paths.of(config)
    for name, path in files.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(local / name)
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    manifest = write_manifest(config, "ucf101").set_index("id")
    assert len(manifest) == 12
    assert manifest.loc["YoYo/v_YoYo_g06_c01.avi", "path"] == "UCF-101/YoYo/v_YoYo_g06_c01.avi"
    taken = paths.videos("ucf101") / "UCF-101/YoYo/v_YoYo_g06_c01.avi"
    assert taken.samefile(local / "UCF-101/YoYo/v_YoYo_g06_c01.avi")
    unpack_dataset(config, "ucf101")  # again: removes and makes the folder
    assert {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()} == set(files)
    sized = small_config(tmp_path, archives=[{"file": "UCF-101", "size": 5}, {"file": "ucfTrainTestlist"}])
    with pytest.raises(DataError, match="UCF-101: a folder has no size"):
        fetch_dataset(sized, "ucf101")


def test_a_folder_of_archives(tmp_path):
    """hmdb51_org.rar unpacked by hand, its classes not."""
    source = tmp_path / "hmdb51_org"
    source.mkdir()
    make_zip(source / "one.zip", {"wave/a.avi": b"a"})
    make_zip(source / "two.zip", {"walk/b.avi": b"b"})
    (source / ".DS_Store").write_bytes(b"litter")
    members = unpack([source], tmp_path / "out")
    assert [member.path for member in members] == ["hmdb51_org/walk/b.avi", "hmdb51_org/wave/a.avi"]
    assert unpacked(tmp_path / "out") == {"hmdb51_org/walk/b.avi": b"b", "hmdb51_org/wave/a.avi": b"a"}
    numbered = [source.rename(tmp_path / "set-07"), tmp_path / "set-09"]  # not parts of one file
    shutil.copytree(*numbered)
    assert {member.path[:6] for member in unpack(numbered, tmp_path / "two")} == {"set-07", "set-09"}
    source = numbered[0]
    (source / "two.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"two\.zip: truncated or damaged"):
        unpack([source], tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("target", "problem"), [("nowhere", "a device, or a link to nothing"), (".", "a link to a folder that it lies in")]
)
def test_a_folder_with_links_that_lead_nowhere(tmp_path, target, problem):
    source = tmp_path / "videos"
    source.mkdir()
    (source / "link").symlink_to(target)
    with pytest.raises(DataError, match=rf"videos/link: {problem}"):
        unpack([source], tmp_path / "out")


def test_a_folder_with_links_to_folders(tmp_path):
    """Classes on several disks, linked together."""
    source = tmp_path / "videos"
    for folder in (source / "walk", tmp_path / "disk" / "wave"):
        folder.mkdir(parents=True)
        (folder / "a.avi").write_bytes(folder.name.encode())
    (source / "wave").symlink_to(tmp_path / "disk" / "wave")
    unpack([source], tmp_path / "out")
    assert unpacked(tmp_path / "out") == {"videos/walk/a.avi": b"walk", "videos/wave/a.avi": b"wave"}
    assert not (tmp_path / "out/videos/wave").is_symlink()


def test_a_folder_without_files(tmp_path):
    (tmp_path / "videos" / "empty").mkdir(parents=True)
    (tmp_path / "videos" / ".DS_Store").touch()
    with pytest.raises(DataError, match=r"videos: no files in it; put them there"):
        unpack([tmp_path / "videos"], tmp_path / "out")


def test_names_in_a_folder_that_are_not_utf8_get_a_readable_form(tmp_path):
    config = small_config(tmp_path, archives=[{"file": "videos"}])
    paths, source = Paths.of(config), config.datasets["ucf101"].local / "videos" / "fünf"
    source.mkdir(parents=True)
    (source / os.fsdecode(b"caf\xe9.avi")).write_bytes(b"a")
    unpack_dataset(config, "ucf101")
    assert json.loads(paths.unpacked("ucf101").read_text())["members"] == [["videos/fünf/café.avi", 1]]
    assert unpacked(paths.videos("ucf101")) == {"videos/fünf/café.avi": b"a"}
