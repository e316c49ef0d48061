"""One study per (data set, method): the same number of trials for each, chosen on validation videos only."""

TRACKING = paths.mlflow / "ready.json"


# Several processes that meet a new MLflow database at once break it, so one job makes it before any other writes.
rule init_tracking:
    output:
        TRACKING,
    log:
        paths.log("init_tracking"),
    benchmark:
        paths.benchmark("init_tracking")
    localrule: True
    conda:
        ENVIRONMENT
    params:
        uri=cfg.tracking.uri or "",
        experiment=cfg.tracking.experiment or cfg.name,
    message:
        "Preparing the MLflow database"
    shell:
        "{SSP} tracking init --config {CONFIG} > {log} 2>&1"


# All trials of a study share a process: importing torch and MLflow costs more than a short trial.
rule sweep:
    input:
        manifest=paths.manifest("{dataset}"),
        frames=frame_store,
        backbone=backbone_file,
        scan=ancient(SCAN),
        tracking=ancient(TRACKING),
    output:
        paths.choice("{dataset}", "{method}"),
    log:
        paths.log("sweep", "{dataset}", "{method}"),
    benchmark:
        paths.benchmark("sweep", "{dataset}", "{method}")
    conda:
        ENVIRONMENT
    threads: cfg.compute.train.threads
    resources:
        mem_mb=growing(cfg.compute.train.mem_mb),
        runtime=growing(cfg.compute.train.runtime * cfg.sweep.trials),
        gpu=cfg.compute.train.gpus,
    params:
        config=lambda wildcards: slice_lines(cfg.sweep_slice(wildcards.dataset, wildcards.method)),
    message:
        "Choosing hyper-parameters of {wildcards.method} on {wildcards.dataset}"
    shell:
        "{SSP} sweep --config {CONFIG} --dataset {wildcards.dataset} --method {wildcards.method} > {log} 2>&1"
