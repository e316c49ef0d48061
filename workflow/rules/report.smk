"""Tables: pure functions of the records."""

TABLES = expand(
    paths.tables / "{table}.{kind}",
    table=("main", "parameters", "uncertainty", "differences"),
    kind=("csv", "md", "tex"),
)
TABLES.append(paths.tables / "seeds.csv")


rule tables:
    input:
        expand(
            [paths.record("{dataset}", "{method}", "{seed}"), paths.predictions("{dataset}", "{method}", "{seed}")],
            dataset=cfg.datasets,
            method=cfg.methods,
            seed=cfg.seeds,
        ),
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
