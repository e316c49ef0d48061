"""Results from a folder or from an archive of any kind, which cannot write elsewhere."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from ssp.errors import ConfigError, DataError
from ssp.sharing.opening import names_of, opened


def test_a_folder_is_itself_and_an_archive_is_unpacked_and_removed(tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "config.yaml").write_text("name: demo\n")
    with opened(folder) as there:
        assert there == folder
    with tarfile.open(tmp_path / "demo.tar.gz", "w:gz") as archive:
        archive.add(folder, "results/demo")  # as somebody packs by hand
    with opened(tmp_path / "demo.tar.gz") as there:
        assert (there / "config.yaml").read_text() == "name: demo\n"
    assert not there.exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_an_archive_cannot_write_outside_of_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("config.yaml", "name: demo\n")
        archive.writestr(name, "taken over")
    with pytest.raises(DataError, match="refused"), opened(tmp_path / "bad.zip"):
        pass
    assert not list(tmp_path.parent.rglob("outside.txt"))


def test_a_link_in_an_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        link = tarfile.TarInfo("records")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("config.yaml"), io.BytesIO())
    with pytest.raises(DataError, match="refused"), opened(tmp_path / "bad.tar"):
        pass


def test_what_is_no_results_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, problem in (("other.zip", "no config.yaml in it"), ("none", "no such folder or archive")):
        with pytest.raises(ConfigError, match=problem), opened(tmp_path / name):
            pass


def test_results_are_called_by_as_much_of_their_place_as_tells_them_apart(tmp_path):
    for name in ("a/demo", "b/demo", "c/lab"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "theirs.zip").touch()
    assert names_of([tmp_path / "a/demo", tmp_path / "theirs.zip"]) == ["demo", "theirs"]
    assert names_of([tmp_path / "a/demo", tmp_path / "b/demo"]) == ["a/demo", "b/demo"]
    with pytest.raises(ConfigError, match="is there twice"):
        names_of([tmp_path / "a/demo", Path(tmp_path, "a/../a/demo")])
