"""One study per (data set, method), or several: the same budget for each, chosen on validation videos only."""

TRACKING = paths.results / "tracking.done"


# Several processes that meet a new MLflow database at once break it, so one job makes it before any other writes. It has
# no params: no result depends on it, and a job that finds another `tracking` in the config prepares that itself. Its output
# appears when Snakemake calls it finished: of a job that was killed with its output there, Snakemake would run that job
# and nothing behind it, as what is behind takes it as `ancient`.
# With conda this was planned without torch, hence without asking the methods about their options (see Snakefile): this first
# job does, before hours are spent on data.
rule init_tracking:
    output:
        touch(TRACKING),
    log:
        paths.log("init_tracking"),
    localrule: True
    conda:
        ENVIRONMENT
    message:
        "Preparing the MLflow database"
    shell:
        ssp(*(["check"] if CONDA or CONTAINED else []), "tracking init")


# The number of a study stands in its files' names where there are several of a row.
STUDY = ["{study}"] if cfg.sweep.repeats > 1 else []
study = lambda wildcards: int(wildcards.study) if STUDY else None
OPTION = " --study {wildcards.study}" if STUDY else ""
WHICH = ", study {wildcards.study}" if STUDY else ""


# What a search reads: data, backbone, and what decides its outcome.
SEARCHED = {
    "manifest": paths.manifest("{dataset}"),
    "frames": frame_store,
    "backbone": backbone_file,
    "scan": ancient(SCAN),
    "tracking": ancient(TRACKING),
}
DECIDING = {key: section(cfg.sweep_slice, key) for key in ("dataset", "backbone", "method", "sweep")}


# One of several that search together (`sweep.workers`): it takes trials of the study as long as there are some. What it
# leaves is gone with the choice, so that who asks for another choice has all of them search.
rule search:
    input:
        **SEARCHED,
    output:
        temp(paths.worker("{dataset}", "{method}", "{worker}", *STUDY)),
    log:
        paths.log("search", "{dataset}", "{method}", *STUDY, "worker{worker}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.sweep.threads
    resources:
        **asked_for("sweep", "search", "{dataset}", "{method}", *STUDY, "worker{worker}", resumes=True),
    params:
        **DECIDING,
    message:
        f"Searching hyper-parameters of {{wildcards.method}} on {{wildcards.dataset}}{WHICH}: worker {{wildcards.worker}}"
    shell:
        ssp(
            f"sweep --dataset {{wildcards.dataset}} --method {{wildcards.method}}{OPTION} --worker {{wildcards.worker}}"
        )


# All trials of a study share a process where one job searches: importing torch and MLflow costs more than a short trial.
rule sweep:
    input:
        **SEARCHED,
        workers=lambda wildcards: [
            paths.worker(wildcards.dataset, wildcards.method, worker, study(wildcards))
            for worker in cfg.workers(wildcards.dataset)
        ],
        anew=anew(
            paths.choice("{dataset}", "{method}", *STUDY),
            lambda wildcards: asked.choice(wildcards.dataset, wildcards.method, study(wildcards)),
        ),
    output:
        paths.choice("{dataset}", "{method}", *STUDY),
    log:
        paths.log("sweep", "{dataset}", "{method}", *STUDY),
    conda:
        ENVIRONMENT
    threads: cfg.compute.sweep.threads
    resources:
        **asked_for("sweep", "sweep", "{dataset}", "{method}", *STUDY, resumes=True),
    params:
        **DECIDING,
    message:
        f"Choosing hyper-parameters of {{wildcards.method}} on {{wildcards.dataset}}{WHICH}"
    shell:
        ssp(f"sweep --dataset {{wildcards.dataset}} --method {{wildcards.method}}{OPTION}")
