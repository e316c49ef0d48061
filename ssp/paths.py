"""Where every file of a benchmark lies. The Snakefile and the jobs both ask here, so the two never disagree.

Data (archives, videos, manifests, frames) is shared by all configs that name the same `data_root`; results belong to
one config. All paths are relative to the working directory, the repository root in a workflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssp.config import Config

LAID_OUT_TABLES = ("main", "parameters", "costs", "uncertainty", "differences", "verdict")
TABLE_FORMATS = ("csv", "md", "tex")
PLAIN_TABLES = ("pairs", "ranks", "seeds")
FIGURE, FIGURE_FORMATS = "accuracy_against_parameters", ("pdf", "png")


@dataclass(frozen=True)
class Paths:
    """Paths of one config. Arguments may be Snakemake wildcards such as "{dataset}"."""

    results: Path
    """Folder of everything this config produces."""
    data_root: Path

    @classmethod
    def of(cls, config: Config) -> Paths:
        """The paths of a config."""
        return cls(config.home, config.data_root)

    # Data, in the order in which it flows.

    def dataset(self, dataset: str) -> Path:
        """Folder of a data set."""
        return self.data_root / dataset

    def generated(self, dataset: str) -> Path:
        """Empty file that says: the archives of a demo data set have been generated."""
        return self.dataset(dataset) / "generated.done"

    def fetched(self, dataset: str) -> Path:
        """Empty file that says: all archives have been verified. The archives may be removed once unpacked."""
        return self.dataset(dataset) / "fetched.done"

    def archives(self, dataset: str) -> Path:
        """Folder of the verified archives."""
        return self.dataset(dataset) / "archives"

    def videos(self, dataset: str) -> Path:
        """Folder that the archives are unpacked into (videos and annotation files)."""
        return self.dataset(dataset) / "videos"

    def unpacked(self, dataset: str) -> Path:
        """JSON list of what came out of the archives; written last, so its presence means a complete unpacking."""
        return self.dataset(dataset) / "unpacked.json"

    def manifest(self, dataset: str) -> Path:
        """Parquet table of the videos."""
        return self.dataset(dataset) / "manifest.parquet"

    def manifest_report(self, dataset: str) -> Path:
        """JSON of what the manifest was made with, and of what is missing or broken."""
        return self.dataset(dataset) / "manifest.report.json"

    def frames(self, dataset: str) -> Path:
        """Folder of the frame store."""
        return self.dataset(dataset) / "frames"

    def shard(self, dataset: str, shard: int | str) -> Path:
        """One LMDB file of the frame store; `shard` is a number or a wildcard."""
        return self.frames(dataset) / f"shard-{shard}.lmdb"

    def shard_report(self, dataset: str, shard: int | str) -> Path:
        """JSON list of the videos of a shard that could not be decoded, with reasons."""
        return self.frames(dataset) / f"shard-{shard}.json"

    # Results.

    @property
    def config(self) -> Path:
        """The checked config with all defaults, as the workflow runs it; what jobs read."""
        return self.results / "config.yaml"

    def backbone(self, checkpoint: str) -> Path:
        """A backbone that this config pre-trained."""
        return self.results / "backbone" / f"{checkpoint}.safetensors"

    def backbone_report(self, checkpoint: str) -> Path:
        """JSON of what a backbone was pre-trained with, and of its accuracy."""
        return self.results / "backbone" / f"{checkpoint}.json"

    def fetched_checkpoint(self, file: str) -> Path:
        """A published backbone, as downloaded; shared between configs."""
        return self.data_root / "checkpoints" / file

    def choice(self, dataset: str, method: str, study: int | str | None = None) -> Path:
        """The hyper-parameters that the sweep chose, with all trials: the frozen configuration of a cell."""
        return _suffixed(self.results.joinpath("sweeps", dataset, *_study(method, study)), ".json")

    def journal(self, dataset: str, method: str, study: int | str | None = None) -> Path:
        """Optuna's journal of a study; survives a killed sweep."""
        return _suffixed(self.results.joinpath("state", "sweeps", dataset, *_study(method, study)), ".journal")

    def worker(self, dataset: str, method: str, worker: int | str, study: int | str | None = None) -> Path:
        """Empty file that says: one of those that search together has nothing more to do."""
        return self.results.joinpath("state", "workers", dataset, *_study(method, study), f"worker{worker}.done")

    def trial_states(self, dataset: str, method: str, study: int | str | None = None) -> Path:
        """Folder of what killed trials of a study continue from; removed when the choice is written."""
        return self.results.joinpath("state", "trials", dataset, *_study(method, study))

    def lease(self, output: Path) -> Path:
        """Folder of the lease of a job (`ssp.jobs.lease`), by what the job makes."""
        return self.results / "state" / "leases" / output.relative_to(self.results)

    def features(self, cell: str) -> Path:
        """Features of a frozen trunk that the trials of a cell's study share; removed when the choice is written."""
        return self.results / "state" / "features" / cell

    def training_state(self, dataset: str, method: str, seed: int | str) -> Path:
        """What a killed training continues from; removed when the cell is done."""
        return self.results / "state" / "training" / dataset / method / f"seed{seed}.pt"

    def weights(self, dataset: str, method: str, seed: int | str) -> Path:
        """Tuned weights (new parameters, head, final norm)."""
        return self.results / "weights" / dataset / method / f"seed{seed}.safetensors"

    def record(self, dataset: str, method: str, seed: int | str) -> Path:
        """The result record of a run."""
        return self.results / "records" / dataset / method / f"seed{seed}.json"

    def readings(self, dataset: str, method: str, seed: int | str) -> Path:
        """Who has read the test videos of a run, from which choice; outlives its record."""
        return self.results / "readings" / dataset / method / f"seed{seed}.jsonl"

    def kept_manifest(self, dataset: str) -> Path:
        """The manifest of a data set, kept with the results that rest on it: data may be elsewhere, or gone."""
        return self.results / "manifests" / f"{dataset}.parquet"

    @property
    def costs(self) -> Path:
        """What training and using each row costs, as it was measured."""
        return self.results / "costs.json"

    def predictions(self, dataset: str, method: str, seed: int | str) -> Path:
        """Logits of every test view of a run."""
        return self.results / "predictions" / dataset / method / f"seed{seed}.parquet"

    def explained(self, dataset: str) -> Path:
        """What SSP attended to in test videos: the facts, written after the picture."""
        return self.results / "explained" / f"{dataset}.json"

    def explained_picture(self, dataset: str) -> Path:
        """The picture of what SSP attended to; none where the run failed."""
        return self.results / "explained" / f"{dataset}.png"

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.results / "tables"

    @property
    def table_files(self) -> list[Path]:
        """All files of tables: those that are laid out in every format, the others as CSV."""
        laid_out = [self.tables / f"{name}.{kind}" for name in LAID_OUT_TABLES for kind in TABLE_FORMATS]
        return [*laid_out, *(self.tables / f"{name}.csv" for name in PLAIN_TABLES)]

    @property
    def tables_config(self) -> Path:
        """Which slice of the config the tables were made with."""
        return self.tables / "config.json"

    @property
    def figure_files(self) -> list[Path]:
        """The figures for papers."""
        return [self.figures / f"{FIGURE}.{kind}" for kind in FIGURE_FORMATS]

    def ablation_tables(self, ablation: str) -> list[Path]:
        """The table of an ablation in every format."""
        return [self.tables / "ablations" / f"{ablation}.{kind}" for kind in TABLE_FORMATS]

    def ablation_config(self, ablation: str) -> Path:
        """Which slice of the config the table of an ablation was made with."""
        return self.tables / "ablations" / f"{ablation}.json"

    def ablation_curves(self, ablation: str) -> list[Path]:
        """The curve of an ablation over numbers."""
        return [self.figures / "ablations" / f"{ablation}.{kind}" for kind in FIGURE_FORMATS]

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.results / "figures"

    @property
    def report(self) -> Path:
        """The page that shows everything."""
        return self.results / "report.html"

    @property
    def sums(self) -> Path:
        """Checksums of all files here that something rests on."""
        return self.results / "SHA256SUMS"

    @property
    def left_out(self) -> Path:
        """Which tuned weights were left out when these results were packed."""
        return self.results / "left_out.json"

    @property
    def contributors(self) -> Path:
        """Which results were joined into these, and which record is from where."""
        return self.results / "contributors.json"

    @property
    def mlflow(self) -> Path:
        """Folder of the MLflow database and artifacts, unless the config names a server."""
        return self.results / "mlflow"

    def log(self, rule: str, *parts: str) -> Path:
        """Log file of a job."""
        return _suffixed(self.results.joinpath("logs", rule, *parts), ".log")

    def usage(self, rule: str, *parts: str) -> Path:
        """Time and memory of a job (`ssp.jobs.run`)."""
        return _suffixed(self.results.joinpath("logs", rule, *parts), ".tsv")


def began_mark(config: Path) -> Path:
    """The file that a workflow leaves while it goes on, beside the checked config that it runs."""
    return config.with_name("state") / "began"


def _study(method: str, study: int | str | None) -> list[str]:
    """A study's place; where there are several of a row, in a folder of that name."""
    return [method] if study is None else [method, f"study{study}"]


def videos_of(config: Config, dataset: str) -> Path:
    """Folder of the videos of a data set: where they were unpacked, or where the user keeps them."""
    own = config.datasets[dataset].videos
    if own is None:
        return Paths.of(config).videos(config.column_of(dataset))
    return own.parent if config.datasets[dataset].source == "table" else own


def _suffixed(path: Path, suffix: str) -> Path:
    """A path with a suffix behind its name, which may have dots of its own (`with_suffix` would cut at the last)."""
    return path.with_name(path.name + suffix)
