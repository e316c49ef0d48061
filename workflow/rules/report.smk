"""Tables and figures, pure functions of the records; and the report, which shows them with all that led there."""

TABLES = paths.table_files
COST_TABLES = [path for path in TABLES if path.stem == "costs"]
FIGURES = paths.figure_files
RECORDS = expand(
    [paths.record("{dataset}", "{method}", "{seed}"), paths.predictions("{dataset}", "{method}", "{seed}")],
    dataset=cfg.datasets,
    method=cfg.methods,
    seed=cfg.seeds,
)
CURVES = [name for name in cfg.ablations if cfg.curve_axis(name)]
ABLATIONS = [
    *(path for name in cfg.ablations for path in paths.ablation_tables(name)),
    *(path for name in CURVES for path in paths.ablation_curves(name)),
]
EXPLAINED = expand(paths.explained("{dataset}"), dataset=explained_datasets(cfg))


# The rows in turn on random clips, in one job: needs neither data nor backbone, and what a run costs it finds out early.
# Only where the config does not say how many classes there are, a manifest of own videos does.
rule costs:
    input:
        scan=ancient(SCAN),
        manifest=[paths.manifest(name) for name in itertools.islice(cfg.datasets, 1) if not cfg.datasets[name].expected],
        anew=anew(paths.costs, lambda wildcards: asked.costs()),
    output:
        paths.costs,
    log:
        paths.log("costs"),
    priority: 1
    conda:
        ENVIRONMENT
    threads: cfg.compute.train.threads
    resources:
        **asked_for("train", "costs", alone=True),
    params:
        config=slice_lines(cfg.costs_slice()),
    message:
        "Measuring what training and using each row costs"
    shell:
        ssp("costs")


rule tables:
    input:
        RECORDS,
        paths.costs,
        anew=anew(paths.tables_config, lambda wildcards: asked.tables()),
    output:
        paths.tables_config,
        report(
            [path for path in TABLES if path not in COST_TABLES],
            category="Tables",
            caption="../report/tables.rst",
        ),
        report(
            COST_TABLES,
            category="Tables",
            caption="../report/costs.rst",
        ),
    log:
        paths.log("tables"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=slice_lines(cfg.tables_slice()),
    message:
        "Writing the tables"
    shell:
        ssp("tables")


rule ablation:
    input:
        ablation_records,
        anew=anew(paths.ablation_config("{ablation}"), lambda wildcards: asked.ablation(wildcards.ablation)),
    output:
        paths.ablation_config("{ablation}"),
        report(
            paths.ablation_tables("{ablation}"),
            category="Ablations",
            caption="../report/ablations.rst",
        ),
    log:
        paths.log("ablation", "{ablation}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=lambda wildcards: slice_lines(cfg.ablation_slice(wildcards.ablation)),
    message:
        "Writing the table of ablation {wildcards.ablation}"
    shell:
        ssp("ablation {wildcards.ablation}")


rule ablation_curve:
    input:
        paths.ablation_tables("{ablation}")[0],
    output:
        report(
            paths.ablation_curves("{ablation}"),
            category="Ablations",
            caption="../report/ablations.rst",
        ),
    log:
        paths.log("ablation_curve", "{ablation}"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=lambda wildcards: slice_lines(cfg.ablation_slice(wildcards.ablation)),
    message:
        "Drawing the curve of ablation {wildcards.ablation}"
    shell:
        ssp("ablation-curve {wildcards.ablation}")


# After a finished run, and apart from it: nothing that trains waits for a picture. What decides it is in the record; a
# failed run has no picture, so only the facts are a declared output.
if cfg.explained:

    rule explain:
        input:
            record=paths.record("{dataset}", cfg.explained, cfg.seeds[0]),
            predictions=paths.predictions("{dataset}", cfg.explained, cfg.seeds[0]),
            manifest=paths.manifest("{dataset}"),
            frames=frame_store,
            backbone=backbone_file,
            scan=ancient(SCAN),
            anew=anew(paths.explained("{dataset}"), lambda wildcards: asked.explained(wildcards.dataset)),
        output:
            paths.explained("{dataset}"),
        log:
            paths.log("explain", "{dataset}"),
        conda:
            ENVIRONMENT
        threads: cfg.compute.train.threads
        resources:
            **asked_for("train", "explain", "{dataset}", alone=True),
        params:
            row=cfg.explained,
            seed=cfg.seeds[0],
        message:
            "Drawing what SSP attends to in test videos of {wildcards.dataset}"
        shell:
            ssp("explain --dataset {wildcards.dataset}")


# Results stand by themselves: what is in them can be told and checked without the data.
rule keep_manifest:
    input:
        paths.manifest("{dataset}"),
    output:
        paths.kept_manifest("{dataset}"),
    log:
        paths.log("keep_manifest", "{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    message:
        "Keeping the manifest of {wildcards.dataset} with the results"
    shell:
        "cp {input} {output} > {log} 2>&1"


# A job of its own: it reads frames and sweeps too, and shows what the tables cost. Its inputs are those of `train`, so it
# fetches nothing that the runs did not.
rule report:
    input:
        TABLES,
        RECORDS,
        ABLATIONS,
        EXPLAINED,
        [paths.choice(*study) for study in itertools.product(cfg.datasets, cfg.methods, cfg.study_numbers)],
        manifests=expand(paths.kept_manifest("{dataset}"), dataset=cfg.datasets),
        frames=[
            paths.shard(name, shard)
            for name, dataset in cfg.datasets.items()
            for shard in range(dataset.frames.shards)
        ],
    output:
        figures=report(FIGURES, category="Figures", caption="../report/figures.rst"),
        page=paths.report,
    log:
        paths.log("report"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=slice_lines(cfg.tables_slice()),
    message:
        "Drawing the figures and writing the report"
    shell:
        ssp("report")
