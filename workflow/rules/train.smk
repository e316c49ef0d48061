"""One job a cell and seed: trains from the frozen choice, then reads the test videos once, in the same process.

- A point of an ablation that inherits is trained from the choice of its base row.
- A training that fails (out of memory, a non-finite loss) still writes its record, with the reason: the rest goes on. It has
  no weights to keep, so these are no declared output.
- What a killed training continues from is no declared output, as those are deleted before an interrupted job restarts.
"""


rule train:
    input:
        choice=choice,
        manifest=paths.manifest("{dataset}"),
        frames=frame_store,
        backbone=backbone_file,
        scan=ancient(SCAN),
        tracking=ancient(TRACKING),
        anew=anew(
            paths.record("{dataset}", "{method}", "{seed}"),
            lambda wildcards: asked.record(wildcards.dataset, wildcards.method, wildcards.seed),
        ),
    output:
        record=paths.record("{dataset}", "{method}", "{seed}"),
        predictions=paths.predictions("{dataset}", "{method}", "{seed}"),
    log:
        paths.log("train", "{dataset}", "{method}", "seed{seed}"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.train.threads
    resources:
        **asked_for("train", "train", "{dataset}", "{method}", "seed{seed}", resumes=True, more=nodes.resources(cfg)),
    params:
        dataset=section(cfg.cell_slice, "dataset"),
        backbone=section(cfg.cell_slice, "backbone"),
        method=section(cfg.cell_slice, "method"),
        sweep=section(cfg.cell_slice, "sweep"),
        final=section(cfg.cell_slice, "final"),
    message:
        "Training {wildcards.method} on {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        ssp(
            "train --dataset {wildcards.dataset} --method {wildcards.method} --seed {wildcards.seed}",
            launcher=nodes.launcher(cfg),
        )
