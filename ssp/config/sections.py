"""The sections of a config file: data, training, backbone, and what the workflow asks for. Defaults live here alone."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    WithJsonSchema,
    field_validator,
    model_validator,
)

Quirk = Literal["fixed", "published"]
Precision = Literal["auto", "float32", "bfloat16"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_NUMBER = {"type": "integer", "exclusiveMinimum": 0}
# A file may also hold a list, a number for each split; `ssp.config.splits` takes it apart before anything is checked.
OfSplits = WithJsonSchema({"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER, "minItems": 1}]})
LocalPath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # ~ is the user's home


class Strict(BaseModel):
    """A model without tolerance: unknown keys, silently converted types, infinity and NaN are errors."""

    model_config = ConfigDict(extra="forbid", strict=False, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_has_no_keys(cls, data: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """`linear:` with nothing behind it is what YAML makes of a section whose keys are all left out."""
        return {} if data is None else data


# -- data ------------------------------------------------------------------------------------------------------------


def _one_name(file: str) -> str:
    """A name that stays in its folder, and that no temporary file of ours can have."""
    if not file or file.startswith(".") or "/" in file or not file.isprintable():
        raise ValueError("give the name of one file, without folders, without a dot in front")
    return file


FileName = Annotated[str, AfterValidator(_one_name)]


class Archive(Strict):
    """One file to fetch: the places to try in order, and what proves that it is the right one."""

    file: FileName = Field(description="File name under the data set's `archives/` folder.")
    urls: list[str] = Field(default=[], description="Addresses, tried in order. Empty: never fetched (licence).")
    size: int | None = Field(default=None, gt=0, strict=True, description="Bytes, where known.")
    sha256: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{64}$", description="Checksum, where known.")
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9A-Fa-f]{32}$",
        description="Published checksum of an older kind, where that is all there is.",
    )


class Expected(Strict):
    """What the published data set contains; the manifest is compared with it."""

    classes: PositiveInt = Field(description="Classes of the data set, outputs of the head.")
    train: Annotated[PositiveInt, OfSplits] = Field(
        description="Videos of the training list (before validation is carved from it); a list for a list of splits."
    )
    test: Annotated[PositiveInt, OfSplits] = Field(description="Videos of the test list; a list for a list of splits.")
    # Left out of every copy where it is not given: a manifest does not depend on it then.
    clips: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda clips: clips is None,
        description="Videos among the unpacked files, whether a split uses them or not; null: not compared.",
    )


class Generate(Strict):
    """Demo and rehearsal: a rule generates the archives of this data set from a seed instead of fetching them."""

    seed: NonNegativeInt = Field(description="Of the videos; other data sets should have others.")
    train: PositiveInt = Field(description="Training videos over all classes.")
    test: PositiveInt = Field(description="Test videos over all classes.")
    size: tuple[PositiveInt, PositiveInt] = Field(description="Width and height in pixels.")
    seconds: tuple[float, float] = Field(description="Shortest and longest duration.")
    fps: PositiveInt = Field(description="Frames per second.")
    # Left out of every copy where it is not given: no demo depends on it.
    classes: PositiveInt | None = Field(
        default=None,
        exclude_if=lambda classes: classes is None,
        description="Rehearsal: classes that the lists name; the first and the last have videos. null: the demo's own.",
    )


class CarvedTest(Strict):
    """Own videos without a split: how test is carved from all of them, as validation is from train."""

    fraction: float = Field(
        default=0.25, gt=0, lt=1, description="Share of each class's videos, as nearly as whole groups allow."
    )
    seed: NonNegativeInt = Field(default=0, description="Of the draw of groups.")


class Validation(Strict):
    """How validation is carved from train: whole groups, stratified over classes, seeded."""

    fraction: Fraction = Field(
        default=0.2,
        description="Share of each class's training videos, as nearly as whole groups allow; 0: none, for no search.",
    )
    seed: NonNegativeInt = Field(
        default=0, description="Of the draw of groups, and of the part of the training videos that a rung may take."
    )
    folds: PositiveInt = Field(
        default=1,
        description="Disjoint sets of groups that a trial is validated on, each after a training on all other videos; "
        "the first is the one of 1.",
    )

    @model_validator(mode="after")
    def _folds_fit(self) -> Validation:
        if self.folds * self.fraction > 1 + 1e-9:
            raise ValueError(
                f"folds: {self.folds} of {self.fraction:g} of the videos are more than there are; ask for fewer"
            )
        return self


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
    num_frames: PositiveInt = Field(description="Frames of a clip.")
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
    mix_videos: PositiveInt | None = Field(
        default=None, description="Videos of a step that share a draw of mixup or CutMix (even); null: all of them."
    )
    repeats: PositiveInt = Field(
        default=1, description="Augmented clips drawn from one decode (repeated augmentation)."
    )

    @field_validator("mix_videos")
    @classmethod
    def _whole_pairs(cls, videos: int | None) -> int | None:
        if videos and videos % 2:
            raise ValueError("tears mixing pairs apart; give an even number")
        return videos


class CoBatched(Strict):
    """Which clips share a forward pass in evaluation: what a gate over the batch (published) makes logits depend on."""

    devices: PositiveInt = Field(
        description="Clips are dealt out in turn, one view of all videos after the other, to as many devices' batches."
    )
    validation: PositiveInt = Field(description="Clips of a batch where an epoch is measured.")
    test: PositiveInt = Field(description="Clips of a batch at test.")


class Recipe(Strict):
    """The training loop of a data set, the same for every method."""

    epochs: PositiveInt = Field(description="Passes over the training videos.")
    warmup_epochs: float = Field(default=0, ge=0, description="Epochs in which the learning rate rises to its peak.")
    batch_size: PositiveInt = Field(description="Videos per optimizer step, whatever the number of devices.")
    micro_batch: PositiveInt | None = Field(default=None, description="Videos per forward pass; null: the whole batch.")
    co_batched: CoBatched | None = Field(
        default=None, description="Batches of evaluation; null: clips in order, twice as many as videos a forward pass."
    )
    label_smoothing: Fraction = Field(default=0.1, description="Share of the label that all classes get equally.")
    clip_grad: float | None = Field(default=None, gt=0, description="Largest gradient norm; null: not clipped.")
    precision: Precision = Field(default="auto", description="auto: bfloat16 autocast on GPU, float32 on CPU.")
    augmentation: Augmentation = Field(default=Augmentation(), description="Training-time transforms.")

    @property
    def warmup_share(self) -> float:
        """Share of a training that warms up, however many epochs it has."""
        return min(self.warmup_epochs / self.epochs, 1.0)


class Range(Strict):
    """One dimension of a search space: an interval, or a list of choices."""

    low: float | None = Field(default=None, description="Lower end of an interval.")
    high: float | None = Field(default=None, description="Upper end of an interval.")
    log: bool = Field(default=False, description="Draw the logarithm uniformly.")
    choices: list[Any] | None = Field(default=None, description="Values to choose from, instead of an interval.")

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
    weight_decay: float = Field(default=0.05, ge=0, description="Of matrices; biases and vectors have none.")
    drop_path: Fraction = Field(default=0.0, description="Drop path rate of the last block (linear from 0).")


T = TypeVar("T")
OrEmpty = Annotated[T, BeforeValidator(lambda given: {} if given is None else given)]  # as for whole sections
Space = OrEmpty[dict[str, Range]]


class Rung(Strict):
    """A rung of successive halving: the first proposes its trials, each next one trains the best of the one before."""

    trials: PositiveInt = Field(description="How many; fewer in each next rung.")
    epochs: Share = Field(
        default=1.0, description="Share of the recipe's epochs, rounded up to whole ones, with a full schedule in them."
    )
    videos: Share = Field(default=1.0, description="Share of each class's training videos, the same in all trials.")


class Budget(Strict):
    """A rung as it is on a data set, and what every method gets there."""

    trials: NonNegativeInt
    epochs: PositiveInt
    videos: Share = 1.0


def _halving(rungs: list[Rung] | None) -> list[Rung] | None:
    """Each rung has fewer trials than the one before."""
    if rungs == []:
        raise ValueError("give at least one rung, or leave it out")
    for number, (before, rung) in enumerate(pairwise(rungs or []), 2):
        if rung.trials >= before.trials:
            raise ValueError(
                f"rung {number} trains the best {rung.trials} of the {before.trials} trials before it; give it fewer"
            )
    return rungs


Fidelity = Annotated[list[Rung] | None, AfterValidator(_halving)]


class Sweep(Strict):
    """The budget of hyper-parameter search, the same for every method."""

    trials: NonNegativeInt | None = Field(
        default=None,
        description="Trials of each study; the first is the row's start, which is taken as it is where this is 0. "
        "Needed where there is no `fidelity`.",
    )
    epochs: PositiveInt | None = Field(default=None, description="Epochs of a trial; null: those of the recipe.")
    fidelity: Fidelity = Field(
        default=None,
        description="In place of trials and epochs: rungs of successive halving, cheap ones first; the choice is the "
        "best trial of the last.",
    )
    repeats: PositiveInt = Field(
        default=1,
        description="Independent studies of each row on each data set; seed i trains from study i modulo this. "
        "Above 1 a claim counts studies, and so the variance of choosing.",
    )
    seed: NonNegativeInt = Field(default=0, description="Of proposals, and of every trial's training.")
    workers: PositiveInt = Field(
        default=1,
        description="Jobs that search together in one study, wherever they run; above 1 TPE is not reproducible.",
    )
    storage: str = Field(
        default="journal",
        description="journal, or the URL of a relational database; env:NAME: it is in this environment variable.",
    )
    space: Space = Field(default={}, description="Shared search space over lr, weight_decay, drop_path.")

    @model_validator(mode="after")
    def _one_budget(self) -> Sweep:
        if self.fidelity and (twice := [key for key in ("trials", "epochs") if getattr(self, key) is not None]):
            raise ValueError(f"fidelity says what {' and '.join(twice)} would; remove one or the other")
        return self


class Start(Strict):
    """Where a row's search starts. What is left out is the data set's `start`."""

    lr: float | None = Field(default=None, gt=0, description="Peak learning rate.")
    weight_decay: float | None = Field(default=None, ge=0, description="Of matrices.")
    drop_path: Fraction | None = Field(default=None, description="Drop path rate of the last block.")


class Method(Strict):
    """A row of the tables: a named setting of a tuning method, and where its hyper-parameters are searched."""

    method: str | None = Field(default=None, description="The tuning method, as registered; null: the row's name.")
    title: str | None = Field(
        default=None,
        min_length=1,
        description="What tables and figures print; null: the name, of a known method as one writes it.",
    )
    published: Literal[False] | str | None = Field(
        default=None, description="Which of the paper's rows it stands beside; null: that of its name; false: none."
    )
    options: OrEmpty[dict[str, Any]] = Field(default={}, description="Options of the method that differ from its own.")
    space: Space = Field(default={}, description="Over shared hyper-parameters and options; goes before `sweep.space`.")
    start: OrEmpty[Start] = Field(default=Start(), description="First trial; goes before `start` of the data set.")
    starts: OrEmpty[dict[Name, Start]] = Field(default={}, description="By data set; goes before `start`.")


class AblationPoint(Strict):
    """One point of an ablation: options that differ from the base row's."""

    title: str | None = Field(default=None, min_length=1, description="What tables print; null: the options.")
    options: dict[str, Any] = Field(min_length=1, description="Options that differ from those of the base row.")


