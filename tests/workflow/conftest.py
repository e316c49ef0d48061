"""The complete small run that several tests look at, and Snakemake in an empty folder."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ssp.config import Config, load_config
from ssp.paths import Paths
from tests.workflow.running import TINY, Done, snakemake, snakemake_command


class TinyRun(NamedTuple):
    """A finished run of tiny.yaml."""

    folder: Path
    config: Config
    paths: Paths
    done: Done

    def again(self, *args: str | Path) -> Done:
        """Plan another run in the same folder."""
        return snakemake(self.folder, "-n", *args)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The whole workflow, once."""
    folder = tmp_path_factory.mktemp("tiny")
    config = load_config(TINY)
    done = snakemake_command(folder, "--cores", "2", "--configfile", TINY)
    if done.code:
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in folder.glob("results/tiny/logs/**/*.log"))
        pytest.fail(f"the small run failed\n{done.err[-6000:]}\n{logs[-20000:]}", pytrace=False)
    return TinyRun(folder, config, Paths.of(config), done)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """Snakemake in an empty folder."""
    return lambda *args, **environment: snakemake(tmp_path, *args, **environment)
