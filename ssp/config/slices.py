"""Slices: the part of a config that decides the outcome of a kind of job, as plain values, and their hashes.

Which keys belong to which kind of job is said by `ssp.config.benchmark.Config`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from ssp.config.sections.backbone import Backbone, Checkpoint
from ssp.config.sections.dataset import Dataset
from ssp.config.sections.search import Sweep

# What is in the config and decides no result. A new mirror must not rerun anything: checksums say what an archive is,
# addresses only where it was found, and of a backbone that lies here already records have the file's own hash
# (`backbone_hash`), as others have it elsewhere. Limits on decoding say when a job fails, not what a store holds.
_DECIDES_NOTHING: dict[type[BaseModel], dict[str, Any]] = {
    Backbone: {"checkpoints": True},  # each has a slice of its own
    Checkpoint: {"archive": {"urls"}, "local": True},
    Dataset: {
        "archives": {"__all__": {"urls"}},
        "local": True,
        "videos": True,  # a folder may move; what is in it, the manifest's hash tells
        "licence_page": True,
        "split_of": True,
        "frames": {"max_broken", "timeout_s"},
    },
    Sweep: {"storage": True},
}

_JSON = json.JSONEncoder(sort_keys=True)  # `json.dumps` would make one for each value


def deciding(model: BaseModel, include: set[str] | None = None) -> dict[str, Any]:
    """What a model says beyond its defaults and decides something, as plain values."""
    exclude = _DECIDES_NOTHING.get(type(model))
    return filled(model.model_dump(mode="json", include=include, exclude=exclude, exclude_defaults=True))


def filled(plain: dict[str, Any]) -> dict[str, Any]:
    """Without sections that say nothing: `validation: {fraction: 0.2}` with that default is the same as none."""
    inner = {name: filled(value) if isinstance(value, dict) else value for name, value in plain.items()}
    return {name: value for name, value in inner.items() if value != {}}


def slice_hash(plain: dict[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of a slice in canonical JSON."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def flattened(plain: dict[str, Any]) -> dict[str, str]:
    """Every value of a slice as JSON, by its keys: {"recipe.epochs": "10"}."""

    def leaves(value: Any, key: str) -> list[tuple[str, str]]:  # noqa: ANN401 - whatever JSON can hold
        if isinstance(value, dict) and value:
            return [leaf for name in value for leaf in leaves(value[name], f"{key}.{name}" if key else name)]
        return [(key, _JSON.encode(value))]

    return dict(leaves(plain, ""))


def slice_lines(plain: dict[str, Any]) -> list[str]:
    """A slice as sorted `key.key = value` lines, so that a difference between two slices names the key."""
    return sorted(f"{key} = {value}" for key, value in flattened(plain).items())


def slice_change(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first line in which two slices differ."""
    before, after = set(slice_lines(old)), set(slice_lines(new))
    gone, come = sorted(before - after), sorted(after - before)
    if not gone and not come:
        return "its own hash does not match"
    return "; ".join([f"was {line}" for line in gone[:1]] + [f"now {line}" for line in come[:1]])
