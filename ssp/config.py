"""Typed models of the config file: they check it, resolve it, and cut it into the slices that jobs depend on.

Design choices
- A config file is complete: nothing is merged into it, defaults live here and nowhere else.
- Unknown keys are errors; every error is one line that names the file and the key.
- A *slice* is the part of a config that decides the outcome of one kind of job. The Snakefile passes slices as rule
  `params` and the jobs hash them into their records, so an edit reruns exactly what it affects.
- Light: no torch here, so that the Snakefile parses wherever snakemake does (which brings pydantic along).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from ssp.errors import ConfigError
from ssp.registry import method_names

Quirk = Literal["fixed", "published"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Strict(BaseModel):
    """A model without tolerance: unknown keys, silently converted types, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, allow_inf_nan=False)


# -- data ------------------------------------------------------------------------------------------------------------


class Archive(Strict):
    """One file to fetch: the places to try in order, and what proves that it is the right one."""

    file: str = Field(description="File name under the data set's `archives/` folder.")
    urls: list[str] = Field(default=[], description="Addresses, tried in order. Empty: never fetched (licence).")
    size: int | None = Field(default=None, description="Bytes, where known.")
    sha256: str | None = Field(default=None, description="Checksum, where known.")
    md5: str | None = Field(
        default=None, description="Published checksum of an older kind, where that is all there is."
    )


class Expected(Strict):
    """What the published data set contains; the manifest is compared with it."""

    classes: PositiveInt
    train: PositiveInt = Field(description="Videos of the training list (before validation is carved from it).")
    test: PositiveInt


