"""The pre-trained backbone (generated source classes, or published weights), and the compiled scan that runs it."""

SCAN = paths.results / "scan.done"


# Without a compiler this says so and succeeds: the scan then takes another backend, and each record names which. When the
# sources change later, `onstart` builds anew: as a job, it would make Snakemake run all that depends on it.
rule build_scan:
    output:
        touch(SCAN),
    log:
        paths.log("build_scan"),
    conda:
        ENVIRONMENT
    threads: cfg.compute.data.threads
    resources:
        **asked_for("data", "build_scan"),
    message:
        "Compiling the selective scan for this CPU"
    shell:
        PYTHON + " -m ssp.scan.build > {log} 2>&1"


rule pretrain:
    input:
        scan=ancient(SCAN),
        anew=anew(paths.backbone("{backbone}"), lambda wildcards: asked.pretrained(wildcards.backbone)),
    output:
        paths.backbone("{backbone}"),
    log:
        paths.log("pretrain", "{backbone}"),
    # All searches wait for it: data can be made beside it.
    priority: 2
    conda:
        ENVIRONMENT
    threads: cfg.compute.pretrain.threads
    resources:
        **asked_for("pretrain", "pretrain", "{backbone}"),
    params:
        config=lambda wildcards: slice_lines(cfg.backbone_slice(wildcards.backbone)),
    message:
        "Pre-training backbone {wildcards.backbone} on generated source classes"
    shell:
        ssp("pretrain --checkpoint {wildcards.backbone}")


_by_file = {c.archive.file: name for name, c in cfg.backbone.checkpoints.items() if c.archive}


rule fetch_weights:
    output:
        paths.fetched_checkpoint("{file}"),
    log:
        paths.log("fetch_weights", "{file}"),
    wildcard_constraints:
        file="|".join(_by_file) or "none",
    retries: 0
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=lambda wildcards: slice_lines(cfg.weights_slice(_by_file[wildcards.file])),
        name=lambda wildcards: _by_file[wildcards.file],
    message:
        "Fetching published weights {wildcards.file}"
    shell:
        ssp("fetch-weights --checkpoint {params.name}")
