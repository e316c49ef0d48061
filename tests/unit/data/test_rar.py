"""rar archives are unpacked whole and safely, or not at all.

Nothing free writes rar, so the files come from the source distribution of the `rarfile` package, which is fetched once
a session with pip; where that is not possible these tests are skipped.
"""

import os
import subprocess
import sys
import zipfile
import zlib
from importlib.metadata import version

import pytest
import rarfile

from ssp.data import archives, rar
from ssp.data.archives import unpack, unpack_dataset
from ssp.data.fetch import fetch_dataset
from ssp.data.manifest import write_manifest
from ssp.errors import DataError
from tests.unit.made_archives import unpacked
from tests.unit.made_videos import scene, small_config, write_video


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """Folder with rarfile's own test archives."""
    folder = tmp_path_factory.mktemp("rarfile")
    name = f"rarfile=={version('rarfile')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", "--no-build-isolation"]
    try:
        subprocess.run([*command, "-d", str(folder), name], check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"the source distribution of {name} cannot be downloaded: {type(error).__name__}")
    subprocess.run(["tar", "-xf", next(folder.glob("rarfile-*.tar.gz")), "-C", folder], check=True)
    return next(folder.glob("rarfile-*/test/files"))


@pytest.fixture(scope="session", autouse=True)
def libarchive():
    try:
        return rar.import_libarchive("a test")
    except DataError as error:
        pytest.skip(str(error))


def renamed(samples, name, folder):
    """A copy under a name of ours, to be changed."""
    path = folder / "a.rar"
    path.write_bytes((samples / f"{name}.rar").read_bytes())
    return path


@pytest.mark.parametrize("version", ["rar3", "rar5"])
def test_folders_and_odd_names_come_out(samples, tmp_path, version):
    members = unpack([samples / f"{version}-subdirs.rar"], tmp_path / "out")
    found = unpacked(tmp_path / "out")
    assert found == {
        "sub/dir1/file1.txt": b"file1\n",
        "sub/dir2/file2.txt": b"file2\n",
        "sub/with space/long fn.txt": b"long fn\n",
        "sub/üȵĩöḋè/file.txt": b"file\n",
    }
    assert (tmp_path / "out" / "sub" / "empty").is_dir()
    assert members == [(name, len(found[name])) for name in sorted(found)]


@pytest.mark.parametrize("name", ["rar5-crc", "rar5-blake", "rar5-solid", "seektest"])
def test_other_kinds_come_out(samples, tmp_path, name):
    members = unpack([samples / f"{name}.rar"], tmp_path / "out")
    found = unpacked(tmp_path / "out")
    assert {member.path for member in members} == set(found)
    assert {"stest1.txt", "stest2.txt"} <= set(found)
    assert {(len(content), zlib.crc32(content)) for content in found.values()} == {(2048, 3317163682)}


