"""A finished tiny benchmark, and a copy of it for each case."""

from pathlib import Path

import pytest

from tests.robustness.bench import Bench, make_bench


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the finished benchmark; nobody writes there."""
    folder = tmp_path_factory.mktemp("robustness")
    return make_bench(folder / "base", folder / "mlflow.db")


@pytest.fixture
def bench(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A copy to damage, as the working directory."""
    monkeypatch.chdir(tmp_path)
    return Bench.copy(finished, tmp_path)
