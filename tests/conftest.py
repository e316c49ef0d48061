"""Which of all tests comes when, and with several processes (`-n 2 --dist loadgroup`) in which of them."""

import pytest
from xdist.scheduler import LoadScopeScheduling

# What takes seconds or minutes to make, once in a process, and the files whose tests need it. By file: pytest-xdist 3.8
# does not act on its mark `xdist_group` under pytest 9.2, whose node ids it cannot change.
SHARED = {
    "tests/cluster/test_slurm.py": "Slurm",
    "tests/workflow/test_complete_run.py": "the complete small run",
    "tests/workflow/test_rerun.py": "the complete small run",
    "tests/robustness/test_parallel_writers.py": "all processors",
    "tests/unit/data/test_rar.py": "the downloaded samples",
    "tests/unit/cli/test_cli.py": "the tiny data set",
    "tests/unit/jobs/test_explain.py": "the tiny data set",
    "tests/unit/jobs/test_inference.py": "the tiny data set",
    "tests/unit/jobs/test_seed.py": "the tiny data set",
    "tests/unit/jobs/test_sweep.py": "the tiny data set",
    "tests/unit/jobs/test_team.py": "the tiny data set",
    "tests/unit/jobs/test_tracking.py": "the tiny data set",
    "tests/unit/report/test_report.py": "the tiny data set",
}


class SharedScheduling(LoadScopeScheduling):
    """One process for all tests that share something; every other test goes where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return SHARED.get(nodeid.partition("::")[0], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """Instead of xdist's own for `--dist loadgroup`."""
    return SharedScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that no process is left with it at the end."""
    items.sort(key=lambda item: not (item.get_closest_marker("workflow") and item.get_closest_marker("slow")))