class Ablation(Strict):
    """Trainings that differ from a row in options of its method, each compared with that row."""

    title: str = Field(min_length=1, description="One line for tables, figures and the report.")
    of: Name = Field(description="The base row, one of `methods`.")
    vary: list[AblationPoint] | dict[str, list[Any]] = Field(
        min_length=1, description="Named points; or one option with its values; or two options, for a grid of both."
    )
    hyperparameters: Literal["inherit", "search"] = Field(
        default="inherit", description="inherit: those that the base row's study chose; search: a study for each point."
    )
    datasets: list[Name] | None = Field(default=None, min_length=1, description="Fewer data sets; null: all.")
    seeds: list[NonNegativeInt] | None = Field(default=None, min_length=1, description="Fewer seeds; null: all.")

    @field_validator("vary", mode="before")
    @classmethod
    def _either(cls, vary: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
        """One sentence here, in place of what either of the two shapes would say."""
        if not isinstance(vary, list | dict) or (isinstance(vary, dict) and not 1 <= len(vary) <= 2):
            raise ValueError("give a list of points, or one or two options with a list of values each")
        axes = vary.items() if isinstance(vary, dict) else ()
        wrong = [name for name, values in axes if not isinstance(values, list) or not values]
        if wrong:
            raise ValueError(f"'{wrong[0]}' needs a list of values, such as {wrong[0]}: [1, 2]")
        return vary


# -- backbone --------------------------------------------------------------------------------------------------------


class Architecture(Strict):
    """A VideoMamba that is not one of the published sizes."""

    embed_dim: PositiveInt = Field(description="Width of a token, D.")
    depth: PositiveInt = Field(description="Blocks.")
    patch_size: PositiveInt = Field(default=16, description="Side of a square patch in pixels.")


class Pretrain(Strict):
    """Demo only: pre-training on generated source classes, disjoint from the classes of every data set."""

    seed: NonNegativeInt = Field(description="Of the clips and of the training.")
    clips: PositiveInt = Field(description="Generated training clips.")
    held_out: PositiveInt = Field(description="Generated clips that measure the result.")
    steps: PositiveInt = Field(description="Optimizer steps.")
    batch_size: PositiveInt = Field(description="Clips per optimizer step.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    warmup: Fraction = Field(default=0.1, description="Share of the steps that warm up.")
    weight_decay: float = Field(default=0.05, ge=0, description="As in `start`.")
    clip_grad: float = Field(default=1.0, gt=0, description="Largest gradient norm.")


class Checkpoint(Strict):
    """Where a pre-trained backbone comes from: addresses, a local file, or a pre-training run."""

    num_frames: PositiveInt = Field(description="Frames of the clips that it was pre-trained on.")
    archive: Archive | None = Field(default=None, description="A file to fetch.")
    local: LocalPath | None = Field(default=None, description="A file that is already here; nothing is fetched then.")
    pretrain: Pretrain | None = Field(default=None, description="A run on generated source classes.")

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        if sum(x is not None for x in (self.archive, self.local, self.pretrain)) != 1:
            raise ValueError("give exactly one of archive, local, pretrain")
        return self


class Backbone(Strict):
    """The pre-trained video state-space model that every method tunes."""

    architecture: Literal["videomamba_tiny", "videomamba_small", "videomamba_middle"] | Architecture = Field(
        description="A published size, or a mapping of embed_dim, depth and patch_size."
    )
    image_size: PositiveInt = Field(description="Side of the square clips in pixels.")
    checkpoints: dict[Name, Checkpoint] = Field(
        description="Pre-trained weights by name; data sets say which they tune."
    )


# -- the benchmark ---------------------------------------------------------------------------------------------------


class Dataset(Strict):
    """One data set: where it comes from, how it is read, and how models are trained on it."""

    source: str = Field(description="Module under ssp/data/sources that knows layout and annotation format.")
    expected: Expected | None = Field(
        default=None,
        description="What the data set contains. Without it, which own videos alone may be, what is there is taken.",
    )
    archives: list[Archive] = Field(default=[], description="Files that a published data set comes in.")
    videos: LocalPath | None = Field(
        default=None,
        description="Own videos in place of archives: their folder (source `folder`) or a CSV beside them (source "
        "`table`). They are read where they are.",
    )
    layout: str | None = Field(
        default=None,
        description="Source `folder` alone: how paths below it read; null: `{class}/**`, or `{split}/{class}/**`.",
    )
    test: CarvedTest | None = Field(
        default=None, description="Own videos without a split: how test is carved; null: the split is there."
    )
    local: LocalPath | None = Field(
        default=None,
        description="Folder that holds these archives already, or folders of their names; nothing is fetched.",
    )
    licence_page: str | None = Field(
        default=None, description="Where a person accepts the licence and downloads archives that have no urls."
    )
    generate: Generate | None = Field(default=None, description="Demo and rehearsal: make the archives from a seed.")
    split: Annotated[PositiveInt, OfSplits] = Field(
        default=1,
        description="Number of the published split. A list: each is trained on, and tables show the mean over them.",
    )
    # Left out of every copy where it is not given, and decides nothing that `split` does not.
    split_of: Name | None = Field(
        default=None,
        exclude_if=lambda name: name is None,
        description="Set by a list of splits: the data set that this is a split of.",
    )
    stereo_channels: Literal[1, 2] = Field(
        default=1, description="Breakfast alone: channels of its stereo camera that are listed; the lists have one."
    )
    validation: Validation = Field(default=Validation(), description="How validation is carved from train.")
    frames: Frames = Field(description="The frame store.")
    clips: Clips = Field(description="Which frames make a clip.")
    checkpoint: Name = Field(description="Which of backbone.checkpoints is tuned.")
    recipe: Recipe = Field(description="The training loop.")
    fidelity: Fidelity = Field(
        default=None, description="Rungs of the search on this data set; go before what `sweep` says."
    )
    start: Hyperparameters = Field(
        description="First trial of rows that say nothing else; drop path and weight decay of all without a search."
    )

    @field_validator("archives")
    @classmethod
    def _each_once(cls, archives: list[Archive]) -> list[Archive]:
        files = [archive.file for archive in archives]
        twice = next((file for file in files if files.count(file) > 1), None)
        if twice:
            raise ValueError(f"'{twice}' is there twice; remove one")
        return archives


class Tracking(Strict):
    """MLflow: a database of its own under results/<name>/mlflow, or a server."""

    uri: str | None = Field(
        default=None,
        description="Tracking address; null: SQLite under results/<name>/mlflow; env:NAME: it is in this environment "
        "variable.",
    )
    experiment: str | None = Field(default=None, description="null: the config's name.")


class Compute(Strict):
    """Threads, memory, time and GPUs that one kind of job asks for."""

    threads: PositiveInt = Field(default=1, description="CPU cores.")
    mem_mb: PositiveInt = Field(default=2000, description="Memory in MB.")
    runtime: PositiveInt = Field(default=60, description="Minutes.")
    gpus: int = Field(default=0, ge=0, description="GPUs; 0: CPU.")
    loader_workers: int = Field(default=0, ge=0, description="Processes that prepare clips; 0: in the job itself.")
    save_minutes: float = Field(
        default=10, gt=0, description="Within an epoch, a training keeps what it continues from this often."
    )


class ParallelCompute(Compute):
    """What a job asks for whose trainings several processes may share; together they have all of it."""

    processes: PositiveInt = Field(
        default=1,
        description="That compute one training together on CPUs, and share its threads, memory and loader_workers; "
        "with `gpus` there is one a GPU. Results are equal but for rounding.",
    )


class TrainCompute(ParallelCompute):
    """What a training asks for on each of its nodes."""

    nodes: PositiveInt = Field(
        default=1,
        description="That compute one training together, as one job of Slurm. Each has what the other keys say: with 4 "
        "`gpus` (or `processes`) and 2 nodes there are 8 processes, and each node gives `mem_mb`.",
    )


class ComputePlan(Strict):
    """What each kind of job asks for; a job that was short of memory or time is tried again with more of it."""

    data: Compute = Field(default=Compute(), description="Generating, unpacking, listing, decoding, compiling.")
    pretrain: ParallelCompute = Field(default=ParallelCompute(), description="Pre-training of a demo's backbone.")
    train: TrainCompute = Field(
        default=TrainCompute(), description="Trainings, costs, explanations; runtime: of one training."
    )
    sweep: ParallelCompute = Field(
        default=None,
        description="Sweeps, and each of `sweep.workers`, on one node; each key that is left out is as `train` has it. "
        "runtime is for one try, as the next goes on.",
    )
    cost_rounds: PositiveInt = Field(
        default=5, description="How often `costs` times each row at least, after a first time to warm up."
    )
    max_mem_mb: PositiveInt | None = Field(
        default=None, description="What tries after too little memory grow to at most; null: no end."
    )
    max_runtime: PositiveInt | None = Field(
        default=None, description="Minutes that tries after too little time grow to at most; null: no end."
    )
    stage_to: str | None = Field(
        default=None,
        description="Folder on each node's own disk, such as `/local/$USER` or `$TMPDIR` (variables are the node's): a "
        "job that reads frames copies its data set's store there first, unless another has, and reads the copy. Where "
        "there is no room, and none can be made, it reads the store itself, as all do with null.",
    )

    @field_validator("stage_to")
    @classmethod
    def _on_the_node(cls, stage_to: str | None) -> str | None:
        if stage_to is not None and not stage_to.startswith(("/", "$")):
            raise ValueError("give an absolute path, or one that begins with a variable, as in $TMPDIR")
        return stage_to

    @model_validator(mode="after")
    def _sweeps_as_trainings(self) -> ComputePlan:
        given = self.sweep.model_dump(exclude_unset=True) if self.sweep else {}
        sweep = ParallelCompute.model_validate(self.train.model_dump(exclude={"nodes"}, exclude_unset=True) | given)
        object.__setattr__(self, "sweep", sweep)  # frozen for all others
        return self

    @model_validator(mode="after")
    def _room_for_processes(self) -> ComputePlan:
        for kind in ("pretrain", "train", "sweep"):
            compute = getattr(self, kind)
            if compute.processes > 1 and compute.gpus:
                raise ValueError(f"{kind}.processes: with gpus there is one a GPU; leave processes out")
            if compute.processes > compute.threads:
                raise ValueError(
                    f"{kind}.processes: {compute.processes} share {compute.threads} threads; give each at least one"
                )
        return self


class Quirks(Strict):
    """Defects of the published code as options; null follows `protocol`. Facts: docs/fidelity.md."""

    entropy_norm: Quirk | None = Field(default=None, description="SSP's gate: maximum over the batch, or per clip.")
    validation_window: Quirk | None = Field(default=None, description="Dense validation window one window too early.")
    short_videos: Quirk | None = Field(
        default=None,
        description="Sparse clips of too short videos: the first frame alone, or all (not in test).",
    )
    frame_norm: Quirk | None = Field(default=None, description="STOP's frame scores: range of the batch, or per clip.")
    merge_ids: Quirk | None = Field(default=None, description="Views merged by file stem, or by full video id.")
    best_epoch: Quirk | None = Field(
        default=None, description="Weights of the epoch that is best on the test list (it chooses), or of the last."
    )
