"""What the rules share: how the library is called, what jobs ask for, and which files make a cell."""

# With conda, or in a container, the interpreter of that; else the one that runs snakemake, whether or not it is on PATH.
CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
PYTHON = "python" if CONDA or CONTAINED else sys.executable
ENVIRONMENT = os.path.join(ROOT, cfg.environment)

# Jobs import the library from here, also when --directory puts data and results elsewhere.
shell.prefix("export PYTHONPATH='{ROOT}'${{PYTHONPATH:+:$PYTHONPATH}}; ")


wildcard_constraints:
    dataset="|".join({**cfg.datasets, **cfg.archived}),
    method="|".join(map(re.escape, cfg.rows)),
    ablation="|".join(cfg.ablations),
    backbone="|".join(cfg.backbone.checkpoints),
    seed=r"\d+",
    study=r"\d+",
    shard=r"\d+",
    worker=r"\d+",


def ssp(*commands, launcher=""):
    """Shell command that calls the library. Interpreter and config file are no params, as they decide no result.

    It is run by `ssp.jobs.run`, which measures it: Snakemake's `benchmark` misses most of a short job.

    Args:
        commands: of the library, one after the other.
        launcher: what starts each of them, several times at once.
    """
    calls = " && ".join(
        f"{launcher}{PYTHON} -m ssp.jobs.run {{log}} {command} --config {paths.config}" for command in commands
    )
    return f"{{{{ {calls}; }}}} > {{log}} 2>&1"


def asked_for(kind, *log, resumes=False, alone=False, more=None):
    """Resources of a job: what `compute.<kind>` says, and once more of what earlier attempts were short of.

    Args:
        kind: section of `compute`.
        log: the parts of the job's log, beside which its attempts are written down.
        resumes: whether an attempt goes on where the one before was; time enough for all is then never needed at once.
        alone: whether one process does it, which needs one GPU of those that the processes of a training have.
        more: other resources, some in place of these.
    """
    compute = getattr(cfg.compute, kind)

    def growing(what, amount, cap):
        def grown(wildcards, attempt):
            if attempt == 1:  # what is told beside the log may be of an earlier start of the workflow
                return amount
            file = Path(str(paths.log(*log)).format_map(dict(wildcards.items())))
            return max(amount, min(amount * growth(file)[what], cap or math.inf))

        return grown

    return {
        "mem_mb": growing(MEMORY, compute.mem_mb, cfg.compute.max_mem_mb),
        "runtime": compute.runtime if resumes else growing(TIME, compute.runtime, cfg.compute.max_runtime),
        "gpu": min(compute.gpus, 1) if alone else compute.gpus,
    } | (more or {})


def more_tries_for_sweeps():
    """Have sweeps go on as often as their time may be up, beside the retries that every job has.

    When the workflow starts, as how its jobs are run is not known before. On a machine of one's own nothing ends a job
    that takes its time.
    """
    if not workflow.local_exec:
        for name in ("search", "sweep"):
            workflow.get_rule(name).restart_times += cfg.tries_of_a_sweep() - 1


def not_on_several_nodes():
    """Why no training can be started on more nodes than one here, and what to do about it; nothing where it can.

    Asked when the workflow starts, as how its jobs are run is not known before.
    """
    if workflow.local_exec:
        return "takes Slurm; add --workflow-profile profiles/slurm"
    if CONTAINED:
        return "takes srun, which images lack; leave out --sdm apptainer"
    arrays = (getattr(workflow.executor_settings, "array_jobs", None) or "").replace(";", ",").split(",")
    if {"all", "train"} & set(map(str.strip, arrays)) or "train" in workflow.group_settings.overwrite_groups:
        return "takes a job for each training; leave train out of --groups and --slurm-array-jobs"
    return None


def section(slice_of, key):
    """One section of a cell's slice as params, so that the reason for a rerun shows that section alone."""
    return lambda wildcards: slice_lines(slice_of(wildcards.dataset, wildcards.method)[key])


told = set()


def anew(output, answer):
    """Input without a file: asks what a job has made, and where that is stale or gone has the job run again.

    Only jobs that are needed are asked. One line says why, for all that are stale for the same reason.
    """

    def asking(wildcards):
        if workflow.is_main_process and (stale := answer(wildcards)):
            workflow.dag.forcefiles.add(str(output).format_map(dict(wildcards.items())))
            if stale.why not in told:
                print(f"Made again, with all like it: {stale.path}: {stale.why}", file=sys.stderr)
            told.add(stale.why)
        return []

    return asking


def backbone_file(wildcards):
    """The pre-trained weights that a data set's models start from."""
    name = cfg.datasets[wildcards.dataset].checkpoint
    weights = cfg.backbone.checkpoints[name]
    if weights.pretrain:
        return paths.backbone(name)
    return paths.fetched_checkpoint(weights.archive.file) if weights.archive else weights.local


def listed_files(wildcards):
    """What a manifest is made from: the list of what was unpacked, or own videos: folders change with what is in them."""
    videos = cfg.datasets[wildcards.dataset].videos
    if videos is None:
        return paths.unpacked(cfg.column_of(wildcards.dataset))
    return [folder for folder, _, _ in os.walk(videos, followlinks=True)] or videos


def frame_store(wildcards):
    """All shards of a data set's frame store."""
    shards = range(cfg.datasets[wildcards.dataset].frames.shards)
    return [paths.shard(wildcards.dataset, shard) for shard in shards]


def choice(wildcards):
    """What a seed is trained from."""
    return paths.choice(wildcards.dataset, cfg.rows[wildcards.method].tuned_as, cfg.study_of(int(wildcards.seed)))


def ablation_records(wildcards):
    """Records and predictions of an ablation's points and of its base row."""
    cells = itertools.product(*cfg.ablation_runs(wildcards.ablation))
    return [path for cell in cells for path in (paths.record(*cell), paths.predictions(*cell))]
