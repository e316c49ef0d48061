"""Sweeps and trainings, and what they need to be ready."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import (
    ConfigArgument,
    ConfigOption,
    ConfigPath,
    DatasetName,
    MethodName,
    SeedNumber,
    StudyNumber,
    WorkerNumber,
    load,
    one_config,
)

tracking_commands = typer.Typer(help="MLflow.", no_args_is_help=True)
commands = typer.Typer()


@tracking_commands.command("init", epilog="Example: ssp tracking init --config config/demo.yaml")
def tracking_init(config: ConfigPath) -> None:
    """Make or upgrade the MLflow database (or reach the server), and a relational sweep storage if there is one."""
    loaded = load(config)
    from ssp.jobs.tracking import init_tracking

    if loaded.sweep.storage != "journal":
        from ssp.jobs.study import open_database

        open_database(loaded.sweep.storage)
    typer.echo(f"tracking is ready: {init_tracking(loaded)}")


@commands.command(epilog="Example: ssp check config/demo.yaml")
def check(file: ConfigArgument = None, config: ConfigOption = None) -> None:
    """Check a config (keys, methods' options, search spaces, augmentation, local files), and say what it asks for."""
    path = one_config(file, config, "ssp check")
    loaded = load(path)
    from ssp.config import read_yaml, resolved
    from ssp.jobs.check import check_config

    _, origin = resolved(read_yaml(path), path)
    for line in (*check_config(loaded, origin), f"{path} is fine"):
        typer.echo(line)


@commands.command(epilog="Example: ssp sweep --config config/demo.yaml --dataset ssv2 --method ssp")
def sweep(
    config: ConfigPath,
    dataset: DatasetName,
    method: MethodName,
    study: StudyNumber = None,
    worker: WorkerNumber = None,
) -> None:
    """Choose hyper-parameters on the validation split; goes on where a killed sweep stopped."""
    loaded = load(config, dataset, method)
    from ssp.jobs.sweep import run_sweep, run_worker

    if worker is not None:
        typer.echo(run_worker(loaded, dataset, method, worker, study))
        return
    choice = run_sweep(loaded, dataset, method, study)
    if not choice.hyperparameters:
        outcome = f"failed: {choice.reason}"
    elif choice.value is None:
        outcome = f"no search; the start: {choice.hyperparameters.model_dump()}"
    else:
        outcome = (
            f"chosen: trial {choice.trial} of {len(choice.trials)}, validation top-1 {choice.value:.2f} %, "
            f"{choice.hyperparameters.model_dump()}"
        )
    typer.echo(f"{dataset} {method}{'' if study is None else f' study {study}'}: {outcome}")


@commands.command(epilog="Example: ssp train --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def train(config: ConfigPath, dataset: DatasetName, method: MethodName, seed: SeedNumber) -> None:
    """Train one seed from the frozen choice and read test once; goes on after the last epoch of a killed run."""
    loaded = load(config, dataset, method)
    from ssp.jobs.seed import train_cell

    record = train_cell(loaded, dataset, method, seed)
    outcome = (
        f"test top-1 {record.metrics.top1:.2f} % ({record.metrics.correct} of {record.metrics.videos})"
        if record.metrics
        else f"failed: {record.reason}"
    )
    typer.echo(f"{dataset} {method} seed {seed}: {outcome}")


@commands.command(epilog="Example: ssp explain --config config/demo.yaml --dataset ssv2")
def explain(config: ConfigPath, dataset: DatasetName) -> None:
    """Draw what SSP attends to in test videos, for the report; `predict --explain` does it for any video."""
    loaded = load(config, dataset)
    from ssp.jobs.explain import explain_dataset

    explained = explain_dataset(loaded, dataset)
    for clip in explained.clips:
        typer.echo(f"{clip.id}: {clip.name}, named {clip.predicted_name} ({100 * clip.probability:.0f} %)")
    if not explained.clips:
        typer.echo(f"{dataset}: the run failed, nothing to explain: {explained.made_from.reason}")


@commands.command(epilog="Example: ssp costs --config config/demo.yaml")
def costs(config: ConfigPath) -> None:
    """Count and measure what training and using each row costs, beside a linear probe; needs no videos."""
    loaded = load(config)
    from ssp.jobs.costs import measure_costs
    from ssp.paths import Paths

    measured = measure_costs(loaded)
    for name, row in measured.rows.items():
        if row.reason:
            typer.echo(f"{name}: not measured: {row.reason}")
    typer.echo(Paths.of(loaded).costs)


@commands.command("new-method", epilog="Example: ssp new-method my_method")
def new_method(
    name: Annotated[str, typer.Argument(help="What configs will call it.", metavar="NAME", show_default=False)],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Config that gets its row; config/demo-all.yaml if not said.", metavar="FILE"),
    ] = None,
) -> None:
    """Write the files of a new tuning method: code, test, entry point, config row, documentation. It works as it is."""
    from ssp.methods.new import ROOT, new_method

    for path in new_method(name, config):
        typer.echo(f"wrote {os.path.relpath(path)}")
    typer.echo(
        f"Now change baselines/{name}.py and its test into your method. From {os.path.relpath(ROOT)}:\n"
        f"  pytest tests/contract tests/methods -k {name}\n"
        f"  make docs"
    )
