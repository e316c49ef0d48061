"""The stage of the pipeline: the archives of a data set become its videos; what cannot be unpacked is fetched again."""

import gzip
import json
import os

import pytest
import yaml

from ssp.data.archives import unpack_dataset
from ssp.data.fetch import fetch_dataset
from ssp.errors import DataError
from ssp.paths import Paths
from tests.unit.made_archives import FILES, make_parts, make_zip, tar_bytes, unpacked
from tests.unit.made_videos import small_config
from tests.workflow.running import snakemake


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


@pytest.mark.parametrize("content", [b"PK no", b"some text", None], ids=["damaged", "unknown", "missing"])
def test_what_cannot_be_unpacked_is_fetched_again(tmp_path, content):
    """As the message says: delete it and run again."""
    config = small_config(tmp_path)
    paths = Paths.of(config)
    local, archive = config.datasets["ucf101"].local, paths.archives("ucf101") / "videos.zip"
    local.mkdir()
    make_zip(local / "videos.zip")
    fetch_dataset(config, "ucf101")
    archive.unlink()
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(DataError, match=r"videos\.zip: .*run again"):
        unpack_dataset(config, "ucf101")
    assert not paths.fetched("ucf101").exists()
    assert archive.exists() == (content is not None)
    archive.unlink(missing_ok=True)
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    assert unpacked(paths.videos("ucf101")) == FILES


def served_config(tmp_path, **entry):
    """A data set whose archive is downloaded from a folder `server`, with what else the config says about it."""
    address = (tmp_path / "server" / "videos.zip").as_uri()
    (tmp_path / "server").mkdir(exist_ok=True)
    return small_config(tmp_path, local=None, archives=[{"file": "videos.zip", "urls": [address]} | entry])


@pytest.mark.parametrize("content", [b"PK\3\4 no", None], ids=["damaged", "an archive in it is"])
def test_a_damaged_download_is_moved_aside_and_fetched_again(tmp_path, content):
    """Its first bytes are right, so fetching would take it as it lies there."""
    config = served_config(tmp_path)
    paths, served = Paths.of(config), tmp_path / "server" / "videos.zip"
    archive = paths.archives("ucf101") / "videos.zip"
    if content is None:
        content = make_zip(served, {"inner.zip": b"PK no"}).read_bytes()
    for _ in range(2):  # the second replaces what is left of the first
        served.write_bytes(content)
        fetch_dataset(config, "ucf101")
        with pytest.raises(
            DataError, match=r"videos\.zip: .*damaged \(.*\); kept as videos\.zip\.damaged, run again to fetch it"
        ):
            unpack_dataset(config, "ucf101")
        assert [file.name for file in archive.parent.iterdir()] == ["videos.zip.damaged"]
        assert not paths.fetched("ucf101").exists()
    make_zip(served)
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    assert unpacked(paths.videos("ucf101")) == FILES


def test_an_archive_of_no_known_kind_is_moved_aside(tmp_path):
    """Under a name that says no kind, fetching cannot see it."""
    address = (tmp_path / "videos").as_uri()
    config = small_config(tmp_path, local=None, archives=[{"file": "videos", "urls": [address]}])
    (tmp_path / "videos").write_bytes(b"busy, come again")
    fetch_dataset(config, "ucf101")
    with pytest.raises(DataError, match=r"videos: neither zip, .*kept as videos\.damaged, run again to fetch it"):
        unpack_dataset(config, "ucf101")
    make_zip(tmp_path / "videos")
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    assert unpacked(Paths.of(config).videos("ucf101")) == FILES


@pytest.mark.parametrize("case", ["checksum", "no address", "hard link", "link", "local", "hostile", "parts"])
def test_other_archives_stay_where_they_are(tmp_path, case):
    entries = {"checksum": {"sha256": "0" * 64}, "no address": {"urls": []}}
    config = served_config(tmp_path, **entries.get(case, {}))
    archive = Paths.of(config).archives("ucf101") / "videos.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"PK\3\4 no")
    mine = tmp_path / "mine.zip"
    if case == "hard link":
        os.link(archive, mine)
    elif case == "link":
        archive.rename(mine)
        archive.symlink_to(mine)
    elif case == "local":
        config = small_config(tmp_path)
    elif case == "hostile":
        make_zip(archive, {"../evil": b"1"})
    elif case == "parts":
        archive.unlink()
        files = [{"file": f"set-{i:02}", "urls": [(tmp_path / "no").as_uri()]} for i in range(2)]
        config = small_config(tmp_path, local=None, archives=files)
        for part in make_parts(archive.parent, gzip.compress(tar_bytes())[:-9], 2):
            archive = part
    before = sorted(path.name for path in archive.parent.iterdir())
    with pytest.raises(DataError, match="refused" if case == "hostile" else "damaged .*delete it and run again"):
        unpack_dataset(config, "ucf101")
    assert sorted(path.name for path in archive.parent.iterdir()) == before
    assert not list(tmp_path.rglob("*.damaged"))


@pytest.mark.slow
@pytest.mark.workflow
def test_the_workflow_fetches_a_deleted_archive_again(tmp_path):
    config = small_config(tmp_path)
    paths, local = Paths.of(config), config.datasets["ucf101"].local
    local.mkdir()
    (local / "videos.zip").write_bytes(b"PK\3\4 no")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    words = ["--configfile", tmp_path / "config.yaml", "--cores", "1", paths.unpacked("ucf101")]
    assert snakemake(tmp_path, *words).code == 1
    (paths.archives("ucf101") / "videos.zip").unlink()
    (local / "videos.zip").unlink()
    make_zip(local / "videos.zip")
    again = snakemake(tmp_path, *words)
    assert again.code == 0, again.err
    assert unpacked(paths.videos("ucf101")) == FILES
