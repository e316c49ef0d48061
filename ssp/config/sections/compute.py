"""What jobs ask for, and where they report their runs."""

from __future__ import annotations

from pydantic import Field, PositiveInt, field_validator, model_validator

from ssp.config.sections.common import Strict


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
        default=10,
        gt=0,
        description="Of `train` and `sweep`: within an epoch, a training keeps what it continues from this often.",
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
        description="Sweeps, and each of `sweep.workers`, on one node; each key that is left out is as `train` has it, "
        "but `processes` 1 with `gpus`, and no more than `threads`. runtime is for one try, as the next goes on.",
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
        if "processes" not in given:  # what trainings have may be more than there is room for
            fit = 1 if sweep.gpus else min(sweep.processes, sweep.threads)
            sweep = sweep.model_copy(update={"processes": fit})
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
