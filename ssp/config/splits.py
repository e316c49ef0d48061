"""`split: [1, 2, 3]`: a data set with several published splits becomes one data set for each of them.

Design choices
- Each split has a manifest, searches and trainings of its own, as its training list holds test videos of the others.
- Archives and unpacked videos are shared, and tables show the mean over the splits in one column.
- What the lists of splits differ in may be a list as well: `expected: {train: [9537, 9586, 9624], ...}`.
"""

from __future__ import annotations

from typing import Any


def apart(datasets: dict[str, Any]) -> dict[str, Any]:
    """Raw data sets, those with a list of splits replaced by one for each split, named `<name>-split<number>`.

    Raises:
        ValueError: a list is empty or has another length, or a name is taken; the message names the key.
    """
    found: dict[str, Any] = {}
    for name, plain in datasets.items():
        members = _members(name, plain) if isinstance(plain, dict) and isinstance(plain.get("split"), list) else None
        for member, settings in (members or {name: plain}).items():
            if member in found or (members and member in datasets):
                raise ValueError(f"datasets.{member}: the name of a split of datasets.{name}; give one another name")
            found[member] = settings
    return found


def _members(name: str, plain: dict[str, Any]) -> dict[str, Any]:
    splits = plain["split"]
    if not splits or not all(isinstance(split, int) for split in splits) or len(set(splits)) < len(splits):
        raise ValueError(f"datasets.{name}.split: give one number, or a list of different ones such as [1, 2, 3]")
    expected = plain.get("expected")
    counts = expected if isinstance(expected, dict) else {}
    for key, value in counts.items():
        if isinstance(value, list) and len(value) != len(splits):
            raise ValueError(f"datasets.{name}.expected.{key}: give one number, or one for each of {splits}")
    return {
        f"{name}-split{split}": plain
        | {"split": split, "split_of": name}
        | ({"expected": {key: _of(value, i) for key, value in counts.items()}} if counts else {})
        for i, split in enumerate(splits)
    }


def _of(value: Any, i: int) -> Any:  # noqa: ANN401 - whatever YAML holds
    return value[i] if isinstance(value, list) else value