class Generate(Strict):
    """Demo only: a rule generates the archives of this data set from a seed instead of fetching them."""

    seed: NonNegativeInt
    train: PositiveInt = Field(description="Training videos over all classes.")
    test: PositiveInt = Field(description="Test videos over all classes.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="Width and height in pixels.")
    seconds: tuple[float, float] = Field(description="Shortest and longest duration.")
    fps: PositiveInt


class Validation(Strict):
    """How validation is carved from train: whole groups, stratified over classes, seeded."""

    fraction: Fraction = 0.2
    seed: NonNegativeInt = 0


class Frames(Strict):
    """The frame store: every video decoded once into JPEG frames."""

    shards: PositiveInt = Field(description="Jobs the decoding is scattered over.")
    short_side: PositiveInt | None = Field(default=None, description="Shrink to this short side; never enlarges.")
    jpeg_quality: int = Field(
        default=95,
        ge=1,
        le=100,
        description="At 95 logits move about as little as at 100, with half the bytes (benchmarks/jpeg_quality.py).",
    )
    max_broken: Fraction = Field(default=0.01, description="Share of undecodable videos above which the job fails.")
    timeout_s: float = Field(default=120, gt=0, description="Time limit for one video.")


class Clips(Strict):
    """Which frames of a video make a clip, and the views that a test prediction is averaged over."""

    sampling: Literal["dense", "sparse", "kinetics_sparse"] = Field(
        description="Windows of consecutive frames; one frame a segment; the same with segments of fractional length."
    )
    num_frames: PositiveInt
    stride: PositiveInt = Field(default=1, description="Frames between two samples (dense only).")
    test_segments: PositiveInt = Field(default=1, description="Temporal views at test.")
    test_crops: PositiveInt = Field(default=1, description="Spatial views at test.")


# -- training --------------------------------------------------------------------------------------------------------


class Augmentation(Strict):
    """Training-time transforms; one draw of parameters for all frames of a clip."""

    randaugment: str | None = Field(default=None, description="For example rand-m7-n4-mstd0.5-inc1; null: off.")
    scale: tuple[float, float] = Field(default=(0.08, 1.0), description="Area share of the random resized crop.")
    ratio: tuple[float, float] = Field(default=(0.75, 4 / 3), description="Aspect ratio of the random resized crop.")
    flip: Fraction = Field(default=0.5, description="Probability of a horizontal flip; 0 where direction is the class.")
    erasing: Fraction = Field(default=0.0, description="Probability of random erasing.")
    mixup: float = Field(default=0.0, ge=0, description="Beta parameter of mixup; 0: off.")
    cutmix: float = Field(default=0.0, ge=0, description="Beta parameter of CutMix; 0: off.")
    repeats: PositiveInt = Field(
        default=1, description="Augmented clips drawn from one decode (repeated augmentation)."
    )


class Recipe(Strict):
    """The training loop of a data set, the same for every method."""

    epochs: PositiveInt
    warmup_epochs: float = Field(default=0, ge=0)
    batch_size: PositiveInt = Field(description="Videos per optimizer step, whatever the number of devices.")
    micro_batch: PositiveInt | None = Field(default=None, description="Videos per forward pass; null: the whole batch.")
    label_smoothing: Fraction = 0.1
    clip_grad: float | None = Field(default=None, gt=0, description="Largest gradient norm; null: not clipped.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 autocast on GPU, float32 on CPU."
    )
    augmentation: Augmentation = Augmentation()


class Range(Strict):
    """One dimension of a search space: an interval, or a list of choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _interval_or_choices(self) -> Range:
        interval = self.low is not None and self.high is not None
        if interval == (self.choices is not None):
            raise ValueError("give either low and high, or choices")
        if interval and not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if interval and self.log and self.low <= 0:
            raise ValueError(f"a log range must start above 0, not at {self.low}")
        return self


class Hyperparameters(Strict):
    """The shared hyper-parameters; a method adds its own by naming options in its space."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.05, ge=0)
    drop_path: Fraction = Field(default=0.0, description="Drop path rate of the last block (linear from 0).")


class Sweep(Strict):
    """The budget of hyper-parameter search, the same for every method."""

    trials: PositiveInt
    epochs: PositiveInt | None = Field(default=None, description="Epochs of a trial; null: those of the recipe.")
    seed: NonNegativeInt = 0
    workers: PositiveInt = Field(
        default=1, description="Parallel workers of one study; above 1 TPE is not reproducible."
    )
    storage: str = Field(default="journal", description="journal, or the URL of a relational database.")
    space: dict[str, Range] = Field(default={}, description="Shared search space over lr, weight_decay, drop_path.")


class Method(Strict):
    """A tuning method of the benchmark: its options and what it adds to (or narrows in) the shared search space."""

    options: dict[str, Any] = {}
    space: dict[str, Range] = {}


# -- backbone --------------------------------------------------------------------------------------------------------


class Architecture(Strict):
    """A VideoMamba that is not one of the published sizes."""

    embed_dim: PositiveInt
    depth: PositiveInt
    patch_size: PositiveInt = 16


class Pretrain(Strict):
    """Demo only: pre-training on generated source classes, disjoint from the classes of every data set."""

    seed: NonNegativeInt
    clips: PositiveInt = Field(description="Generated training clips.")
    held_out: PositiveInt = Field(description="Generated clips that measure the result.")
    steps: PositiveInt
    batch_size: PositiveInt
    lr: float = Field(gt=0)
    warmup: Fraction = Field(default=0.1, description="Share of the steps that warm up.")
    weight_decay: float = Field(default=0.05, ge=0)
    clip_grad: float = Field(default=1.0, gt=0)


class Checkpoint(Strict):
    """Where a pre-trained backbone comes from: addresses, a local file, or a pre-training run."""

    num_frames: PositiveInt
    archive: Archive | None = None
    local: Path | None = Field(default=None, description="A file that is already here; nothing is fetched then.")
    pretrain: Pretrain | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        if sum(x is not None for x in (self.archive, self.local, self.pretrain)) != 1:
            raise ValueError("give exactly one of archive, local, pretrain")
        return self


class Backbone(Strict):
    """The pre-trained video state-space model that every method tunes."""

    architecture: Literal["videomamba_tiny", "videomamba_small", "videomamba_middle"] | Architecture
    image_size: PositiveInt
    checkpoints: dict[Name, Checkpoint]


# -- the benchmark ---------------------------------------------------------------------------------------------------


class Dataset(Strict):
    """One data set: where it comes from, how it is read, and how models are trained on it."""

    source: str = Field(description="Module under ssp/data/sources that knows layout and annotation format.")
    expected: Expected
    archives: list[Archive] = Field(min_length=1)
    local: Path | None = Field(
        default=None, description="Folder that holds these archives already; nothing is fetched."
    )
    licence_page: str | None = Field(
        default=None, description="Where a person accepts the licence and downloads archives that have no urls."
    )
    generate: Generate | None = None
    split: PositiveInt = Field(default=1, description="Number of the published split.")
    validation: Validation = Validation()
    frames: Frames
    clips: Clips
    checkpoint: Name = Field(description="Which of backbone.checkpoints is tuned.")
    recipe: Recipe
    start: Hyperparameters = Field(description="First trial of every study: the published setting, or a sensible one.")


class Tracking(Strict):
    """MLflow: a database of its own under results/<name>/mlflow, or a server."""

    uri: str | None = Field(default=None, description="Tracking address; null: SQLite under results/<name>/mlflow.")
    experiment: str | None = Field(default=None, description="null: the config's name.")


class Compute(Strict):
    """Threads, memory, time and GPUs that one kind of job asks for."""

    threads: PositiveInt = 1
    mem_mb: PositiveInt = 2000
    runtime: PositiveInt = Field(default=60, description="Minutes.")
    gpus: int = Field(default=0, ge=0)
    loader_workers: int = Field(default=0, ge=0, description="Processes that prepare clips; 0: in the job itself.")


class ComputePlan(Strict):
    """What each stage of the workflow asks for; retries ask for more memory and time."""

    data: Compute = Compute()
    pretrain: Compute = Compute()
    train: Compute = Compute()


class Quirks(Strict):
    """Defects of the published code as options; null follows `protocol`. Facts: README, 'How faithful is it'."""

    entropy_norm: Quirk | None = Field(default=None, description="SSP's gate: maximum over the batch, or per clip.")
    validation_window: Quirk | None = Field(default=None, description="Dense validation window one window too early.")
    merge_ids: Quirk | None = Field(default=None, description="Views merged by file stem, or by full video id.")


class Config(Strict):
    """A whole benchmark: data sets x methods x seeds on one backbone."""

    name: Name = Field(description="Results go to results/<name>.")
    title: str = Field(description="One line for tables and reports: what these numbers are.")
    data_root: Path = Field(description="Folder of archives, videos, manifests and frames.")
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


SOURCES = ("hmdb51", "ucf101", "ssv2", "breakfast")


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


def parse_config(data: Any, origin: str) -> Config:  # noqa: ANN401 - whatever a YAML file holds
    """Check a config that was already read.

    Args:
        data: the parsed YAML.
        origin: name of the file, for the error message.

    Raises:
        ConfigError: one line with the first wrong key and what is expected there.
    """
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{origin}: a config is a mapping of keys, this is {found}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from None


def load_config(path: str | Path) -> Config:
    """Read and check a config file.

    Raises:
        ConfigError: the file is missing, not YAML, or wrong in a key that the message names.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a config file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text (UTF-8); a config is a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where} ({getattr(error, 'problem', error)})") from None
    return parse_config(data, str(path))


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    # A union reports each alternative it tried as a path component; the user wrote only the keys.
    keys = [str(part) for part in first["loc"] if "[" not in str(part) and part not in _UNION_PARTS]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{'.'.join(keys)}: unknown key; remove it or mend the spelling{more}"
    if first["type"] == "missing":
        return f"{'.'.join(keys)}: missing; this key must be given{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | list) or not keys else f", not {first['input']!r}"
    return f"{'.'.join(keys)}: {message}{given}{more}" if keys else f"{message}{more}"


_UNION_PARTS = {"Architecture"}
