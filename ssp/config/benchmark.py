"""The whole config, and the slices of it that jobs depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, model_validator

from ssp.config.plugins import method_names, source_names
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


class Config(Strict):
    """A whole benchmark: data sets x methods x seeds on one backbone."""

    name: Name = Field(description="Results go to results/<name>.")
    title: str = Field(description="One line for tables and reports: what these numbers are.")
    data_root: LocalPath = Field(description="Folder of archives, videos, manifests and frames.")
    environment: Literal["environment.yml", "environment.cuda.yml"] = Field(
        default="environment.yml", description="Conda environment of the jobs, with --use-conda."
    )
    protocol: Quirk = Field(default="fixed", description="fixed: no quirk; published: all of them, but for `quirks`.")
    quirks: Quirks = Field(default=Quirks(), description="Single quirks, where they differ from `protocol`.")
    seeds: list[NonNegativeInt] = Field(min_length=1, description="One training of each cell per seed.")
    backbone: Backbone = Field(description="The pre-trained model that every method tunes.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="By name; columns of the tables, in this order.")
    methods: dict[Name, Method] = Field(min_length=1, description="By name; rows of the tables, in this order.")
    sweep: Sweep = Field(description="The budget of hyper-parameter search.")
    tracking: Tracking = Field(default=Tracking(), description="Where MLflow keeps its runs.")
    compute: ComputePlan = Field(default=ComputePlan(), description="What jobs ask for.")

    @model_validator(mode="after")
    def _names_resolve(self) -> Config:
        if wrong := [*self._unknown_names()]:
            raise ValueError("; ".join(wrong))
        return self

    def _unknown_names(self) -> Iterator[str]:
        for name in self.methods:
            if name not in method_names():
                yield f"methods.{name}: unknown method{_known(name, method_names())}"
        for name, dataset in self.datasets.items():
            if dataset.checkpoint not in self.backbone.checkpoints:
                known = ", ".join(self.backbone.checkpoints)
                yield f"datasets.{name}.checkpoint: '{dataset.checkpoint}' is not in backbone.checkpoints ({known})"
            if dataset.source not in source_names():
                known = _known(dataset.source, source_names())
                yield f"datasets.{name}.source: unknown source '{dataset.source}'{known}"
        for name in self.sweep.space:
            if name not in Hyperparameters.model_fields:
                known = ", ".join(Hyperparameters.model_fields)
                yield f"sweep.space.{name}: not a shared hyper-parameter ({known})"
        if len(set(self.seeds)) != len(self.seeds):
            yield "seeds: every seed must be there once"

    def quirk(self, name: str) -> Quirk:
        """The effective value of a named quirk: its own setting, else the protocol's."""
        return getattr(self.quirks, name) or self.protocol

    def method_options(self, method: str) -> dict[str, Any]:
        """Options of a method as this config has them: its own, and the quirks that are an option of it."""
        quirks = {name: self.quirk(name) for name, methods in METHOD_QUIRKS.items() if method in methods}
        return quirks | self.methods[method].options

    # Slices: plain JSON-able dicts, the part of the config that decides the outcome of a kind of job. What has its
    # default is left out, so that a key that is new in the models changes no slice of a config without it.

    def archive_slice(self, dataset: str) -> dict[str, Any]:
        """What decides the archives of a data set on disk; checksums do, not the places that the bytes come from."""
        return _deciding(self.datasets[dataset], {"source", "archives", "generate"})

    def manifest_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's manifest: its archives, the split and the carving of validation."""
        return self.archive_slice(dataset) | _deciding(self.datasets[dataset], {"expected", "split", "validation"})

    def frames_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's frame store, beyond the manifest: what the store says it was made with."""
        return _deciding(self.datasets[dataset], {"frames"})

    def weights_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides a fetched checkpoint file."""
        return _deciding(self.backbone.checkpoints[checkpoint], {"archive"})

    def backbone_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides the weights of a pre-trained backbone."""
        return _deciding(self.backbone) | {"checkpoint": _deciding(self.backbone.checkpoints[checkpoint])}

    def sweep_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides which hyper-parameters are chosen: all of a cell but how test is read."""
        plain = self.cell_slice(dataset, method)
        clips, quirks = plain["dataset"]["clips"], plain["dataset"].get("quirks", {})
        plain["dataset"]["clips"] = {name: value for name, value in clips.items() if not name.startswith("test_")}
        quirks.pop("merge_ids", None)
        return plain | {"dataset": _filled(plain["dataset"])}

    def cell_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides the results of a (data set, method) cell; with the seed, the identity of a run."""
        return {
            "dataset": {"name": dataset} | self._dataset(dataset),
            "backbone": self.backbone_slice(self.datasets[dataset].checkpoint),
            "method": {"name": method} | self._method(method),
            "sweep": _deciding(self.sweep),
        }

    def _dataset(self, name: str) -> dict[str, Any]:
        """A data set in the slice of a cell, with the quirks that touch it."""
        dataset = self.datasets[name]
        plain = _deciding(dataset)
        del plain["frames"]["shards"]  # into how many files frames are written changes none of them
        touching = {quirk for quirk, sampling in DATA_QUIRKS.items() if sampling in (None, dataset.clips.sampling)}
        quirks = {quirk: self.quirk(quirk) for quirk in sorted(touching) if self.quirk(quirk) != NO_QUIRK}
        return _filled(plain | {"quirks": quirks})

    def _method(self, name: str) -> dict[str, Any]:
        """A method in the slice of a cell; a quirk of it is one of its options."""
        options = {
            option: value
            for option, value in self.method_options(name).items()
            if option not in METHOD_QUIRKS or value != NO_QUIRK
        }
        plain = _deciding(self.methods[name]) | {"options": options}
        return plain if options else {key: value for key, value in plain.items() if key != "options"}

    def tables_slice(self) -> dict[str, Any]:
        """What decides the tables, beyond the records: the words around them and the order of rows and columns."""
        return {
            "title": self.title,
            "datasets": list(self.datasets),
            "methods": list(self.methods),
            "seeds": list(self.seeds),
        }


