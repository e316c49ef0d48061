"""A Slurm for the whole session, and the same small workflow run on this machine and through it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import Slurm, missing, running
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
    """Folder of a finished run on this machine: one data set and two rows of tiny.yaml, with epochs enough to be met."""
    folder = tmp_path_factory.mktemp("local")
    plain = yaml.safe_load(TINY.read_text())
    plain["datasets"] = {"breakfast": plain["datasets"]["breakfast"]}
    plain["datasets"]["breakfast"]["recipe"]["epochs"] = 20
    plain |= {"methods": {name: plain["methods"][name] for name in ("linear", "ssp")}, "seeds": [0], "explained": None}
    plain["compute"] = {
        "data": {"mem_mb": 1500, "runtime": 20},
        "pretrain": {"mem_mb": 1600, "runtime": 30},
        "train": {"mem_mb": 1800, "runtime": 40},
        "sweep": {"mem_mb": 1700},
    }
    del plain["ablations"]
    (folder / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
    return _finished(folder, snakemake(folder, "--cores", "2", "--configfile", folder / CONFIG))


@pytest.fixture(scope="session")
def through_slurm(slurm: Slurm, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same run through profiles/slurm, from the list of videos on: videos themselves are copied."""
    folder = tmp_path_factory.mktemp("cluster")
    shutil.copy(local / CONFIG, folder)
    shutil.copytree(local / "data", folder / "data", ignore=shutil.ignore_patterns("manifest*", "frames", "*shard*"))
    return _finished(folder, slurm.snakemake(folder, "--configfile", CONFIG))


def _finished(folder: Path, done: Done) -> Path:
    if done.code:
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in folder.glob("results/tiny/logs/**/*.log"))
        pytest.fail(f"the run failed\n{done.err[-6000:]}\n{logs[-20000:]}", pytrace=False)
    return folder
