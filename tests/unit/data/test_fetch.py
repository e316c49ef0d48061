"""Archives come verified or not at all: from an address, from a folder, or put into place by hand."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ssp.config import Archive, load_config
from ssp.data.fetch import fetch_dataset, obtain
from ssp.data.verify import looks_like_html
from ssp.errors import DataError
from ssp.paths import Paths
from tests.unit.made_server import CONTENT, SHA256, left_over
from tests.unit.made_videos import small_config


def test_a_file_address(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x y.zip").write_bytes(CONTENT)
    url = (tmp_path / "there" / "x y.zip").as_uri()
    assert obtain(Archive(file="a.zip", urls=[url]), None, tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"size": 5}, f"expected 5 bytes, found {len(CONTENT)}"),
        ({"sha256": "0" * 64}, f"expected sha256 {'0' * 64}, found {SHA256}"),
        ({"md5": "0" * 32}, f"expected md5 {'0' * 32}, found {hashlib.md5(CONTENT).hexdigest()}"),
    ],
)
def test_a_local_file_that_is_not_the_right_one(tmp_path, known, reason):
    local = tmp_path / "local"
    local.mkdir()
    (local / "a.zip").write_bytes(CONTENT)
    with pytest.raises(DataError, match=reason) as caught:
        obtain(Archive(file="a.zip", **known), local, tmp_path / "archives")
    assert str(local / "a.zip") in str(caught.value)
    assert left_over(tmp_path / "archives") == []
    assert (local / "a.zip").exists()  # the user's own file is not touched


NOT_ARCHIVES = [
    ("a.zip", b"", "an empty file"),
    ("a.pth", b"", "an empty file"),
    ("a.pth", b"<!DOCTYPE html><html>Log in", "an HTML page"),
    ("a.zip", b'{"error": 1}', r"no \.zip file"),
    ("a.rar", b"PK\3\4", r"no \.rar file"),
    ("a.tar.gz", b"version https://git-lfs", r"no \.gz file"),
    ("a.tgz", bytes(512), r"no \.tgz file"),
]


@pytest.mark.parametrize(("file", "content", "reason"), NOT_ARCHIVES)
def test_what_is_plainly_not_the_file_is_refused_wherever_it_lies(tmp_path, file, content, reason):
    entry = Archive(file=file)
    for folder in ("local", "archives"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_bytes(content)
    for local in (tmp_path / "local", None):
        with pytest.raises(DataError, match=f"{file}: {reason}.*; replace the file"):
            obtain(entry, local, tmp_path / "archives")
    with pytest.raises(DataError, match=f"delivered {reason}"):
        obtain(Archive(file=file, urls=[(tmp_path / "local" / file).as_uri()]), None, tmp_path / "new")
    assert left_over(tmp_path / "new") == []


def test_a_checksum_proves_more_than_the_first_bytes(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"odd")
    assert obtain(Archive(file="a.zip", sha256=hashlib.sha256(b"odd").hexdigest()), None, tmp_path).exists()


@pytest.mark.parametrize(
    "start",
    [
        b"\n<!DOCTYPE html>",
        b"\xef\xbb\xbf<!doctype html>",
        b'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">',
        b"<!-- one --> <!-- two -->\n<HTML lang=en>",
        b"<head><title>Login</title></head>",
    ],
)
def test_web_pages(start):
    assert looks_like_html(start)


@pytest.mark.parametrize("start", [b"", b"PK\3\4<html>", b"<annotation>", b"<headers>", b"<!-- x -->" * 400 + b"<x>"])
def test_no_web_pages(start):
    assert not looks_like_html(start)


def test_a_wrong_file_in_place_without_an_address_is_named(tmp_path):
    """As a part of Something-Something V2 that was not downloaded to its end."""
    (tmp_path / "part-00").write_bytes(b"half")
    with pytest.raises(DataError, match=r"part-00: wrong size, expected 8 bytes, found 4; replace the file"):
        obtain(Archive(file="part-00", size=8), None, tmp_path)
    dead = (tmp_path / "dead").as_uri()
    with pytest.raises(DataError, match=r"part-00: wrong size, expected 8 bytes, found 4; file://.*dead: no such file"):
        obtain(Archive(file="part-00", size=8, urls=[dead]), None, tmp_path)


@pytest.mark.parametrize("name", ["a.zip", ".a.zip.part"])
def test_a_folder_where_a_file_belongs(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: a folder where a file belongs"):
        obtain(Archive(file="a.zip", urls=["http://127.0.0.1:9/a"]), None, tmp_path)


def replace(path, content):
    """A new file under the name, as a download makes it."""
    path.with_name("new").write_bytes(content)
    os.replace(path.with_name("new"), path)


def test_a_local_file_that_was_replaced_is_taken_again(tmp_path):
    """No checksum says which is right: it is what lies there now."""
    target, entry = tmp_path / "archives" / "a.zip", Archive(file="a.zip")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.zip").write_bytes(b"PK" + folder.encode())
    for folder in ("one", "two", "one"):
        obtain(entry, tmp_path / folder, tmp_path / "archives")
        assert target.read_bytes() == b"PK" + folder.encode()
    replace(tmp_path / "one" / "a.zip", b"PKnew")
    obtain(entry, tmp_path / "one", tmp_path / "archives")
    assert target.read_bytes() == b"PKnew"
    (tmp_path / "one" / "a.zip").unlink()
    with pytest.raises(DataError, match=r"one/a\.zip: no such file"):
        obtain(entry, tmp_path / "one", tmp_path / "archives")


def test_a_checksum_proves_what_is_in_place_whatever_local_holds(tmp_path):
    for folder, content in (("local", b"PKother"), ("archives", CONTENT)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.zip").write_bytes(content)
    assert (
        obtain(Archive(file="a.zip", sha256=SHA256), tmp_path / "local", tmp_path / "archives").read_bytes() == CONTENT
    )


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with an archive on another file system: files are copied from there, not linked."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only: files are linked, not copied")
    local = memory / f"ssp-test-{os.getpid()}"
    local.mkdir()
    (local / "a.zip").write_bytes(CONTENT)
    os.utime(local / "a.zip", (1e9, 1e9 + 1.75))
    yield local
    shutil.rmtree(local)


def test_a_copy_is_not_made_again(tmp_path, elsewhere):
    """A copy, where there are no hard links, keeps the date: by that it is known again."""
    leftover = tmp_path / ".a.zip.123.tmp"  # of a copy that was killed
    leftover.write_bytes(b"PK")
    made = obtain(Archive(file="a.zip"), elsewhere, tmp_path).stat()
    assert not leftover.exists()
    again = obtain(Archive(file="a.zip"), elsewhere, tmp_path).stat()
    assert made.st_ino == again.st_ino
    (elsewhere / "a.zip").write_bytes(b"PKnew")
    assert obtain(Archive(file="a.zip"), elsewhere, tmp_path).read_bytes() == b"PKnew"


def test_a_copy_on_a_file_system_that_keeps_whole_seconds(tmp_path, elsewhere):
    made = obtain(Archive(file="a.zip"), elsewhere, tmp_path)
    before = made.stat().st_ino
    for second, same in ((1, True), (0, True), (-1, False)):  # FAT: even ones
        os.utime(made, (1e9, 1e9 + second))
        assert (obtain(Archive(file="a.zip"), elsewhere, tmp_path).stat().st_ino == before) == same


def test_a_copy_whose_date_may_not_be_set(tmp_path, elsewhere, monkeypatch):
    """As on some network mounts."""

    def refuse(path, **_):
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(os, "utime", refuse)
    assert obtain(Archive(file="a.zip"), elsewhere, tmp_path).read_bytes() == CONTENT


def test_what_killed_copies_left_is_removed(tmp_path):
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "a.zip").write_bytes(CONTENT)
    (tmp_path / ".a.zip.123.tmp").write_bytes(CONTENT[:9])
    obtain(Archive(file="a.zip"), tmp_path / "local", tmp_path)
    assert left_over(tmp_path) == ["a.zip", "local"]


def test_folders_in_the_place_of_archives(tmp_path):
    """As good as in `local`; but a folder has no checksum, and is none of the file that `local` holds."""
    config = small_config(tmp_path, local=None, archives=[{"file": "UCF-101"}])
    place = Paths.of(config).archives("ucf101") / "UCF-101"
    place.mkdir(parents=True)
    fetch_dataset(config, "ucf101")
    with pytest.raises(DataError, match=f"{place}: a folder has no size and checksum"):
        fetch_dataset(small_config(tmp_path, local=None, archives=[{"file": "UCF-101", "size": 5}]), "ucf101")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "UCF-101").write_bytes(b"PK")
    with pytest.raises(DataError, match=f"{place}: a folder where a file belongs"):
        fetch_dataset(small_config(tmp_path, archives=[{"file": "UCF-101"}]), "ucf101")


def test_local_archives_of_a_data_set(tmp_path):
    config = small_config(tmp_path, archives=[{"file": "a.zip"}, {"file": "b.zip"}])
    paths = Paths.of(config)
    with pytest.raises(DataError, match=r"a\.zip, b\.zip not there"):
        fetch_dataset(config, "ucf101")
    (tmp_path / "local").mkdir()
    for name in ("a.zip", "b.zip"):
        (tmp_path / "local" / name).write_bytes(b"PK" + name.encode())
    fetch_dataset(config, "ucf101")
    assert left_over(paths.archives("ucf101")) == ["a.zip", "b.zip"]
    assert paths.fetched("ucf101").exists()


PARTS = [f"20bn-something-something-v2-{i:02}" for i in range(20)]
LABELS = "20bn-something-something-download-package-labels.zip"


def licensed(tmp_path, **changes):
    files = [{"file": name} for name in (*PARTS, LABELS)]
    return small_config(tmp_path, archives=files, licence_page="https://example.org/licence", **changes)


def test_archives_behind_a_licence_are_named_with_page_and_place(tmp_path):
    config = licensed(tmp_path, local=None)
    folder = Paths.of(config).archives("ucf101")
    with pytest.raises(DataError) as caught:
        fetch_dataset(config, "ucf101")
    message = str(caught.value)
    assert f"{PARTS[0]} to {PARTS[19]}, {LABELS} cannot be fetched" in message
    assert "https://example.org/licence" in message
    assert str(folder) in message
    assert "datasets.ucf101.local" in message
    assert "\n" not in message

    folder.mkdir(parents=True)
    for name in (*PARTS, LABELS):
        (folder / name).write_bytes(b"PK")
    (folder / PARTS[7]).unlink()
    with pytest.raises(DataError, match=f"ucf101: {PARTS[7]} cannot be fetched"):
        fetch_dataset(config, "ucf101")
    (folder / PARTS[7]).write_bytes(b"PK")
    fetch_dataset(config, "ucf101")  # downloaded by hand into the place of the archives: nothing else to do
    assert Paths.of(config).fetched("ucf101").exists()


def test_a_folder_that_lacks_some_of_them(tmp_path):
    config = licensed(tmp_path)
    (tmp_path / "local").mkdir()
    for name in PARTS[:19]:
        (tmp_path / "local" / name).write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"local: {PARTS[19]}, {LABELS} not there.*https://example\.org/licence"):
        fetch_dataset(config, "ucf101")


def test_the_shipped_config_never_fetches_what_is_licensed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(Path(__file__).parents[3] / "config" / "paper.yaml")
    assert not any(archive.urls for archive in config.datasets["ssv2"].archives)
    with pytest.raises(DataError, match=f"{PARTS[0]} to {PARTS[19]}, {LABELS} .*https://.*data/paper/ssv2/archives"):
        fetch_dataset(config, "ssv2")