@pytest.mark.parametrize("name", ["rar3-symlink-unix", "rar5-symlink-unix", "rar5-symlink-win", "rar5-hlink"])
def test_links_are_refused(samples, tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}\.rar: member '.*' is a link.*refused"):
        unpack([samples / f"{name}.rar"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_writing_through_a_link_is_refused(samples, tmp_path):
    with pytest.raises(DataError, match="'up' is a link"):
        unpack([samples / "rar5-evil-symlink-traversal.rar"], tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("pwned*"))


def test_a_copy_of_another_member_is_refused(samples, tmp_path):
    """libarchive would write an empty file."""
    with pytest.raises(DataError, match=r"stest2\.txt' is a link, a copy"):
        unpack([samples / "rar5-dups.rar"], tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rar3-solid", "does not read .*solid"),
        ("rar5-psw", "encrypted"),
        ("rar5-hpsw", "encrypted"),
        ("rar3-comment-hpsw", "encrypted"),
        ("rar5-vols.part1", "one volume of several"),
        ("rar3-vols.part2", "one volume of several"),
        ("rar15-comment", "rar 2 or older, .* pack the same tree as zip"),
        ("rar2-unix-owner", "rar 2 or older, .* pack the same tree as zip"),
        ("rar202-comment-nopsw", "rar 2 or older, .* pack the same tree as zip"),
        ("rar3-versions", "holds older versions of its files, .* pack the same tree as zip"),
        ("rar5-versions", "holds older versions of its files, .* pack the same tree as zip"),
    ],
)
def test_kinds_that_are_not_read_are_named_with_a_way_out(samples, tmp_path, name, reason):
    with pytest.raises(DataError, match=rf"a\.rar: .*{reason}") as caught:
        unpack([renamed(samples, name, tmp_path)], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rar"]


@pytest.mark.parametrize("name", ["rar3-old", "rar3-vols.part1", "rar5-vols.part1"])
def test_the_first_of_several_volumes_that_are_all_there(samples, tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}\.rar: one volume of several"):
        unpack([samples / f"{name}.rar"], tmp_path / "out")


@pytest.mark.parametrize("name", ["rar3-subdirs", "rar5-subdirs", "rar5-blake", "unicode2"])
def test_truncated_anywhere(samples, tmp_path, name):
    """Also between two members, where libarchive alone sees a complete archive."""
    path = renamed(samples, name, tmp_path)
    content = path.read_bytes()
    for cut in range(1, len(content) - 8, 17 if len(content) < 1000 else 397):  # the last bytes are the end mark
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"a\.rar: (truncated|neither)"):
            unpack([path], tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rar3-subdirs", "rar5-subdirs", "rar5-blake", "seektest"])
def test_flipped_bits_of_stored_members_are_noticed(samples, tmp_path, name):
    """Either an error, or the same files: some bits (times, versions) decide neither."""
    path = renamed(samples, name, tmp_path)
    unpack([path], tmp_path / "whole")
    whole, content = unpacked(tmp_path / "whole"), path.read_bytes()
    unnoticed = 0
    for place in range(0, len(content), 7 if len(content) < 1000 else 211):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        out = tmp_path / f"out{place}"
        try:
            unpack([path], out)
        except DataError:
            assert not out.exists()
        else:
            assert unpacked(out) == whole
            unnoticed += 1
    assert unnoticed < 20


def test_a_rar_in_a_rar_shaped_archive_is_unpacked_where_it_lies(samples, tmp_path):
    """hmdb51_org.rar holds one .rar a class; nothing free writes the outer one, so it is a zip here."""
    outer = tmp_path / "hmdb51_org.zip"
    with zipfile.ZipFile(outer, "w") as file:
        file.write(samples / "rar3-subdirs.rar", "classes/one.rar")
        file.write(samples / "rar5-crc.rar", "classes/two.RAR")
    members = unpack([outer], tmp_path / "out")
    found = unpacked(tmp_path / "out")
    assert "classes/sub/dir1/file1.txt" in found
    assert "classes/stest1.txt" in found
    assert not [name for name in found if name.lower().endswith(".rar")]
    assert [member.path for member in members] == sorted(found)


def number(value, size=4):
    return value.to_bytes(size, "little")


def stored_rar(members):
    """A rar 3 archive whose members (None: a folder) are stored as they are, by the published layout of its blocks."""

    def block(kind, flags, body, data=b""):
        rest = bytes([kind]) + number(flags, 2) + number(7 + len(body), 2) + body
        return number(zlib.crc32(rest) & 0xFFFF, 2) + rest + data

    out = b"Rar!\x1a\x07\0" + block(0x73, 0, bytes(6))
    for name, content in members.items():
        written, data = name.encode(), content or b""
        body = number(len(data)) * 2 + b"\x03" + number(zlib.crc32(data)) + number(0x4A21_0000)
        body += bytes([20, 0x30]) + number(len(written), 2) + number(0o40755 if content is None else 0o100644) + written
        out += block(0x74, 0x80E0 if content is None else 0x8000, body, data)
    return out + block(0x7B, 0x4000, b"")


def stored_rar5(members):
    """The same as rar 5."""

    def vint(value):
        low, rest = value & 0x7F, value >> 7
        return bytes([low | 0x80]) + vint(rest) if rest else bytes([low])

    def block(kind, body, data=None):
        rest = vint(kind) + (vint(0) if data is None else vint(2) + vint(len(data))) + body
        rest = vint(len(rest)) + rest
        return number(zlib.crc32(rest)) + rest + (data or b"")

    out = b"Rar!\x1a\x07\1\0" + block(1, vint(0))
    for name, content in members.items():
        written, data = name.encode(), content or b""
        body = vint(1 if content is None else 4) + vint(len(data)) + vint(0o40755 if content is None else 0o100644)
        body += (
            (b"" if content is None else number(zlib.crc32(data))) + vint(0) + vint(1) + vint(len(written)) + written
        )
        out += block(2, body, data)
    return out + block(5, vint(0))


WRITERS = pytest.mark.parametrize("write", [stored_rar, stored_rar5], ids=["rar3", "rar5"])


@WRITERS
def test_what_these_tests_write_is_rar(tmp_path, write):
    """By a reader that is not ours."""
    (tmp_path / "a.rar").write_bytes(write({"folder": None, "folder/one.txt": b"one", "two": bytes(300)}))
    with rarfile.RarFile(tmp_path / "a.rar", errors="strict") as file:
        assert [(m.filename, m.is_dir(), m.file_size) for m in file.infolist()] == [
            ("folder/", True, 0),
            ("folder/one.txt", False, 3),
            ("two", False, 300),
        ]


@WRITERS
def test_rars_inside_a_rar(samples, tmp_path, write):
    """As hmdb51_org.rar: one a class; here of both kinds, compressed, solid, with folders and odd names."""
    inner = ("rar3-subdirs", "rar5-subdirs", "seektest", "rar5-solid-qo")
    classes = {f"org/{name}/{name}.rar": (samples / f"{name}.rar").read_bytes() for name in inner}
    (tmp_path / "outer.rar").write_bytes(write({"org": None, "org/empty": None, **classes}))
    members = unpack([tmp_path / "outer.rar"], tmp_path / "out")
    found = unpacked(tmp_path / "out")
    assert [member.path for member in members] == sorted(found)
    assert (tmp_path / "out/org/empty").is_dir()
    for name in inner:
        unpack([samples / f"{name}.rar"], tmp_path / name)
        alone = unpacked(tmp_path / name)
        assert alone
        prefix = f"org/{name}/"
        assert {path.removeprefix(prefix): b for path, b in found.items() if path.startswith(prefix)} == alone
    damaged = bytearray(classes["org/seektest/seektest.rar"])
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "outer.rar").write_bytes(write(classes | {"org/seektest/seektest.rar": bytes(damaged)}))
    with pytest.raises(DataError, match=r"outer\.rar: org/seektest/seektest\.rar: truncated or damaged"):
        unpack([tmp_path / "outer.rar"], tmp_path / "again")
    assert not (tmp_path / "again").exists()


@WRITERS
def test_hmdb51_from_archives_in_their_published_form(tmp_path, write):
    """From rar in rar and a rar of lists to the manifest, with names as odd as the published ones."""
    lists, classes = {"testTrainMulti_7030_splits": None}, {}
    for label, name in enumerate(("brush_hair", "wave")):
        clips, lines = {name: None}, []
        for film in range(4):
            clip = f"#{film}_(R&B)_it's_film!_{name}_u_nm_np1_ba_goo_{film}.avi"
            video = write_video(tmp_path / "made" / f"{label}{film}.avi", scene(5 + film, seed=10 * label + film))
            clips[f"{name}/{clip}"] = video.read_bytes()
            lines.append(f"{clip} {(1, 1, 2, 0)[film]} ")
        classes[f"{name}.rar"] = write(clips)
        lists[f"testTrainMulti_7030_splits/{name}_test_split1.txt"] = "\n".join([*lines, ""]).encode()
    config = small_config(
        tmp_path,
        source="hmdb51",
        expected={"classes": 2, "train": 4, "test": 2},
        archives=[{"file": "hmdb51_org.rar"}, {"file": "test_train_splits.rar"}],
    )
    local = config.datasets["ucf101"].local
    local.mkdir()
    (local / "hmdb51_org.rar").write_bytes(write(classes))
    (local / "test_train_splits.rar").write_bytes(write(lists))
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    manifest = write_manifest(config, "ucf101").set_index("id")
    assert manifest["frames"].tolist() == [5, 6, 7] * 2
    assert manifest.loc["wave/#2_(R&B)_it's_film!_wave_u_nm_np1_ba_goo_2.avi", ["label", "split"]].tolist() == [
        1,
        "test",
    ]


def test_a_comment_is_no_damage(samples, tmp_path):
    """It is compressed, and `rarfile` would look for a program to read it; this archive is solid besides."""
    with pytest.raises(DataError, match=r"rar3-comment-plain\.rar: .*does not read .*solid"):
        unpack([samples / "rar3-comment-plain.rar"], tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt"])
def test_members_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "a.rar").write_bytes(stored_rar({name: b"x"}))
    with pytest.raises(DataError, match=r"a\.rar: member .*evil\.txt' (leaves|has an absolute).*refused"):
        unpack([tmp_path / "a.rar"], tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_odd_names_in_messages_stay_on_one_line(tmp_path):
    (tmp_path / "a.rar").write_bytes(stored_rar({"a\nb": b"content"}).replace(b"content", b"c?ntent"))
    with pytest.raises(DataError, match=r"a\.rar: truncated or damaged \('a\\nb' does not have") as caught:
        unpack([tmp_path / "a.rar"], tmp_path / "out")
    assert str(caught.value).isprintable()


def test_absurd_expansion_is_refused(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_EXPANSION", 1)
    monkeypatch.setattr(archives, "MAX_EXPANSION", 1)
    with pytest.raises(DataError, match="expands beyond reason"):
        unpack([samples / "rar5-solid.rar"], tmp_path / "out")


def test_without_the_system_library_the_error_names_the_package(tmp_path):
    (tmp_path / "a.rar").write_bytes(stored_rar({"x.txt": b"x"}))
    code = (
        "import sys; from pathlib import Path; from ssp.data.archives import unpack; "
        "unpack([Path(sys.argv[1], 'a.rar')], Path(sys.argv[1], 'out'))"
    )
    environment = os.environ | {"LIBARCHIVE": "/nowhere/libarchive.so"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert "libarchive13" in last
    assert "a.rar" in last
