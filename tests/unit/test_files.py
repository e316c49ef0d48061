"""A reader never sees half a file, whatever happens to the writer."""

import json

import pytest

from ssp.files import atomic_path, write_json


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError("disk")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


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
