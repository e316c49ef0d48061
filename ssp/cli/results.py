"""What is made from finished runs: tables, report, counts, predictions by saved weights, and exports of them."""

from __future__ import annotations

import functools
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import (
    ConfigArgument,
    ConfigOption,
    ConfigPath,
    DatasetName,
    MethodName,
    ResultsFolder,
    SeedNumber,
    load,
    one_config,
)
from ssp.errors import ConfigError

commands = typer.Typer()


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    tex = "tex"


@commands.command(epilog="Example: ssp tables --config config/demo.yaml")
def tables(
    config: ConfigPath,
    partial: Annotated[
        bool, typer.Option("--partial", help="Print what there is, gaps shown as such; writes nothing.")
    ] = False,
) -> None:
    """Make the tables from the records, and print accuracy, parameters and costs."""
    from ssp.tables import build_tables, print_tables, write_tables
    from ssp.tables.cells import read_partly

    loaded = load(config, made=True)
    if partial:
        print_tables(loaded, tables=build_tables(loaded, functools.partial(read_partly, loaded)))
        return
    write_tables(loaded)
    print_tables(loaded)


@commands.command(epilog="Example: ssp report --config config/demo.yaml")
def report(config: ConfigPath) -> None:
    """Draw the figures and write the HTML report, from tables, records, sweeps, predictions and frames."""
    from ssp.figures.accuracy import write_figures
    from ssp.report import write_report

    loaded = load(config, made=True)
    for path in (*write_figures(loaded), write_report(loaded)):
        typer.echo(path)


@commands.command(epilog="Example: ssp status config/demo.yaml")
def status(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    once: Annotated[bool, typer.Option("--once", help="Say it once and end, on a terminal, too.")] = False,
) -> None:
    """Say how far a workflow is: done, running (where, how far, time left), failed and why; a terminal stays fresh."""
    from ssp.report.status import read_status, show, status_lines

    loaded = load(one_config(file, config, "ssp status"), made=True)
    on_terminal = sys.stdout.isatty()
    status = show(loaded, lambda now: not now.running) if on_terminal and not once else read_status(loaded)
    for line in status_lines(status, shutil.get_terminal_size().columns if on_terminal else 1000):
        typer.echo(line)


@commands.command(epilog="Example: ssp trace results/demo --dataset ssv2 --row ssp")
def trace(
    folder: ResultsFolder,
    dataset: Annotated[str, typer.Option("--dataset", help="Column of the main table.", metavar="NAME")],
    row: Annotated[str, typer.Option("--row", help="Row of the main table.", metavar="NAME")],
) -> None:
    """Follow a number of the main table back: seeds, predictions, readings of test, trials, videos, code, config."""
    from ssp.verify.trace import trace as way_back

    typer.echo(way_back(folder, dataset, row))


@commands.command(epilog="Example: ssp seal --config config/demo.yaml")
def seal(config: ConfigPath) -> None:
    """Write SHA256SUMS of the results, as the workflow does at its end; for after a command by hand."""
    from ssp.records.sums import write_sums

    typer.echo(write_sums(load(config, made=True)))


@commands.command(epilog="Example: ssp power --config config/demo.yaml --difference 2")
def power(
    config: ConfigPath,
    difference: Annotated[
        float | None, typer.Option("--difference", help="Percentage points that should be found.", metavar="POINTS")
    ] = None,
) -> None:
    """Say from the records what differences the tables can find, and how many seeds would find a smaller one."""
    if difference is not None and difference <= 0:
        raise ConfigError(f"--difference: {difference:g} points are no difference; give a positive number")
    loaded = load(config, made=True)
    from ssp.tables.markup import dataframe_to_markdown
    from ssp.tables.power import describe, plan

    typer.echo(dataframe_to_markdown(plan(loaded, difference)))
    typer.echo(describe(loaded))


AblationName = Annotated[str, typer.Argument(help="Ablation, as the config names it.", metavar="NAME")]


@commands.command(epilog="Example: ssp ablation components --config config/demo.yaml")
def ablation(name: AblationName, config: ConfigPath) -> None:
    """Make the table of an ablation from the records."""
    loaded = load(config, ablation=name, made=True)
    from ssp.tables.ablations import write_ablation

    for path in write_ablation(loaded, name):
        typer.echo(path)


