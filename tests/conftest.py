"""Which of all tests comes when, and with several processes (`-n 2 --dist loadgroup`) in which of them."""

import gc
import sys
from collections.abc import Iterator

import pytest
from xdist.scheduler import LoadScopeScheduling

# Files whose tests need what takes long to make, and is made once in a process.
# By file: pytest-xdist 3.8 does not act on its mark `xdist_group` under pytest 9.2, whose node ids it cannot change.
SHARED = {
    "tests/robustness/test_parallel_writers.py": "the finished benchmark",
    "tests/robustness/test_bad_inputs.py": "the finished benchmark",
    "tests/robustness/test_bad_storage.py": "the finished benchmark",
    "tests/workflow/test_complete_run.py": "the complete small run",
    "tests/workflow/test_rerun.py": "the complete small run",
}
# What takes minutes comes first, so that no process is left with it at the end.
FIRST = [
    "tests/cluster/test_slurm.py",
    "tests/workflow/test_kill.py",
    "the finished benchmark",
    "tests/cluster/test_services.py",
    "the complete small run",
    "tests/workflow/test_install.py",
    "tests/unit/jobs/test_warm.py",
    "tests/unit/jobs/test_workers.py",
    "tests/workflow/test_new_method.py",
    "tests/workflow/test_rehearse.py",
    "tests/workflow/test_own_videos.py",
    "tests/unit/jobs/test_team.py",
    "tests/unit/verify/test_verify.py",
    "tests/unit/scan/test_triton.py",
    "tests/unit/training/test_parallel.py",
    "tests/unit/data/test_kill.py",
    "tests/workflow/test_plan.py",
    "tests/unit/scan/test_build.py",
    "tests/unit/tables/test_null.py",
]
gc.set_threshold(50_000)  # objects, not 700: each search for garbage goes through all that torch and MLflow consist of


def scope(nodeid: str) -> str:
    """What the tests that one process runs one after the other have in common: what they share, else their file."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file, file)


class SharedScheduling(LoadScopeScheduling):
    """One process for a file, as its tests share fixtures, and for all files that share something."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """Instead of xdist's own for `--dist loadgroup`."""
    config.option.loadscopereorder = False  # by the number of tests: the few of Slurm take longest
    return SharedScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """What runs in this process may change how many threads PyTorch has, which slows down all that comes after it."""
    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes minutes, then what takes seconds."""

    def place(item: pytest.Item) -> tuple[int, bool, bool]:
        own = scope(item.nodeid)
        order = FIRST.index(own) if own in FIRST else len(FIRST)
        return order, *(item.get_closest_marker(name) is None for name in ("workflow", "slow"))

    items.sort(key=place)
