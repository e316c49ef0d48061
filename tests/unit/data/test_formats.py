"""What is wrong with an archive is found by reading it, also where the libraries see nothing."""

import bz2
import gzip
import struct
import tarfile
import zipfile

import pytest

from ssp.data import formats
from ssp.data.archives import unpack
from ssp.data.formats import MAX_GAP, read_items
from ssp.errors import DataError
from tests.unit.made_archives import FILES, make_zip, tar_bytes, unpacked

SMALL = {"a.avi": b"1" * 700, "b.avi": b"2" * 700, "c.avi": b"3" * 700}


def refused(folder, files, reason):
    """The error of unpacking what these files (name: bytes) hold."""
    paths = [folder / name for name in files]
    for path in paths:
        path.write_bytes(files[path.name])
    with pytest.raises(DataError, match=reason) as caught:
        unpack(paths, folder / "out")
    assert str(caught.value).isprintable()
    assert not (folder / "out").exists()


# -- tar -------------------------------------------------------------------------------------------------------------


def damaged_header():
    """A tar whose second member has a wrong header checksum."""
    content = bytearray(tar_bytes(SMALL))
    content[512 + 1024 + 150] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "files",
    [
        {"a.tar": damaged_header()},
        {"a.tar.gz": gzip.compress(damaged_header())},
        {"a.tar": tar_bytes(SMALL) + tar_bytes({"z": b"z"})},
        {"a.tar.gz": gzip.compress(tar_bytes(SMALL)) + gzip.compress(tar_bytes({"z": b"z"}))},
        {f"set-{i:02}": tar_bytes({f"{i}.avi": b"x"}) for i in range(3)},
        {f"set-{i:02}": gzip.compress(tar_bytes({f"{i}.avi": b"x"})) for i in range(3)},
    ],
    ids=["header", "header in gzip", "two tars", "two gzips", "parts that are tars", "parts that are gzips"],
)
def test_a_tar_that_ends_before_its_file_does(tmp_path, files):
    refused(
        tmp_path, files, r"(a\.tar(\.gz)?|set-00): truncated or damaged \(a header is damaged, or something follows"
    )


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "gzip"])
def test_zeros_at_the_end_of_a_member_are_no_end_mark(tmp_path, compress):
    """In a gzip none is needed: its checksum says that nothing was cut."""
    content = tar_bytes({"a": b"1", "zeros": bytes(4096), "c": b"3"})
    cut = 1024 + 512 + 4096  # behind the second member
    for blocks in (0, 1, 2):
        packed = compress(content[:cut] + bytes(512 * blocks))
        if compress is bytes and blocks < 2:
            refused(tmp_path, {"a": packed}, "the end mark is missing")
        else:
            (tmp_path / "a").write_bytes(packed)
            assert unpack([tmp_path / "a"], tmp_path / f"out{blocks}") == [("a", 1), ("zeros", 4096)]
    for lost in (1, 8, 20):
        refused(tmp_path, {"a.tar.gz": gzip.compress(content[:cut])[:-lost]}, "truncated or damaged")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_without_end_are_not_read(tmp_path, kind):
    """3 GB of a name are 3 MB of gzip."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, MAX_GAP + (1 << 21)
    content = info.tobuf(tarfile.USTAR_FORMAT) + bytes(info.size) + tar_bytes(SMALL)
    refused(tmp_path, {"a.tar.gz": gzip.compress(content)}, "more than 4 MiB between two members")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "gzip"])
def test_padding_may_be_long(tmp_path, compress):
    """As of `tar -b 20480`; only what is not zero is refused."""
    padded = tar_bytes(SMALL) + bytes(3 * MAX_GAP)
    (tmp_path / "a.tar").write_bytes(compress(padded))
    unpack([tmp_path / "a.tar"], tmp_path / "whole")
    assert unpacked(tmp_path / "whole") == SMALL
    refused(tmp_path, {"a.tar": compress(padded + b"x")}, "or something follows the end mark")


def test_zeros_without_end_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_PADDING", 1 << 23)
    content = gzip.compress(tar_bytes(SMALL) + bytes((1 << 23) + (1 << 21)))
    refused(tmp_path, {"a.tar.gz": content}, "more than 4 MiB between two members, or 8 MiB behind the last")


def test_members_larger_than_that_are(tmp_path):
    files = {"a": bytes(MAX_GAP + (1 << 21)), "b": bytes(MAX_GAP * 2), "c": b"3"}
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(files)))
    unpack([tmp_path / "a.tar.gz"], tmp_path / "out")
    assert unpacked(tmp_path / "out") == files


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "gzip"])
def test_tar_as_of_unix_v7(tmp_path, compress):
    """Without the mark "ustar"; GNU tar's `--format=v7`."""
    content = bytearray(tar_bytes(SMALL))
    for start in range(0, 3 * 1536, 1536):
        content[start + 257 : start + 512] = bytes(255)
        content[start + 148 : start + 156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    (tmp_path / "a.tar").write_bytes(compress(content))
    unpack([tmp_path / "a.tar"], tmp_path / "whole")
    assert unpacked(tmp_path / "whole") == SMALL
    content[0] ^= 1
    reason = "neither zip" if compress is bytes else "truncated or damaged"
    refused(tmp_path, {"a.tar": compress(content)}, reason)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            b"26 GNU.sparse.map=0,no,way\n",
            r"truncated or damaged \(invalid (literal|header)",
        ),  # by the release of Python
        (b"16 path=a\0b.avi\n", r"member 'a\\x00b\.avi' has no possible name"),
    ],
    ids=["map of a sparse member", "name"],
)
def test_damaged_long_headers(tmp_path, record, reason):
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    header = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    refused(tmp_path, {"a.tar": header + tar_bytes(SMALL)}, rf"a\.tar: {reason}")


