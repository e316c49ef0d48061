"""Which of all tests comes when, and with several processes (`-n 2 --dist loadgroup`) in which of them."""

import gc

import pytest
from xdist.scheduler import LoadScopeScheduling

# What takes seconds or minutes to make, once in a process, and the files whose tests need it; what takes longest comes
# first. By file: pytest-xdist 3.8 does not act on its mark `xdist_group` under pytest 9.2, whose node ids it cannot
# change.
SHARED = {
    "tests/cluster/test_slurm.py": "Slurm",
    "tests/cluster/test_services.py": "Slurm with services",
    "tests/robustness/test_parallel_writers.py": "the finished benchmark",
    "tests/robustness/test_bad_inputs.py": "the finished benchmark",
    "tests/robustness/test_bad_storage.py": "the finished benchmark",
    "tests/workflow/test_complete_run.py": "the complete small run",
    "tests/workflow/test_rerun.py": "the complete small run",
    "tests/workflow/test_new_method.py": "a clone with a new method",
    "tests/workflow/test_rehearse.py": "a rehearsal",
    "tests/workflow/test_plan.py": "a process that plans",
    "tests/unit/jobs/test_warm.py": "a process to fork from",
    "tests/unit/training/test_parallel.py": "two processes",
    "tests/unit/verify/test_rerun.py": "trained runs",
    "tests/unit/jobs/test_costs.py": "measured costs",
    "tests/unit/report/test_report.py": "a report",
    "tests/unit/data/test_rar.py": "the downloaded samples",
}
gc.set_threshold(50_000)  # objects, not 700: each search for garbage goes through all that torch and MLflow consist of

GROUPS = list(dict.fromkeys(SHARED.values()))


class SharedScheduling(LoadScopeScheduling):
    """One process for all tests that share something; every other test goes where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return SHARED.get(nodeid.partition("::")[0], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """Instead of xdist's own for `--dist loadgroup`."""
    config.option.loadscopereorder = False  # by the number of tests: the few of Slurm take longest
    return SharedScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that no process is left with it at the end."""

    def place(item: pytest.Item) -> tuple[int, bool, bool]:
        shared = SHARED.get(item.nodeid.partition("::")[0])
        order = GROUPS.index(shared) if shared else len(GROUPS)
        return order, *(item.get_closest_marker(name) is None for name in ("workflow", "slow"))

    items.sort(key=place)
