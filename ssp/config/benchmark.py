"""The whole config, and the slices of it that jobs depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, model_validator

from ssp.config.sections import (
    Backbone,
    Checkpoint,
    ComputePlan,
    Dataset,
    Hyperparameters,
    LocalPath,
    Method,
    Name,
    Quirk,
    Quirks,
    Strict,
    Sweep,
    Tracking,
)
from ssp.methods.registry import method_names

SOURCES = ("hmdb51", "ucf101", "ssv2", "breakfast")


class Config(Strict):
    """A whole benchmark: data sets x methods x seeds on one backbone."""

    name: Name = Field(description="Results go to results/<name>.")
    title: str = Field(description="One line for tables and reports: what these numbers are.")
    data_root: LocalPath = Field(description="Folder of archives, videos, manifests and frames.")
    environment: Literal["environment.yml", "environment.cuda.yml"] = "environment.yml"
    protocol: Quirk = "fixed"
    quirks: Quirks = Quirks()
    seeds: list[NonNegativeInt] = Field(min_length=1)
    backbone: Backbone
    datasets: dict[Name, Dataset] = Field(min_length=1)
    methods: dict[Name, Method] = Field(min_length=1)
    sweep: Sweep
    tracking: Tracking = Tracking()
    compute: ComputePlan = ComputePlan()

    @model_validator(mode="after")
    def _names_resolve(self) -> Config:
        known = method_names()
        for name in self.methods:
            if name not in known:
                raise ValueError(f"methods.{name}: unknown method; known: {', '.join(known)}")
        for name, dataset in self.datasets.items():
            if dataset.checkpoint not in self.backbone.checkpoints:
                raise ValueError(
                    f"datasets.{name}.checkpoint: '{dataset.checkpoint}' is not in backbone.checkpoints "
                    f"({', '.join(self.backbone.checkpoints)})"
                )
            if dataset.source not in SOURCES:
                raise ValueError(
                    f"datasets.{name}.source: unknown source '{dataset.source}'; known: {', '.join(SOURCES)}"
                )
        for name in self.sweep.space:
            if name not in Hyperparameters.model_fields:
                raise ValueError(
                    f"sweep.space.{name}: not a shared hyper-parameter ({', '.join(Hyperparameters.model_fields)})"
                )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: every seed must be there once")
        return self

    def quirk(self, name: str) -> Quirk:
        """The effective value of a named quirk: its own setting, else the protocol's."""
        return getattr(self.quirks, name) or self.protocol

    # Slices: plain JSON-able dicts, the part of the config that decides the outcome of a kind of job.

    def archive_slice(self, dataset: str) -> dict[str, Any]:
        """What decides the archives of a data set on disk; checksums do, not the places that the bytes come from."""
        return _plain(self.datasets[dataset], {"source", "archives", "generate"})

    def manifest_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's manifest: its archives, the split and the carving of validation."""
        return self.archive_slice(dataset) | _plain(self.datasets[dataset], {"expected", "split", "validation"})

    def frames_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's frame store, beyond the manifest."""
        return _plain(self.datasets[dataset], {"frames"})

    def weights_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides a fetched checkpoint file."""
        return _plain(self.backbone.checkpoints[checkpoint], {"archive"})

    def backbone_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides the weights of a pre-trained backbone."""
        plain = _plain(self.backbone, {"architecture", "image_size"})
        return plain | {"checkpoint": _plain(self.backbone.checkpoints[checkpoint])}

    def sweep_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides which hyper-parameters are chosen: all of a cell but how test is read."""
        plain = self.cell_slice(dataset, method)
        plain["dataset"]["clips"] = {k: v for k, v in plain["dataset"]["clips"].items() if not k.startswith("test_")}
        return plain

    def cell_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides the results of a (data set, method) cell; with the seed, the identity of a run."""
        return {
            "dataset": {"name": dataset} | _plain(self.datasets[dataset]),
            "backbone": self.backbone_slice(self.datasets[dataset].checkpoint),
            "method": {"name": method} | _plain(self.methods[method]),
            "sweep": _plain(self.sweep, {"trials", "epochs", "seed", "workers", "space"}),
            "quirks": {name: self.quirk(name) for name in Quirks.model_fields},
        }

    def tables_slice(self) -> dict[str, Any]:
        """What decides the tables, beyond the records: the words around them and the order of rows and columns."""
        return {
            "title": self.title,
            "datasets": list(self.datasets),
            "methods": list(self.methods),
            "seeds": list(self.seeds),
        }


# A new mirror must not rerun anything: checksums say what an archive is, addresses only where it was found.
_ADDRESSES = {
    Dataset: {"archives": {"__all__": {"urls"}}, "local": True, "licence_page": True},
    Checkpoint: {"archive": {"urls"}},
}


def _plain(model: BaseModel, include: set[str] | None = None) -> dict[str, Any]:
    return model.model_dump(mode="json", include=include, exclude=_ADDRESSES.get(type(model)))


def slice_hash(plain: dict[str, Any]) -> str:
    """The first 16 hex digits of the SHA-256 of a slice in canonical JSON."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def slice_lines(plain: dict[str, Any]) -> list[str]:
    """A slice as sorted `key.key = value` lines, so that a difference between two slices names the key."""

    def leaves(value: Any, key: str) -> list[str]:  # noqa: ANN401 - whatever JSON can hold
        if isinstance(value, dict) and value:
            return [line for name in value for line in leaves(value[name], f"{key}.{name}" if key else name)]
        return [f"{key} = {json.dumps(value, sort_keys=True)}"]

    return sorted(leaves(plain, ""))