# Where the quirks act. Options are known to a method's class alone, and asking it would take torch, which is not there
# wherever the Snakefile is read; a test holds the classes to this.
METHOD_QUIRKS = {"entropy_norm": ("ssp",)}
DATA_QUIRKS = {"validation_window": "dense", "short_videos": "sparse", "merge_ids": None}  # the sampling; None: any
NO_QUIRK: Quirk = "fixed"  # the default of `protocol`

# What is in the config and decides no result. A new mirror must not rerun anything: checksums say what an archive is,
# addresses only where it was found. Limits on decoding say when a job fails, not what a store holds.
_DECIDES_NOTHING: dict[type[BaseModel], dict[str, Any]] = {
    Backbone: {"checkpoints": True},  # each has a slice of its own
    Checkpoint: {"archive": {"urls"}},
    Dataset: {
        "archives": {"__all__": {"urls"}},
        "local": True,
        "licence_page": True,
        "frames": {"max_broken", "timeout_s"},
    },
    Sweep: {"storage": True},
}


def _deciding(model: BaseModel, include: set[str] | None = None) -> dict[str, Any]:
    """What a model says beyond its defaults and decides something, as plain values."""
    exclude = _DECIDES_NOTHING.get(type(model))
    return _filled(model.model_dump(mode="json", include=include, exclude=exclude, exclude_defaults=True))


def _filled(plain: dict[str, Any]) -> dict[str, Any]:
    """Without sections that say nothing: `validation: {fraction: 0.2}` with that default is the same as none."""
    inner = {name: _filled(value) if isinstance(value, dict) else value for name, value in plain.items()}
    return {name: value for name, value in inner.items() if value != {}}


def _known(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'? known: {', '.join(known)}" if near else f"; known: {', '.join(known)}"


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
