"""Tables and figures, pure functions of the records; and the report, which shows them with all that led there."""

TABLES = expand(
    paths.tables / "{table}.{kind}",
    table=("main", "parameters", "uncertainty", "differences"),
    kind=("csv", "md", "tex"),
)
TABLES.append(paths.tables / "seeds.csv")
FIGURES = expand(paths.figures / "accuracy_against_parameters.{kind}", kind=("pdf", "png"))
RECORDS = expand(
    [paths.record("{dataset}", "{method}", "{seed}"), paths.predictions("{dataset}", "{method}", "{seed}")],
    dataset=cfg.datasets,
    method=cfg.methods,
    seed=cfg.seeds,
)


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
        "{SSP} tables --config {CONFIG} > {log} 2>&1"


# A job of its own: it reads frames and sweeps too, and shows what the tables cost. Its inputs are those of `train`, so it
# fetches nothing that the runs did not.
rule report:
    input:
        TABLES,
        RECORDS,
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
        "{SSP} report --config {CONFIG} > {log} 2>&1"
