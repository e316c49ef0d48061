"""Tables and figures, pure functions of the records; and the report, which shows them with all that led there."""

TABLES = paths.table_files
FIGURES = paths.figure_files
RECORDS = expand(
    [paths.record("{dataset}", "{method}", "{seed}"), paths.predictions("{dataset}", "{method}", "{seed}")],
    dataset=cfg.datasets,
    method=cfg.methods,
    seed=cfg.seeds,
)
EXPLAINED = expand(paths.explained("{dataset}"), dataset=explained_datasets(cfg))


rule tables:
    input:
        RECORDS,
    output:
        report(
            TABLES,
            category="Tables",
            caption="../report/tables.rst",
        ),
    log:
        paths.log("tables"),
    benchmark:
        paths.benchmark("tables")
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=slice_lines(cfg.tables_slice()),
    message:
        "Writing the tables"
    shell:
        ssp("tables")


# After a finished run, and apart from it: nothing that trains waits for a picture. What decides it is in the record; a
# failed run has no picture, so only the facts are a declared output.
rule explain:
    input:
        record=paths.record("{dataset}", EXPLAINED_METHOD, cfg.seeds[0]),
        predictions=paths.predictions("{dataset}", EXPLAINED_METHOD, cfg.seeds[0]),
        manifest=paths.manifest("{dataset}"),
        frames=frame_store,
        backbone=backbone_file,
        scan=ancient(SCAN),
    output:
        paths.explained("{dataset}"),
    log:
        paths.log("explain", "{dataset}"),
    benchmark:
        paths.benchmark("explain", "{dataset}")
    conda:
        ENVIRONMENT
    threads: cfg.compute.train.threads
    resources:
        mem_mb=growing(cfg.compute.train.mem_mb),
        runtime=growing(cfg.compute.train.runtime),
        gpu=cfg.compute.train.gpus,
    params:
        seed=cfg.seeds[0],
    message:
        "Drawing what SSP attends to in test videos of {wildcards.dataset}"
    shell:
        ssp("explain --dataset {wildcards.dataset}")


# A job of its own: it reads frames and sweeps too, and shows what the tables cost. Its inputs are those of `train`, so it
# fetches nothing that the runs did not.
rule report:
    input:
        TABLES,
        RECORDS,
        EXPLAINED,
        expand(paths.choice("{dataset}", "{method}"), dataset=cfg.datasets, method=cfg.methods),
        manifests=expand(paths.manifest("{dataset}"), dataset=cfg.datasets),
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
    benchmark:
        paths.benchmark("report")
    localrule: True
    conda:
        ENVIRONMENT
    params:
        config=slice_lines(cfg.tables_slice()),
    message:
        "Drawing the figures and writing the report"
    shell:
        ssp("report")
