"""A reader never sees half a file, whatever happens to the writer."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssp.errors import StorageError
from ssp.files import atomic_path, remove_leftovers, write_json, writing

ROOT = Path(__file__).parents[2]
IN_ASCII = """
import locale, sys
from pathlib import Path
from ssp.config import read_yaml
from ssp.files import write_text
assert "utf" not in locale.getpreferredencoding().lower()
path = Path(sys.argv[1])
write_text(path, 'title: M\\u00fcnchen')
assert read_yaml(path) == {"title": 'M\\u00fcnchen'}
"""


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError("disk")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    for name in (".seed0.pt.17.tmp", ".seed1.pt.17.tmp", ".seed0.pt.json.17.tmp"):
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "seed0.pt") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".seed0.pt.json.17.tmp", ".seed1.pt.17.tmp", "seed0.pt"]


def test_a_second_writer_is_named(tmp_path):
    """It takes what it finds for the leftovers of a killed one."""
    target = tmp_path / "shard-0.lmdb"
    with (
        pytest.raises(StorageError, match=r"shard-0\.lmdb: another process is writing it"),
        atomic_path(target) as path,
    ):
        path.write_text("half")
        remove_leftovers(target)


@pytest.mark.parametrize("name", ["out", "out/deep", "out/deep/table.csv", "out/deep/.table.csv.17.tmp"])
def test_what_may_not_be_written_says_so(tmp_path, name):
    with pytest.raises(StorageError) as raised, writing(tmp_path / "out" / "deep" / "table.csv"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / name))
    named = tmp_path / name.replace(".table.csv.17.tmp", "table.csv")
    said = f"{named}: cannot be written (Permission denied); make it writable for this user, or run where it is"
    assert str(raised.value) == said


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO])
def test_what_is_read_on_the_way_is_not_said_to_be_written(tmp_path, code):
    with pytest.raises(StorageError) as raised, writing(tmp_path / "out" / "table.csv"):
        raise OSError(code, os.strerror(code), str(tmp_path / "local" / "a.zip"))
    said = str(raised.value)
    assert said.startswith(f"{tmp_path / 'local' / 'a.zip'}: cannot be read or written ({os.strerror(code)}); ")
    assert "writable" not in said


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with atomic_path(tmp_path / "deep" / "videos") as temporary:
        temporary.mkdir()
        (temporary / "a.avi").write_bytes(b"1")
        assert not (tmp_path / "deep" / "videos").exists()
    assert [path.name for path in (tmp_path / "deep" / "videos").iterdir()] == ["a.avi"]
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_json_keeps_names_readable(tmp_path):
    write_json(tmp_path / "record.json", {"name": "Frühstück"})
    assert "Frühstück" in (tmp_path / "record.json").read_text()
    assert json.loads((tmp_path / "record.json").read_text()) == {"name": "Frühstück"}


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    for name in (".a.lmdb.17.tmp", ".a.lmdb.4711.tmp", "a.lmdb", ".b.lmdb.17.tmp", "c"):
        (tmp_path / name).touch()
    (tmp_path / ".c.5.tmp" / "deep").mkdir(parents=True)
    remove_leftovers(tmp_path / "a.lmdb")
    remove_leftovers(tmp_path / "c")
    remove_leftovers(tmp_path / "not there" / "d")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.lmdb.17.tmp", "a.lmdb", "c"]


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
    environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    target = tmp_path / "config.yaml"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", IN_ASCII, target], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert target.read_bytes().decode() == "title: München"
