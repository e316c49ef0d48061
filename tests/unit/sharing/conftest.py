"""Folders of results to share, made once; figures are stand-ins, as drawing takes most of the time."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from ssp.paths import Paths
from tests.unit.made_results import make_results

MODULES = ("ssp.verify.made", "ssp.sharing.merge", "tests.unit.made_results")
OTHER_ROW = {"methods": {"ssp": {"options": {"num_prompts": 2}}, "vpt": {}}, "ablations": {}}


def draw(paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (30, 20)).save(path)
        else:
            path.write_text(f"drawn: {path.name}")
    return paths


@contextmanager
def stand_ins():
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(
                f"{module}.write_figures", lambda config, paths=None: draw(paths or Paths.of(config).figure_files)
            )
            patch.setattr(
                f"{module}.write_curve",
                lambda config, name, paths=None: draw(paths or Paths.of(config).ablation_curves(name)),
            )
        yield patch


@pytest.fixture(autouse=True)
def drawn():
    with stand_ins():
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A function that gives a folder of results with changes, under a name, made at its first call."""
    known = {}

    def make(name, **changes):
        if name not in known:
            folder = tmp_path_factory.mktemp("made") / name
            folder.mkdir()
            with stand_ins() as patch:
                patch.chdir(folder)
                known[name] = make_results(**changes).resolve()
        return known[name]

    return make


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A function that puts a copy of such a folder under that name into the folder of this test."""
    monkeypatch.chdir(tmp_path)

    def copy(name, **changes):
        return Path(shutil.copytree(made(name, **changes), name))

    return copy


@pytest.fixture
def lab(here):
    """Two data sets, rows ssp and linear, seeds 0 and 1, an ablation."""
    return here("lab")


@pytest.fixture
def other_seeds(here):
    """The same for seeds 2 and 3, without the ablation."""
    return here("seeds", seeds=(2, 3), ablations={})


@pytest.fixture
def other_row(here):
    """Seeds 0 and 1 of ssp, as `lab`, and of a row that `lab` does not have."""
    return here("rows", **OTHER_ROW)
