"""A Slurm for each process of tests, and the same small workflow run on this machine and through it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import REQUESTS, Slurm, missing, running
from tests.once import once
from tests.workflow.killing import RESULTS
from tests.workflow.running import TINY, Done, snakemake

CONFIG = "tiny.yaml"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two virtual nodes."""
    if why := missing():
        pytest.skip(f"no Slurm can be started here: {why}")
    with running(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(scope="session")
def local(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run on this machine, up to the tables: one cell of tiny.yaml, with epochs enough to be met."""
    return once(tmp_path_factory, "local", _run_here)


def _run_here(folder: Path) -> None:
    plain = yaml.safe_load(TINY.read_text())
    plain["datasets"] = {"breakfast": plain["datasets"]["breakfast"]}
    plain["datasets"]["breakfast"]["recipe"] |= {"epochs": 20, "micro_batch": 4}  # a step is work for two processes
    plain["sweep"]["epochs"] = 5
    plain |= {"methods": {"ssp": plain["methods"]["ssp"]}, "seeds": [0], "explained": None}
    plain["compute"] = REQUESTS
    del plain["ablations"]
    (folder / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
    finished(folder, snakemake(folder, "tables", "--cores", "2", "--configfile", folder / CONFIG))


@pytest.fixture(scope="session")
def through_slurm(slurm: Slurm, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same run through profiles/slurm: all but the list of videos and the backbone."""
    folder = tmp_path_factory.mktemp("cluster")
    copy_inputs(local, folder)
    shutil.rmtree(folder / "data/tiny/breakfast/frames")
    return finished(folder, slurm.snakemake(folder, "tables", "--configfile", CONFIG))


def copy_inputs(local: Path, folder: Path, *more: Path) -> None:
    """Config, data and backbone of a run, and more of it."""
    for name in (CONFIG, "data", RESULTS / "scan.done", RESULTS / "backbone", *more):
        _copy(local / name, folder / name)


def _copy(source: Path, target: Path) -> None:
    """With times: what is older than what it is made from is made again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)


def finished(folder: Path, done: Done) -> Path:
    if done.code:
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in folder.glob("results/tiny/logs/**/*.log"))
        pytest.fail(f"the run failed\n{done.err[-6000:]}\n{logs[-20000:]}", pytrace=False)
    return folder