# -- zip -------------------------------------------------------------------------------------------------------------


def patched(folder, local=(), central=(), files=SMALL):
    """A zip with other 16-bit numbers (place, value) in the first local and the first central header."""
    content = bytearray(make_zip(folder / "made.zip", files).read_bytes())
    for start, changes in ((b"PK\3\4", local), (b"PK\1\2", central)):
        for place, value in changes:
            struct.pack_into("<H", content, content.find(start) + place, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("local", "central"),
    [
        ([(8, 9)], [(10, 9)]),
        ([(8, 93)], [(10, 93)]),
        ([(8, 99)], [(10, 99)]),
        ([(6, 0x20)], [(8, 0x20)]),
        ([(6, 0x40)], [(8, 0x40)]),
        ([], [(6, 99)]),
    ],
    ids=["Deflate64", "Zstandard", "AES", "patch", "strong encryption", "version"],
)
def test_kinds_of_zip_that_are_not_read(tmp_path, local, central):
    content = patched(tmp_path, local, central)
    refused(
        tmp_path, {"a.zip": content}, r"a\.zip: a kind of archive that is not read .*pack the same tree as plain zip"
    )


def test_names_that_are_said_to_be_utf8(tmp_path):
    content = patched(tmp_path, [(6, 0x800)], [(8, 0x800)]).replace(b"a.avi", b"\xff.avi")
    refused(tmp_path, {"a.zip": content}, r"a\.zip: truncated or damaged \('utf-8' codec")


def test_damage_that_a_decompressor_finds(tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.avi", bytes(1000))
    content = (tmp_path / "made.zip").read_bytes()
    assert bz2.compress(bytes(1000)) in content
    refused(tmp_path, {"a.zip": content.replace(b"BZh9", b"none")}, "truncated or damaged .Invalid data stream")


@pytest.mark.parametrize("lost", [1, 2])
def test_a_zip_with_fewer_members_than_it_says(tmp_path, lost):
    """A table of contents that is said to be shorter than it is; its beginning is then taken for something else."""
    content = bytearray(patched(tmp_path))
    end = content.find(b"PK\5\6")
    (size,) = struct.unpack_from("<I", content, end + 12)
    struct.pack_into("<I", content, end + 12, size // 3 * (3 - lost))
    refused(tmp_path, {"a.zip": bytes(content)}, f"{3 - lost} members instead of 3")


@pytest.mark.slow
def test_a_zip_of_many_members(tmp_path):
    """More than 16 bits count, in its own format and as old programs write it."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range((1 << 16) + 5):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    assert next(read_items([tmp_path / "a.zip"], "a zip")).name == "0"
    content = (tmp_path / "a.zip").read_bytes()
    end, long_end = content.rfind(b"PK\5\6"), content.rfind(b"PK\6\6")
    size, start = struct.unpack_from("<QQ", content, long_end + 40)
    old = content[:long_end] + struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, 5, 5, size, start, 0)
    assert len(old) < end
    (tmp_path / "a.zip").write_bytes(old)
    assert next(read_items([tmp_path / "a.zip"], "a zip")).name == "0"


def test_a_file_that_became_a_folder(tmp_path):
    content = patched(tmp_path, files=FILES).replace(b"top/a.txt", b"top/a.tx/")
    refused(tmp_path, {"a.zip": content}, "'top/a.tx/' is a folder with content")


# What `create_system` says: 0 DOS, 3 Unix, 10 NTFS, 11 MVS.


def zip_of(path, system, members, attributes=0):
    """A zip as a program on another system writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system, info.external_attr = name, system, attributes
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("system", [0, 10])
def test_folders_of_a_zip_may_be_separated_by_backslashes(tmp_path, system):
    path = zip_of(tmp_path / "a.zip", system, {"top\\": b"", "top\\empty\\": b"", "top\\fünf\\a.avi": b"1"})
    assert unpack([path], tmp_path / "whole") == [("top/fünf/a.avi", 1)]
    assert (tmp_path / "whole/top/empty").is_dir()
    for name, reason in (
        ("..\\evil", "leaves the folder"),
        ("a\\..\\..\\evil", "leaves the folder"),
        ("\\evil", "has an absolute name"),
        ("folder\\", "is a folder with content"),
    ):
        content = zip_of(tmp_path / "a.zip", system, {name: b"1"}).read_bytes()
        refused(tmp_path, {"a.zip": content}, rf"a\.zip: member '.*' {reason}")
    assert not list(tmp_path.rglob("evil"))


def test_backslashes_are_a_part_of_other_names(tmp_path):
    path = zip_of(tmp_path / "a.zip", 3, {"a\\b": b"1"})
    assert unpack([path], tmp_path / "out") == [("a\\b", 1)]
    path = zip_of(tmp_path / "a.zip", 0, {"top/a\\b": b"1"})
    assert unpack([path], tmp_path / "two") == [("top/a\\b", 1)]


@pytest.mark.parametrize(("system", "is_link"), [(0, False), (10, False), (11, False), (3, True), (19, True)])
def test_only_unix_says_what_is_a_link(tmp_path, system, is_link):
    path = zip_of(tmp_path / "a.zip", system, {"a": b"1"}, attributes=0o120777 << 16)
    if is_link:
        refused(tmp_path, {"a.zip": path.read_bytes()}, "'a' is a link or device")
    else:
        assert unpack([path], tmp_path / "out") == [("a", 1)]
