"""What is wrong with a config as a whole, though each of its sections is right by itself: a line for each problem."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ssp.config.plugins import method_names, source_names
from ssp.config.sections.dataset import Dataset
from ssp.config.sections.training import Hyperparameters

if TYPE_CHECKING:
    from ssp.config.benchmark import Config

OWN_SOURCES = ("folder", "table")  # videos that lie somewhere already, in place of archives


def not_installed(config: Config) -> Iterator[str]:
    """Methods and sources that there is no code of here."""
    for name, row in config.methods.items():
        if (method := row.method or name) not in method_names():
            key = (
                f"methods.{name}.method: unknown method '{method}'" if row.method else f"methods.{name}: unknown method"
            )
            yield f"{key}{_known(method, method_names())}"
    for name, dataset in config.archived.items():  # splits of one say the same
        if dataset.source not in source_names():
            known = _known(dataset.source, source_names())
            yield f"datasets.{name}.source: unknown source '{dataset.source}'{known}"


def contradictions(config: Config) -> Iterator[str]:
    """Names of what is not there, and keys that say what another key makes impossible."""
    yield from _rows(config)
    yield from _datasets(config)
    yield from _search(config)
    yield from _ablations(config)


def _rows(config: Config) -> Iterator[str]:
    for name, row in config.methods.items():
        for dataset in row.starts:
            if dataset not in config.columns:
                yield f"methods.{name}.starts.{dataset}: no such data set{_known(dataset, [*config.columns])}"
    for key in ("reference", "explained"):
        if (name := getattr(config, key)) not in (None, *config.methods):
            yield f"{key}: '{name}' is none of methods{_known(name, [*config.methods])}"


def _datasets(config: Config) -> Iterator[str]:
    for name, dataset in config.datasets.items():
        if dataset.split_of and name != f"{dataset.split_of}-split{dataset.split}":
            yield f"datasets.{name}.split_of: set by a list of splits; leave it out, and give split: [1, 2, 3]"
    if "average" in config.columns:
        yield "datasets.average: tables call the average over data sets so; give the data set another name"
    for name, dataset in config.archived.items():  # splits of one say the same
        if dataset.checkpoint not in config.backbone.checkpoints:
            known = ", ".join(config.backbone.checkpoints)
            yield f"datasets.{name}.checkpoint: '{dataset.checkpoint}' is not in backbone.checkpoints ({known})"
        if dataset.validation.fraction == 0 and config.rungs(config.columns[name][0]):
            yield (
                f"datasets.{name}.validation.fraction: 0 leaves no video to choose hyper-parameters on; "
                "give a share, or sweep.trials: 0, which takes the start of each row"
            )
        if dataset.stereo_channels > 1 and dataset.source != "breakfast":
            yield f"datasets.{name}.stereo_channels: only breakfast has a stereo camera; leave it out"
        yield from (f"datasets.{name}.{problem}" for problem in _wrong_origin(dataset))


def _search(config: Config) -> Iterator[str]:
    for name in config.sweep.space:
        if name not in Hyperparameters.model_fields:
            known = ", ".join(Hyperparameters.model_fields)
            yield f"sweep.space.{name}: not a shared hyper-parameter ({known})"
    if config.sweep.trials is None and not all(d.fidelity or config.sweep.fidelity for d in config.datasets.values()):
        yield "sweep.trials: missing; say how many, or give sweep.fidelity"
    if len(set(config.seeds)) != len(config.seeds):
        yield "seeds: every seed must be there once"
    if idle := set(range(config.sweep.repeats)) - {seed % config.sweep.repeats for seed in config.seeds}:
        yield (
            f"sweep.repeats: {config.sweep.repeats} studies, and no seed for number {min(idle)} (seed i trains from "
            f"study i modulo {config.sweep.repeats}); give more seeds, or fewer studies"
        )


def _ablations(config: Config) -> Iterator[str]:
    for name, ablation in config.ablations.items():
        if ablation.of not in config.methods:
            yield f"ablations.{name}.of: '{ablation.of}' is none of methods{_known(ablation.of, [*config.methods])}"
        for key, known in (("datasets", [*config.columns]), ("seeds", config.seeds)):
            for value in getattr(ablation, key) or ():
                if value not in known:
                    yield f"ablations.{name}.{key}: {value} is none of {key} ({', '.join(map(str, known))})"


def _wrong_origin(dataset: Dataset) -> Iterator[str]:
    """What a data set of archives cannot say, and one of own videos; keys with what is wrong."""
    if bool(dataset.archives) == bool(dataset.videos):
        yield "archives: give these, or as `videos` a folder of your own (or a CSV beside its videos), not both"
        return
    if dataset.archives and not dataset.expected:
        yield "expected: missing; only own videos need not say their numbers"
    own = dataset.source in OWN_SOURCES
    if own != bool(dataset.videos):
        yield f"source: {' and '.join(OWN_SOURCES)} read own `videos`, other sources `archives`; change one of the two"
    if own and dataset.split != 1:
        yield "split: own videos have one; leave it out"
    for key in ("local", "licence_page", "generate") if own else ("layout", "test"):
        if getattr(dataset, key) is not None:
            yield f"{key}: only for {'archives' if own else 'own videos'}; leave it out"
    if dataset.layout is not None and dataset.source != "folder":
        yield "layout: only for source folder; the table says class, split and group"


def _known(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'? known: {', '.join(known)}" if near else f"; known: {', '.join(known)}"
