"""The result record of a run: the one truth that tables, statistics and figures are made from.

Design choices
- One JSON file per (data set, method, seed), checked against these models whenever it is written or read.
- What may differ between two runs of the same thing (time, host, memory, tracking ids) stands apart under `run`; all
  other keys are equal bytes for the same commit, config, seed and machine.
- A failed cell has a record too: status "failed", a reason, no metrics.
- Predictions and weights of a finished run are sealed: their checksums are here, and whoever reads predictions asks.
- What was read of test is counted here, and remembered over records in `ssp.records.readings`.
- Light: no torch, so that tables are made in an instant.
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssp.config.problems import problems
from ssp.errors import RecordError
from ssp.files import write_json

T = TypeVar("T", bound=BaseModel)
SCHEMA_VERSION = 1
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "lmdb",
    "av",
    "decord",
    "optuna",
    "mlflow",
    "triton",
    "mamba-ssm",
    "selective-scan-cuda",
    "matplotlib",
)


class Stored(BaseModel):
    """Part of a JSON file under results: no key that is not known, and no change once it is there."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Chosen(Stored):
    """Hyper-parameters of one training run."""

    lr: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(ge=0)
    drop_path: float = Field(ge=0, le=1)
    options: dict[str, Any] = Field(default={}, description="Method options, those of the config included.")


class SweepSummary(Stored):
    """How the hyper-parameters were found: the budget spent, and what it gave."""

    trials: int = Field(description="Finished trials: completed, pruned and failed ones.")
    completed: int
    pruned: int
    failed: int
    best_value: float | None = Field(description="Validation top-1 of the chosen trial, percent.")


class Git(Stored):
    """State of the code."""

    commit: str
    dirty: bool | None = Field(description="Uncommitted changes; null where git cannot tell.")


class Scan(Stored):
    """Selective-scan backend that was used, and why."""

    backend: str
    reason: str


class Parameters(Stored):
    """Parameter counts as `ssp.parameter_counts` gives them."""

    total: int
    trainable: int
    tuned: int | None = Field(default=None, description="Trainable without head and final norm; null: not noted.")
    extra: int
    head: int


class Epoch(Stored):
    """One epoch of the training curves; accuracies in percent."""

    epoch: int = Field(description="Counted from 1.")
    lr: float = Field(description="Learning rate of the last step.")
    train_loss: float
    val_loss: float | None = Field(default=None, description="null: trained on validation videos, too.")
    val_top1: float | None = None


class BestEpoch(Stored):
    """Which epoch's weights were tested, where not the last one's, and which list chose it (by its `val_top1`)."""

    epoch: int = Field(description="Counted from 1; the first of equally good ones.")
    measured_on: Literal["test"] = Field(description="The list of `val_loss` and `val_top1`, one view a video.")


class Metrics(Stored):
    """Test metrics, a function of the predictions file; and validation at the epoch tested. Percent where accuracy."""

    top1: float
    top5: float
    correct: int
    videos: int
    views: int = Field(description="Rows of the predictions file that were merged.")
    val_top1: float | None = Field(default=None, description="null: trained on validation videos, too.")
    val_loss: float | None = None


class PredictionsFile(Stored):
    """Where the predictions lie, and the seal that proves that they are these."""

    path: str
    sha256: str


class Moment(Stored):
    """When test was read, and by which code."""

    at: str = Field(description="UTC, ISO 8601.")
    commit: str


class EarlierChoice(Stored):
    """Another choice, from which test had been read before."""

    config_hash: str
    hyperparameters: Chosen
    test_readings: int


class Run(Stored):
    """What may differ between two runs of the same thing; no table depends on it."""

    started: str = Field(description="UTC, ISO 8601; of a continued training the last start.")
    seconds: float = Field(description="Since then, and what earlier processes took for what this one went on from.")
    seconds_before: float = Field(default=0.0, description="Of `seconds`, those before the last start.")
    epoch_seconds: list[float] = []
    test_seconds: float | None = None
    resumed_after_epoch: int | None = Field(default=None, description="Epochs done before the last start; null: none.")
    host: str
    processes: int = Field(default=1, description="That computed the training together.")
    largest_pass: int | None = Field(default=None, description="Videos, where memory did not hold a micro-batch.")
    peak_memory_mb: float = Field(description="Largest resident memory of the process; of several, of the first.")
    peak_gpu_memory_mb: float | None = None
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None


