"""What several tests need: a data set as small as it gets, made by the real code; one thread; a server."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.once import once


def tracking(folder: Path) -> dict:
    """One MLflow database for all tests: making one takes seconds."""
    return {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "tests"}


@pytest.fixture(scope="module")
def one_thread():
    """On a busy machine threads that wait for each other make small operations a hundred times slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def server(monkeypatch):
    """A loopback server; a download does not wait long between two attempts."""
    from ssp.data import download
    from tests.unit.made_server import Server

    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    with Server() as made:
        yield made


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Folder with the generated videos, manifest and frames of a UCF101-like set, and an untrained backbone."""
    return once(tmp_path_factory, "tiny_data", make_tiny_data)


def make_tiny_data(folder):
    import torch
    from safetensors.torch import save_file

    from ssp.data.archives import unpack_dataset
    from ssp.data.fetch import fetch_dataset
    from ssp.data.frames import extract_shard
    from ssp.data.manifest import write_manifest
    from ssp.data.synthetic.archives import generate_archives
    from ssp.jobs.tracking import init_tracking
    from ssp.methods.build import build_model
    from tests.unit.tiny_benchmark import tiny_config

    config = tiny_config(folder, tracking=tracking(folder))
    generate_archives(config, "ucf101")
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    write_manifest(config, "ucf101")
    extract_shard(config, "ucf101", 0)
    torch.manual_seed(0)
    backbone = build_model(config.backbone.architecture, "linear", 5, num_frames=4, img_size=32)
    state = {name: p.detach() for name, p in backbone.named_parameters() if not name.startswith("head.")}
    save_file(state, folder / "backbone.safetensors")
    with contextlib.chdir(folder):
        init_tracking(config).rename(folder / "ready.json")


@pytest.fixture(scope="session")
def tracked(tiny_data, tmp_path_factory):
    """Folder with this process's own copy of the MLflow database, and its `ready.json`."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copy(tiny_data / "mlflow.db", folder)
    ready = json.loads((tiny_data / "ready.json").read_text())
    (folder / "ready.json").write_text(json.dumps(ready | {"uri": tracking(folder)["uri"]}))
    return folder


@pytest.fixture(scope="session")
def made_results(tmp_path_factory):
    """Folder of the results that `make_results` makes; copied before anything is changed."""
    from tests.unit.made_results import make_results

    def make(folder):
        with contextlib.chdir(folder):
            make_results()

    return once(tmp_path_factory, "made_results", make) / "results" / "tried"


@pytest.fixture
def tiny(tiny_here, tmp_path, monkeypatch):
    """A function that gives a config of that data set (with changes), its results in a folder of this test."""
    monkeypatch.chdir(tmp_path)
    return tiny_here


@pytest.fixture(scope="session")
def tiny_here(tiny_data, tracked):
    """The same, its results in the current folder."""
    from ssp.files import write_text
    from ssp.paths import Paths
    from tests.unit.tiny_benchmark import tiny_config

    def make(**changes):
        config = tiny_config(tiny_data, **({"tracking": tracking(tracked)} | changes))
        write_text(Paths.of(config).mlflow / "ready.json", (tracked / "ready.json").read_text())
        return config

    return make
