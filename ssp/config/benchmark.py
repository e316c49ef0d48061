"""The whole config, and the slices of it that jobs depend on."""

from __future__ import annotations

import shlex
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, ValidationInfo, model_validator

from ssp.config import splits
from ssp.config.checks import contradictions, not_installed
from ssp.config.rows import Point, Row, ablation_points, table_rows
from ssp.config.sections.backbone import Backbone
from ssp.config.sections.common import LocalPath, Name, Quirk, Strict
from ssp.config.sections.compute import ComputePlan, Tracking
from ssp.config.sections.dataset import Dataset
from ssp.config.sections.quirks import Quirks
from ssp.config.sections.rows import Ablation, Method
from ssp.config.sections.search import Budget, Sweep
from ssp.config.sections.training import Hyperparameters
from ssp.config.slices import deciding, filled


class Config(Strict):
    """A whole benchmark: data sets x rows x seeds on one backbone, and ablations of rows."""

    name: Name = Field(description="Results go to results/<name>.")
    title: str = Field(description="One line for tables and reports: what these numbers are.")
    data_root: LocalPath = Field(description="Folder of archives, videos, manifests and frames.")
    environment: Literal["environment.yml", "environment.cuda.yml"] = Field(
        default="environment.yml", description="Conda environment of the jobs, with --use-conda."
    )
    container: str | None = Field(
        default=None, description="Image of the jobs, with --sdm apptainer: a file, or an address such as docker://..."
    )
    protocol: Quirk = Field(default="fixed", description="fixed: no quirk; published: all of them, but for `quirks`.")
    quirks: Quirks = Field(default=Quirks(), description="Single quirks, where they differ from `protocol`.")
    seeds: list[NonNegativeInt] = Field(min_length=1, description="One training of each cell per seed.")
    backbone: Backbone = Field(description="The pre-trained model that every method tunes.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="By name; columns of the tables, in this order.")
    methods: dict[Name, Method] = Field(min_length=1, description="Rows of the tables by name, in this order.")
    reference: Name | None = Field(default=None, description="The row that others are compared with; null: the first.")
    explained: Name | None = Field(default=None, description="The row whose attention is drawn; null: none.")
    ablations: dict[Name, Ablation] = Field(default={}, description="Variations of rows, by name.")
    sweep: Sweep = Field(description="The budget of hyper-parameter search.")
    refit: bool = Field(
        default=True,
        description="true: final models train on training and validation videos together; false: on the former alone.",
    )
    tracking: Tracking = Field(default=Tracking(), description="Where MLflow keeps its runs.")
    compute: ComputePlan = Field(default=ComputePlan(), description="What jobs ask for.")

    @model_validator(mode="before")
    @classmethod
    def _splits_apart(cls, data: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        if isinstance(data, dict) and isinstance(data.get("datasets"), dict):
            return data | {"datasets": splits.apart(data["datasets"])}
        return data

    @model_validator(mode="after")
    def _names_resolve(self, info: ValidationInfo) -> Config:
        # Results are shown and checked without the code that made them (`ssp.config.load_results_config`).
        missing = [] if (info.context or {}).get("made") else [*not_installed(self)]
        if wrong := [*missing, *contradictions(self)]:
            raise ValueError("; ".join(wrong))
        return self

    # Where it is from and where its results lie is no part of what it says: it makes no two configs differ.

    @property
    def origin(self) -> Path:
        """The file that it was read from; if from none, the checked copy beside its results."""
        return vars(self).get("_origin", self.home / "config.yaml")

    @property
    def home(self) -> Path:
        """Folder of its results."""
        return vars(self).get("_home", Path("results") / self.name)

    def placed(self, *, origin: Path | None = None, home: Path | None = None) -> Config:
        """The same config, from another file or with its results elsewhere."""
        other = self.model_copy()
        vars(other).update({key: path for key, path in (("_origin", origin), ("_home", home)) if path})
        return other

    def command(self, words: str, **options: object) -> str:
        """A command of `ssp` about this config, as one types it."""
        given = {"config": self.origin} | options
        return " ".join(["python -m ssp", words, *(f"--{name} {shlex.quote(str(v))}" for name, v in given.items())])

    def quirk(self, name: str) -> Quirk:
        """The effective value of a named quirk: its own setting, else the protocol's."""
        return getattr(self.quirks, name) or self.protocol

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """Columns of the tables, and the data sets whose mean they show: one, or those of several splits."""
        found: dict[str, list[str]] = {}
        for name, dataset in self.datasets.items():
            found.setdefault(dataset.split_of or name, []).append(name)
        return found

    @cached_property
    def archived(self) -> dict[str, Dataset]:
        """Data sets by what is fetched and unpacked, where they have archives: splits share it."""
        return {name: self.datasets[members[0]] for name, members in self.columns.items()}

    def column_of(self, dataset: str) -> str:
        """The column of the tables that a data set is in, which is also what its archives go by."""
        return self.datasets[dataset].split_of or dataset

    @cached_property
    def rows(self) -> dict[str, Row]:
        """All that is trained: the rows of the tables, then the points of ablations that are none of them."""
        return self._resolved[0]

    @cached_property
    def points(self) -> dict[str, list[Point]]:
        """The points of each ablation, in order."""
        return self._resolved[1]

    @cached_property
    def _resolved(self) -> tuple[dict[str, Row], dict[str, list[Point]]]:
        quirks = {method: {name: self.quirk(name) for name in names} for method, names in METHOD_QUIRKS.items()}
        rows = table_rows(self.methods, quirks)
        points = {name: ablation_points(ablation, rows) for name, ablation in self.ablations.items()}
        return rows, points

    @property
    def reference_row(self) -> str:
        """The row that all others are compared with."""
        return self.reference or next(iter(self.methods))

    def ablation_runs(self, name: str) -> tuple[list[str], list[str], list[int]]:
        """What an ablation is made of: data sets, rows (the base row first), seeds."""
        ablation = self.ablations[name]
        rows = dict.fromkeys([ablation.of, *(point.row for point in self.points[name])])
        datasets = [member for column in self.ablation_columns(name) for member in self.columns[column]]
        return datasets, [*rows], ablation.seeds or self.seeds

    def ablation_columns(self, name: str) -> list[str]:
        """The columns of an ablation's table."""
        return self.ablations[name].datasets or [*self.columns]

    def first_trial(self, dataset: str, row: str) -> Hyperparameters:
        """The shared hyper-parameters that a row's search starts with on a data set."""
        return Hyperparameters(
            **self.datasets[dataset].start.model_dump() | self.rows[row].start_on(self.column_of(dataset))
        )

    def curve_axis(self, name: str) -> str | None:
        """The option of an ablation that is a number in all points: the axis of its curve, if there is one."""
        vary = self.ablations[name].vary
        axes = vary.items() if isinstance(vary, dict) else ()
        numbers = (
            o for o, values in axes if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        )
        return next(numbers, None)

    def runs(self) -> list[tuple[str, str, int]]:
        """Every training as (data set, row, seed), those of the tables first, each once."""
        blocks = [(list(self.datasets), list(self.methods), self.seeds), *map(self.ablation_runs, self.ablations)]
        return [
            *dict.fromkeys((d, r, s) for datasets, rows, seeds in blocks for d in datasets for r in rows for s in seeds)
        ]

    def studies(self) -> list[tuple[str, str, int | None]]:
        """Every study as (data set, row, number), each once."""
        return [
            *dict.fromkeys(
                (dataset, self.rows[row].tuned_as, self.study_of(seed)) for dataset, row, seed in self.runs()
            )
        ]

    def study_of(self, seed: int) -> int | None:
        """The study that a seed trains from; None where all seeds share one."""
        return seed % self.sweep.repeats if self.sweep.repeats > 1 else None

    @property
    def study_numbers(self) -> list[int | None]:
        """The studies of a row on a data set; one without a number where all seeds share it."""
        return [*dict.fromkeys(self.study_of(number) for number in range(self.sweep.repeats))]

    @property
    def units(self) -> Literal["seeds", "studies"]:
        """What a claim takes as drawn anew: the seeds of one choice, or studies, each with its seeds."""
        return "seeds" if self.sweep.repeats == 1 else "studies"

    def n_units(self, seeds: list[int] | None = None) -> int:
        """How many of them some seeds make, or all."""
        seeds = self.seeds if seeds is None else seeds
        return len(seeds) if self.sweep.repeats == 1 else len({self.study_of(seed) for seed in seeds})

    def rungs(self, dataset: str) -> list[Budget]:
        """The rungs of each search on a data set: one without `fidelity`, none without a search."""
        recipe, sweep = self.datasets[dataset].recipe, self.sweep
        if fidelity := self.datasets[dataset].fidelity or sweep.fidelity:
            return [
                # A share of 0.7 is 7 of 10 epochs, also where 0.7 * 10 is a little more.
                Budget(trials=rung.trials, epochs=ceil(round(rung.epochs * recipe.epochs, 6)), videos=rung.videos)
                for rung in fidelity
            ]
        return [Budget(trials=sweep.trials, epochs=sweep.epochs or recipe.epochs)] if sweep.trials else []

    def trainings_of_a_study(self, dataset: str) -> float:
        """What the trials of a study cost at most, in trainings of all epochs on all training videos."""
        epochs, folds = self.datasets[dataset].recipe.epochs, self.datasets[dataset].validation.folds
        return folds * sum(rung.trials * rung.epochs * rung.videos for rung in self.rungs(dataset)) / epochs

    def workers(self, dataset: str) -> range:
        """Numbers of the jobs that search together on a data set; none where one job searches alone."""
        first = next(iter(self.rungs(dataset)), None)
        number = min(self.sweep.workers, first.trials) if first else 0
        return range(number if number > 1 else 0)

    def processes(self, job: Literal["pretrain", "train", "sweep"]) -> int:
        """How many processes of a node compute a training of a job together."""
        compute = getattr(self.compute, job)
        return max(compute.processes, compute.gpus)

    def tries_of_a_sweep(self) -> int:
        """How many times `compute.sweep.runtime` the longest study takes at most, one trial after another."""
        longest, train = max(map(self.trainings_of_a_study, self.datasets)), self.compute.train
        return max(1, ceil(longest * train.nodes * train.runtime / self.compute.sweep.runtime))

    # Slices: plain JSON-able dicts, the part of the config that decides the outcome of a kind of job. What has its
    # default is left out, so that a key that is new in the models changes no slice of a config without it.

    def archive_slice(self, dataset: str) -> dict[str, Any]:
        """What decides the archives of one of `archived` on disk; checksums do, not where the bytes come from."""
        return deciding(self.archived[dataset], {"source", "archives", "generate"})

    def manifest_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's manifest: archives or own videos, the split, what is carved."""
        settings = self.datasets[dataset]
        found = deciding(settings, {"expected", "split", "stereo_channels", "validation", "layout", "test"})
        found.get("validation", {}).pop("folds", None)  # the manifest holds the first; others are carved when read
        own = {"videos": str(settings.videos)} if settings.videos else {}
        return self.archive_slice(self.column_of(dataset)) | own | filled(found)

    def frames_slice(self, dataset: str) -> dict[str, Any]:
        """What decides a data set's frame store, beyond the manifest: what the store says it was made with."""
        return deciding(self.datasets[dataset], {"frames"})

    def weights_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides a fetched checkpoint file."""
        return deciding(self.backbone.checkpoints[checkpoint], {"archive"})

    def backbone_slice(self, checkpoint: str) -> dict[str, Any]:
        """What decides the weights of a pre-trained backbone."""
        return deciding(self.backbone) | {"checkpoint": deciding(self.backbone.checkpoints[checkpoint])}

    def sweep_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides which hyper-parameters are chosen: all of a cell but its last training and how test is read."""
        plain = self.cell_slice(dataset, method)
        del plain["final"]
        clips, quirks = plain["dataset"]["clips"], plain["dataset"].get("quirks", {})
        plain["dataset"]["clips"] = {name: value for name, value in clips.items() if not name.startswith("test_")}
        for quirk in ("merge_ids", "best_epoch"):
            quirks.pop(quirk, None)
        plain["dataset"]["recipe"].get("co_batched", {}).pop("test", None)
        return plain | {"dataset": filled(plain["dataset"])}

    def cell_slice(self, dataset: str, method: str) -> dict[str, Any]:
        """What decides the results of a (data set, method) cell; with the seed, the identity of a run."""
        return {
            "dataset": {"name": dataset} | self._dataset(dataset),
            "backbone": self.backbone_slice(self.datasets[dataset].checkpoint),
            "method": self._method(dataset, method),
            "sweep": self._sweep(dataset),
            "final": {"refit": self.refit},  # always said: results of before there was a choice are none of its two
        }

    def _sweep(self, dataset: str) -> dict[str, Any]:
        """The search in the slice of a cell; of budgets the one that counts on the data set."""
        overruled = ("trials", "epochs", "fidelity") if self.datasets[dataset].fidelity else ()
        return {key: value for key, value in deciding(self.sweep).items() if key not in overruled}

    def _dataset(self, name: str) -> dict[str, Any]:
        """A data set in the slice of a cell, with the quirks that touch it."""
        dataset = self.datasets[name]
        plain = deciding(dataset)
        del plain["frames"]["shards"]  # into how many files frames are written changes none of them
        touching = {quirk for quirk, sampling in DATA_QUIRKS.items() if sampling in (None, dataset.clips.sampling)}
        quirks = {quirk: self.quirk(quirk) for quirk in sorted(touching) if self.quirk(quirk) != NO_QUIRK}
        return filled(plain | {"quirks": quirks})

    def _method(self, dataset: str, name: str) -> dict[str, Any]:
        """A row in the slice of a cell, by its settings: what it is called decides nothing."""
        row = self.rows[name]
        plain = self._setting(row)
        if row.inherits:
            plain |= {"inherits": self._method(dataset, row.inherits)}
        else:
            space = {key: r.model_dump(mode="json", exclude_defaults=True) for key, r in row.space.items()}
            plain |= {
                "space": space,
                "start": row.start_on(self.column_of(dataset)),
                "fixed": dict.fromkeys(sorted(row.varied), True),
            }
        return filled(plain)

    def _setting(self, row: Row) -> dict[str, Any]:
        """Method and options of a row, without quirks that it does not have."""
        quirks = METHOD_QUIRKS.get(row.method, ())
        options = {key: value for key, value in row.options.items() if key not in quirks or value != NO_QUIRK}
        return {"name": row.method, "options": options}

    def costs_slice(self) -> dict[str, Any]:
        """What decides the costs of the rows, beyond the machine: the models, and the clips of the first data set.

        Where the config says no number of classes, the manifest does.
        """
        name, dataset = next(iter(self.datasets.items()))
        recipe = deciding(dataset.recipe, {"batch_size", "micro_batch", "clip_grad", "precision"})
        return filled(
            {
                "backbone": deciding(self.backbone),
                "clips": {
                    "classes": dataset.expected.classes if dataset.expected else None,
                    "num_frames": dataset.clips.num_frames,
                    "repeats": dataset.recipe.augmentation.repeats,
                },
                "recipe": recipe,
                "rows": {
                    row: self._setting(self.rows[row]) | {"drop_path": self.first_trial(name, row).drop_path}
                    for row in self.methods
                },
            }
        )

    def tables_slice(self) -> dict[str, Any]:
        """What decides the tables, beyond the records: the words around them and the order of rows and columns."""
        return {
            "title": self.title,
            "datasets": list(self.columns),
            "methods": [[name, self.rows[name].title, self.rows[name].published] for name in self.methods],
            "reference": self.reference_row,
            "seeds": list(self.seeds),
        }

    def ablation_slice(self, name: str) -> dict[str, Any]:
        """What decides the table and the curve of an ablation, beyond the records."""
        datasets, (_, _, seeds) = self.ablation_columns(name), self.ablation_runs(name)
        points = [[point.title, point.row, point.values] for point in self.points[name]]
        title, base = self.ablations[name].title, self.rows[self.ablations[name].of].title
        return {"title": [self.title, title], "of": base, "points": points, "datasets": datasets, "seeds": seeds}


# Where the quirks act. Options are known to a method's class alone, and asking it would take torch, which is not there
# wherever the Snakefile is read; a test holds the classes to this.
METHOD_QUIRKS = {"ssp": ("entropy_norm",), "stop": ("frame_norm",)}
DATA_QUIRKS = {  # the sampling; None: any
    "validation_window": "dense",
    "short_videos": "sparse",
    "merge_ids": None,
    "best_epoch": None,
}
NO_QUIRK: Quirk = "fixed"  # the default of `protocol`
