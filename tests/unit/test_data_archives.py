"""Archives are unpacked whole and safely, or not at all."""

import gzip
import io
import json
import shutil
import stat
import tarfile
import zipfile

import pytest
from made_videos import small_config, ucf101_tree

from ssp.data import archives
from ssp.data.archives import unpack, unpack_dataset
from ssp.data.fetch import fetch_dataset
from ssp.data.manifest import write_manifest
from ssp.errors import DataError
from ssp.paths import Paths

FILES = {
    "top/a.txt": b"first",
    "top/deep/b.bin": bytes(range(256)) * 100,
    "top/ü [1] #&;.avi": b"odd name",
    "empty": b"",
}


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_bytes(files=FILES, special=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in special:
            archive.addfile(info)
    return buffer.getvalue()


def make_tar(path, files=FILES):
    content = tar_bytes(files)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def make_parts(folder, content, count):
    step = len(content) // count + 1
    paths = [folder / f"set-{i:02}" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(content[i * step : (i + 1) * step])
    return paths


def unpacked(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_all_members_come_out(tmp_path, name):
    path = make_zip(tmp_path / name) if name.endswith("zip") else make_tar(tmp_path / name)
    members = unpack([path], tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES
    assert members == [(key, len(FILES[key])) for key in sorted(FILES)]


@pytest.mark.parametrize("count", [2, 5, 20])
def test_numbered_parts_are_one_stream(tmp_path, count):
    parts = make_parts(tmp_path, gzip.compress(tar_bytes()), count)
    unpack(parts[::-1], tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_missing_part_is_named(tmp_path, missing):
    parts = make_parts(tmp_path, gzip.compress(tar_bytes()), 5)
    del parts[missing]
    with pytest.raises(DataError, match=f"part 0{missing} is missing"):
        unpack(parts, tmp_path / "out")


def test_the_last_part_missing_is_a_truncated_archive(tmp_path):
    parts = make_parts(tmp_path, gzip.compress(tar_bytes()), 5)
    with pytest.raises(DataError, match=r"set-00: truncated"):
        unpack(parts[:-1], tmp_path / "out")


def test_several_archives_share_a_folder(tmp_path):
    one, two = make_zip(tmp_path / "a.zip", {"a/x": b"1"}), make_tar(tmp_path / "b.tar.gz", {"a/y": b"2"})
    unpack([one, two], tmp_path / "out")
    assert unpacked(tmp_path / "out") == {"a/x": b"1", "a/y": b"2"}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_truncated_at_any_place(tmp_path, name):
    """A cut anywhere is noticed, also between two members, where the rest still looks like an archive."""
    whole = make_zip(tmp_path / name) if name.endswith("zip") else make_tar(tmp_path / name)
    content = whole.read_bytes()
    end = len(tar_bytes().rstrip(b"\0")) if name == "a.tar" else len(content)  # a tar ends with padding
    for cut in {1, 100, 300, 512, 1024, 1536, end // 2, end - 1} - {end}:
        if cut >= end:
            continue
        whole.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"a\.(zip|tar).*(truncated|damaged)") as caught:
            unpack([whole], tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == [name]  # nothing half-written


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_flipped_bits_are_noticed(tmp_path, name):
    whole = make_zip(tmp_path / name) if name.endswith("zip") else make_tar(tmp_path / name)
    content = bytearray(whole.read_bytes())
    content[len(content) // 3] ^= 0xFF
    whole.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack([whole], tmp_path / "out")


def test_the_checksum_at_the_end_of_a_long_gzip_is_compared(tmp_path):
    """It lies beyond what a reader of tar asks for."""
    content = bytearray(gzip.compress(tar_bytes({"long": bytes(range(256)) * (3 << 12)}) + bytes(3 << 20)))
    content[-6] ^= 0xFF
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        unpack([tmp_path / "a.tar.gz"], tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "a/../../../tmp/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name, kind):
    path = tmp_path / f"a.{kind}"
    make_zip(path, {"good": b"1", name: b"2"}) if kind == "zip" else make_tar(path, {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="refused") as caught:
        unpack([path], tmp_path / "deep" / "out")
    assert name in str(caught.value)
    assert not list(tmp_path.rglob("evil"))
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("inside")
    info.type, info.linkname = kind, "top/a.txt"
    (tmp_path / "a.tar").write_bytes(tar_bytes(special=[info]))
    with pytest.raises(DataError, match="'inside' is a link or device"):
        unpack([tmp_path / "a.tar"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("inside")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'inside' is a link or device"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_absurd_expansion_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "FREE_EXPANSION", 1 << 16)
    path = tmp_path / f"a.{kind}"
    bomb = {"zeros": bytes(1 << 23)}
    make_zip(path, bomb) if kind == "zip" else make_tar(path, bomb)
    with pytest.raises(DataError, match="expands beyond reason at 'zeros'"):
        unpack([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_archives_in_archives_are_unpacked_where_they_lie(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"x.txt": b"1", "deep/y.txt": b"2"}).read_bytes()
    innermost = make_zip(tmp_path / "i.zip", {"z.txt": b"3"}).read_bytes()
    middle = make_tar(tmp_path / "middle.tar.gz", {"i.zip": innermost, "w.txt": b"4"}).read_bytes()
    make_zip(tmp_path / "outer.zip", {"a/inner.zip": inner, "b/middle.tar.gz": middle, "c.txt": b"5"})
    members = unpack([tmp_path / "outer.zip"], tmp_path / "out")
    expected = {"a/x.txt": b"1", "a/deep/y.txt": b"2", "b/z.txt": b"3", "b/w.txt": b"4", "c.txt": b"5"}
    assert unpacked(tmp_path / "out") == expected
    assert members == [(name, 1) for name in sorted(expected)]


def test_what_is_wrong_inside_names_the_way_there(tmp_path):
    evil = make_zip(tmp_path / "evil.zip", {"../../evil": b"1"}).read_bytes()
    make_zip(tmp_path / "outer.zip", {"a/evil.zip": evil})
    with pytest.raises(DataError, match=r"outer\.zip: a/evil\.zip: member '\.\./\.\./evil' leaves the folder"):
        unpack([tmp_path / "outer.zip"], tmp_path / "deep" / "out")
    make_zip(tmp_path / "outer.zip", {"a/evil.zip": evil[:40]})
    with pytest.raises(DataError, match=r"outer\.zip: a/evil\.zip: truncated"):
        unpack([tmp_path / "outer.zip"], tmp_path / "deep" / "out")
    content = b"x"
    for name in ("1.zip", "2.zip", "3.zip", "4.zip"):
        content = make_zip(tmp_path / name, {f"in {name}": content, name: content}).read_bytes()
    with pytest.raises(DataError, match="too many archives in archives"):
        unpack([tmp_path / "4.zip"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_archives_inside_count_as_what_comes_out(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_EXPANSION", 1 << 16)
    bomb = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(1 << 23)}).read_bytes()
    make_zip(tmp_path / "outer.zip", {"bomb.zip": bomb})
    with pytest.raises(DataError, match=r"outer\.zip: bomb\.zip: expands beyond reason at 'zeros'"):
        unpack([tmp_path / "outer.zip"], tmp_path / "out")


def test_a_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "1")
        archive.writestr("./x", "2")
        archive.writestr("x", "3")
    with pytest.raises(DataError, match="'x' is there twice"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")


def test_what_macos_adds_is_left_out(tmp_path):
    make_zip(tmp_path / "a.zip", {"x": b"1", ".DS_Store": b"2", "__MACOSX/._x": b"3"})
    make_zip(tmp_path / "b.zip", {"y": b"1", ".DS_Store": b"other"})
    unpack([tmp_path / "a.zip", tmp_path / "b.zip"], tmp_path / "out")
    assert sorted(unpacked(tmp_path / "out")) == ["x", "y"]


def test_names_that_are_not_utf8_get_a_readable_form(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("caf\xe9.txt"))
    assert unpack([tmp_path / "a.tar"], tmp_path / "out") == [("café.txt", 0)]


@pytest.mark.parametrize(
    ("content", "fix"),
    [(b"", "fetch it again"), (b"<html>no</html>", "fetch it again"), (b"PK", "fetch it again")],
)
def test_other_kinds_of_files(tmp_path, content, fix):
    (tmp_path / "a.rar").write_bytes(content)
    with pytest.raises(DataError, match=fix):
        unpack([tmp_path / "a.rar"], tmp_path / "out")


def test_unpacking_a_data_set_writes_the_list_last_and_starts_clean(tmp_path):
    config = small_config(tmp_path)
    paths = Paths.of(config)
    archive = paths.archives("ucf101") / "videos.zip"
    with pytest.raises(DataError, match=r"videos\.zip: no such file"):
        unpack_dataset(config, "ucf101")
    archive.parent.mkdir(parents=True)
    make_zip(archive)
    unpack_dataset(config, "ucf101")
    listing = json.loads(paths.unpacked("ucf101").read_text())
    assert listing["files"] == len(FILES)
    assert listing["members"] == [[name, len(FILES[name])] for name in sorted(FILES)]

    (paths.videos("ucf101") / "left over").touch()
    make_zip(archive, {"other": b"1"})
    unpack_dataset(config, "ucf101")
    assert unpacked(paths.videos("ucf101")) == {"other": b"1"}

    archive.write_bytes(archive.read_bytes()[:20])
    with pytest.raises(DataError, match="truncated"):
        unpack_dataset(config, "ucf101")
    assert not paths.unpacked("ucf101").exists()
    assert not paths.videos("ucf101").exists()


# -- folders in place of archives ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("target", ["nowhere", "."])
def test_a_folder_with_links_that_are_no_files(tmp_path, target):
    source = tmp_path / "videos"
    source.mkdir()
    (source / "link").symlink_to(target)
    with pytest.raises(DataError, match=r"videos/link: a device, or a link to a folder or to nothing"):
        unpack([source], tmp_path / "out")
