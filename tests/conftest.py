"""The order of all tests."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that with several processes (`-n 2`) none is left with it at the end."""
    items.sort(key=lambda item: not (item.get_closest_marker("workflow") and item.get_closest_marker("slow")))
