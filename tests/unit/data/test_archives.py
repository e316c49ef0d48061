"""Archives are unpacked whole and safely, or not at all."""

import gzip
import resource
import stat
import tarfile
import zipfile

import pytest

from ssp.data import archives
from ssp.data.archives import unpack
from ssp.errors import DataError, StorageError
from tests.unit.made_archives import FILES, make_parts, make_tar, make_zip, tar_bytes, unpacked


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


@pytest.mark.parametrize("missing", [1, 3])
def test_a_missing_part_is_named(tmp_path, missing):
    parts = make_parts(tmp_path, gzip.compress(tar_bytes()), 5)
    del parts[missing]
    with pytest.raises(DataError, match=f"part 0{missing} is missing"):
        unpack(parts, tmp_path / "out")


def test_parts_may_be_numbered_from_one(tmp_path):
    parts = make_parts(tmp_path, gzip.compress(tar_bytes()), 5)
    with pytest.raises(DataError, match=r"set-01: the first part is missing, or"):
        unpack(parts[1:], tmp_path / "out")
    from_one = [part.rename(tmp_path / f"set.tar.gz.{number:03}") for number, part in enumerate(parts, start=1)]
    unpack(from_one, tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES


def test_a_number_at_the_end_of_a_name_is_no_part(tmp_path):
    unpack([make_zip(tmp_path / "hmdb-51"), make_zip(tmp_path / "hmdb", {"x": b"1"})], tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES | {"x": b"1"}


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


def test_equal_files_of_one_name_are_no_conflict(tmp_path):
    """Archives of one data set may all bring the same licence; of what differs, neither is dropped."""
    one = make_zip(tmp_path / "a.zip", {"README": b"same", "a": b"1"})
    two = make_tar(tmp_path / "b.tar", {"README": b"same", "b": b"2"})
    assert unpack([one, two], tmp_path / "out") == [("README", 4), ("a", 1), ("b", 1)]
    for other in (b"sam", b"same?", b"some", b""):
        make_zip(two, {"README": other})
        with pytest.raises(DataError, match=r"b\.tar: 'README' is there twice, with different content"):
            unpack([one, two], tmp_path / "again")


def test_what_cannot_be_written_names_the_member(tmp_path):
    make_zip(tmp_path / "a.zip", {"long/" + 300 * "x": b"1"})
    with pytest.raises(DataError, match=r"a\.zip: member 'long/xxx.*' cannot be unpacked .*File name too long"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")
    make_zip(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DataError, match=r"a\.zip: member 'a/b' cannot be unpacked"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "b").write_bytes(b"2")
    make_zip(tmp_path / "a.zip", {"a": b"1"})
    with pytest.raises(DataError, match=r"/a: member 'a/b' cannot be unpacked"):
        unpack([tmp_path / "a.zip", folder], tmp_path / "out")


def test_a_disk_without_room_is_named_with_a_way_out(tmp_path):
    make_zip(tmp_path / "a.zip", {"a": bytes(1 << 20)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(StorageError, match=r"/out: cannot be written .*make room"):
            unpack([tmp_path / "a.zip"], tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_odd_names_in_messages_stay_on_one_line(tmp_path):
    make_tar(tmp_path / "a.tar", {"a\n/../../\x1b[31m": b"1"})
    with pytest.raises(DataError, match=r"a\.tar: member 'a\\n/\.\./\.\./\\x1b\[31m' leaves the folder") as caught:
        unpack([tmp_path / "a.tar"], tmp_path / "out")
    assert str(caught.value).isprintable()


def test_odd_names_of_inner_archives_in_messages(tmp_path):
    make_zip(tmp_path / "a.zip", {"x\n.zip": b"PK no"})
    with pytest.raises(DataError, match=r"a\.zip: x\\n\.zip: truncated") as caught:
        unpack([tmp_path / "a.zip"], tmp_path / "out")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("files", [{}, {"folder/": b""}, {"__MACOSX/._x": b"1"}])
def test_an_archive_without_files_is_refused(tmp_path, files):
    make_zip(tmp_path / "a.zip", files)
    make_zip(tmp_path / "b.zip", {"x": b"1", "inner/a.zip": (tmp_path / "a.zip").read_bytes()})
    for name in ("a.zip", r"b\.zip: inner/a.zip"):
        with pytest.raises(DataError, match=f"{name}: no files in it; delete it and run again"):
            unpack([tmp_path / f"{name[0]}.zip"], tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_folders_count_as_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    make_zip(tmp_path / "a.zip", {f"folder{i}/": b"" for i in range(11)})
    with pytest.raises(DataError, match="expands beyond reason at 'folder10'"):
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
    ("content", "problem"),
    [(b"", "neither zip"), (b"<html>no</html>", "an HTML page"), (b"PK", "truncated or damaged")],
)
def test_other_kinds_of_files(tmp_path, content, problem):
    (tmp_path / "a.rar").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.rar: {problem}.*delete it and run again"):
        unpack([tmp_path / "a.rar"], tmp_path / "out")