@commands.command(epilog="Example: ssp ablation-curve prompts --config config/demo.yaml")
def ablation_curve(name: AblationName, config: ConfigPath) -> None:
    """Draw the curve of an ablation over numbers, from its table."""
    loaded = load(config, ablation=name, made=True)
    from ssp.figures.ablation import write_curve

    for path in write_curve(loaded, name):
        typer.echo(path)


@commands.command(epilog="Example: ssp params --format md")
def params(
    config: Annotated[
        Path | None, typer.Option("--config", help="Backbone, methods and data sets of a config.", metavar="FILE")
    ] = None,
    format: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Count parameters: all published backbones, methods and data sets, or those of a config."""
    loaded = load(config) if config else None
    from ssp.methods.parameters import config_parameter_table, parameter_table

    frame = config_parameter_table(loaded) if loaded else parameter_table()
    if format is TableFormat.table:
        from ssp.tables.terminal import print_parameters

        print_parameters(frame)
        return
    from ssp.tables.long import to_csv
    from ssp.tables.markup import dataframe_to_latex, dataframe_to_markdown

    texts = {
        TableFormat.csv: lambda: to_csv(frame),
        TableFormat.md: lambda: dataframe_to_markdown(frame),
        TableFormat.tex: lambda: dataframe_to_latex(frame, "Parameters", "tab:params"),
    }
    typer.echo(texts[format](), nl=False)


@commands.command(epilog="Example: ssp evaluate --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def evaluate(config: ConfigPath, dataset: DatasetName, method: MethodName, seed: SeedNumber) -> None:
    """Read test again with saved weights; the record counts it, and other numbers than the record's are an error."""
    loaded = load(config, dataset, method)
    from ssp.jobs.inference import evaluate_saved

    typer.echo(evaluate_saved(loaded, dataset, method, seed))


@commands.command(epilog="Example: ssp predict clip.mp4 --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def predict(
    videos: Annotated[
        list[Path],
        typer.Argument(help="Video files, and folders: all videos below them.", metavar="VIDEO...", readable=False),
    ],
    config: Annotated[
        Path | None, typer.Option("--config", help="Config file.", metavar="FILE", readable=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--from", help="In its place results, wherever they lie, or an export.", metavar="FOLDER"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Data set, as the config names it.", metavar="NAME")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="Row of the config.", metavar="NAME")] = None,
    seed: SeedNumber = 0,
    top: Annotated[int, typer.Option("--top", help="How many classes.", metavar="K", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each video.")] = False,
    window: Annotated[
        float | None, typer.Option("--window", help="Name each stretch of so long; of a pipe, too.", metavar="SECONDS")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option("--step", help="From one window to the next; by default --window.", metavar="SECONDS"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where a window's CSV and PNG go.", metavar="FOLDER")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option("--explain", help="Draw what SSP attends to, as a PNG.", metavar="OUT.png")
    ] = None,
) -> None:
    """Name the most probable classes of videos, by saved weights; or of each window of long ones, over time.

    A video that cannot be read says why and stops no other; the exit code is 1 then.
    """
    from ssp.use.command import Asked, answers, chosen_predictor

    loaded = load(config, dataset, method) if config else None
    asked = Asked(videos, top=top, window=window, step=step, out=out, explain=explain)
    wrong = 0
    for answer in answers(chosen_predictor(asked, loaded, folder, dataset, method, seed), asked):
        wrong += answer.error is not None
        if as_json:
            typer.echo(answer.json())
        elif answer.error is not None:
            typer.secho(f"error: {answer.error}", fg=typer.colors.RED, err=True)
        else:
            typer.echo(answer.text(named=len(asked.files) > 1))
    if wrong:
        raise typer.Exit(1)


@commands.command(
    epilog="Example: ssp export --config config/demo.yaml --dataset ssv2 --method ssp --seed 0 --out ssp_on_ssv2"
)
def export(
    config: ConfigPath,
    dataset: DatasetName,
    method: MethodName,
    out: Annotated[Path, typer.Option("--out", help="A new folder.", metavar="FOLDER")],
    seed: SeedNumber = 0,
) -> None:
    """Write a tuned model that needs neither results nor data: weights (safetensors), config.json and a model card."""
    loaded = load(config, dataset, method)
    from ssp.use.export import write_export
    from ssp.use.run import load_run

    typer.echo(write_export(load_run(loaded, dataset, method, seed), out))
