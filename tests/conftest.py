"""Which of all tests comes when, and in which process."""

import pytest

# Session fixtures that take seconds: what needs one runs in one process (`--dist loadgroup`), and it is made once.
SHARED = ("tiny_run", "tiny_data", "samples")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the group of a test by what it shares."""
    for name in SHARED:
        if name in getattr(item, "fixturenames", ()) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that with several processes (`-n 2`) none is left with it at the end."""
    items.sort(key=lambda item: not (item.get_closest_marker("workflow") and item.get_closest_marker("slow")))
