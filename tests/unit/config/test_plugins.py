"""Data sources are found: those of this project by their files, others by entry points, none by being imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from ssp.config import source_names
from ssp.config.plugins import source_modules
from ssp.data.sources import Tree, read_listing

ROOT = Path(__file__).resolve().parents[3]
PLUG_IN = """
from ssp.data.sources import Entry, Listing
def read(tree, split):
    return Listing(["wave"], [Entry("a", "a.avi", 0, "wave", "train", "g")])
"""


def test_the_files_of_this_project_are_the_sources():
    files = {path.stem for path in (ROOT / "ssp" / "data" / "sources").glob("*.py")} - {"__init__"}
    assert {"hmdb51", "ucf101", "ssv2", "breakfast"} <= files == set(source_names())


def test_they_are_listed_without_numpy():
    code = "import sys; from ssp.config import source_names; assert source_names(); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """An installed package with a source of its own."""
    (tmp_path / "wavesets.py").write_text(PLUG_IN)
    about = tmp_path / "wavesets-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wavesets\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ssp.sources]\nwaves = wavesets\n")
    monkeypatch.syspath_prepend(tmp_path)
    source_modules.cache_clear()
    yield
    source_modules.cache_clear()


def test_a_package_may_bring_a_source(plug_in, tmp_path):
    assert "waves" in source_names()
    assert read_listing("waves", Tree(tmp_path, []), 1).classes == ["wave"]