class Record(Stored):
    """The result of one (data set, method, seed)."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["ok", "failed"]
    reason: str | None = Field(default=None, description="Why it failed.")
    dataset: str
    method: str
    seed: int
    config: dict[str, Any] = Field(description="The cell's slice of the config, everything resolved.")
    config_hash: str
    hyperparameters: Chosen | None = Field(description="null: the sweep found none.")
    sweep: SweepSummary
    git: Git
    versions: dict[str, str]
    device: str
    scan: Scan | None = None
    manifest_hash: str
    backbone_hash: str | None = Field(default=None, description="Of the pre-trained weights' file; null: not noted.")
    epochs: int = Field(description="Epochs trained.")
    best_epoch: BestEpoch | None = Field(default=None, description="null: the last one; quirk `best_epoch`.")
    parameters: Parameters | None = None
    metrics: Metrics | None = None
    curves: list[Epoch] = []
    predictions: PredictionsFile
    weights_sha256: str | None = Field(default=None, description="Of the file of tuned weights; null: not noted.")
    test_readings: int | None = Field(
        default=None, description="Finished readings of test from this choice; 0: failed before; null: not noted."
    )
    rereadings: list[Moment] = Field(default=[], description="Those of them that `ssp evaluate` made.")
    earlier_test_readings: list[EarlierChoice] = Field(
        default=[], description="Other choices of this run that test was read from before."
    )
    run: Run

    @property
    def read_before(self) -> int:
        """How often test had been read from other choices before."""
        return sum(choice.test_readings for choice in self.earlier_test_readings)

    @model_validator(mode="after")
    def _status_says_all(self) -> Record:
        if self.status == "ok" and (self.metrics is None or self.parameters is None or self.hyperparameters is None):
            raise ValueError("status ok needs metrics, parameters and hyperparameters")
        if self.status == "failed" and not self.reason:
            raise ValueError("status failed needs a reason")
        return self


def save_record(record: Record, path: str | Path) -> None:
    """Write a record atomically."""
    write_json(path, record.model_dump(mode="json"))


def load_record(path: str | Path, again: str = "run the workflow again") -> Record:
    """Read and check one record; `again` is what to do where it is none.

    Raises:
        RecordError: the file is missing, not JSON, or against the schema; the message names file and key.
    """
    return load_checked(Record, path, "record", again)


def load_records(folder: str | Path) -> list[Record]:
    """All records under `results/<config>/records`, sorted by data set, method and seed.

    Raises:
        RecordError: the first broken record, and how many more there are; or one that lies under another's name.
    """
    records, problems = [], []
    for path in sorted(Path(folder).glob("*/*/seed*.json")):
        try:
            record = load_record(path)
            where = (path.parent.parent.name, path.parent.name, path.stem)
            if where != (record.dataset, record.method, f"seed{record.seed}"):
                raise RecordError(
                    f"{path}: holds the record of {record.dataset}/{record.method}/seed{record.seed}; "
                    "delete it and run the workflow again"
                )
            records.append(record)
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError(problems[0] + (f" (and {len(problems) - 1} more broken)" if len(problems) > 1 else ""))
    return sorted(records, key=lambda record: (record.dataset, record.method, record.seed))


def load_checked(model: type[T], path: str | Path, what: str, again: str) -> T:
    """Read a JSON file into a pydantic model; every problem is one line that names the file, the key and the fix."""
    try:
        return model.model_validate_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such {what}; {again}") from None
    except OSError as error:
        raise RecordError(f"{path}: this {what} cannot be read ({error.strerror}); mend that and {again}") from None
    except ValidationError as error:
        raise RecordError(f"{path}: not a valid {what}: {problems(error, model)}; delete it and {again}") from None


def git_state(folder: str | Path | None = None) -> Git:
    """Commit of the code and whether it was changed since; "unknown" without git or outside a repository.

    Args:
        folder: repository root; by default the folder that holds the package `ssp`.
    """
    folder = Path(folder or Path(__file__).resolve().parents[2]).resolve()
    try:
        top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != folder:  # installed into an environment inside somebody else's repository
            return Git(commit="unknown", dirty=None)
        return Git(commit=commit, dirty=bool(_git(folder, "status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return Git(commit="unknown", dirty=None)


@cache
def running_code() -> Git:
    """The code that this process runs: as it was when first asked, whatever is edited or committed meanwhile."""
    return git_state()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results may depend on."""
    found = {name: _installed(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: text for name, text in found.items() if text is not None}


@cache  # a search through the environment
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # optional, or not in this environment
