"""The command line `ssp`, the same as `python -m ssp`: every rule of the workflow is one of these commands.

Design choices
- A command reads the config, calls one function of the library, and prints what came out. Nothing is decided here.
- Imports are inside the commands: `ssp --help` and a mistyped option answer at once, without torch.
- A mistake of the user is one red line on stderr and exit code 1; any other exception is a defect and keeps its
  traceback. Ctrl-C ends with 130 and a closed pipe with 1: typer sees to both.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssp.errors import ConfigError, DataError, SSPError
from ssp.files import storage_error

if TYPE_CHECKING:
    from ssp.config import Config

app = typer.Typer(
    name="ssp",
    help="Parameter-efficient tuning of video state-space models: State Space Prompting and a reproducible benchmark.",
    epilog="Example: ssp params --config config/demo.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data = typer.Typer(help="Archives, manifests, frames.", no_args_is_help=True)
tracking = typer.Typer(help="MLflow.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(tracking, name="tracking")

# Whether a file can be read is for the library to say, in its one line (`readable`).
ConfigPath = Annotated[Path, typer.Option("--config", help="Config file.", metavar="FILE", readable=False)]
DatasetName = Annotated[str, typer.Option("--dataset", help="Data set, as the config names it.", metavar="NAME")]
MethodName = Annotated[str, typer.Option("--method", help="Tuning method, as the config names it.", metavar="NAME")]
SeedNumber = Annotated[int, typer.Option("--seed", help="One of the config's seeds.", metavar="N")]
CheckpointName = Annotated[str, typer.Option("--checkpoint", help="One of backbone.checkpoints.", metavar="NAME")]


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    tex = "tex"


def _load(path: Path, dataset: str | None = None, method: str | None = None, checkpoint: str | None = None) -> Config:
    """Read a config and check names given on the command line against it."""
    from ssp.config import load_config

    config = load_config(path)
    for option, name, known in (
        ("--dataset", dataset, config.datasets),
        ("--method", method, config.methods),
        ("--checkpoint", checkpoint, config.backbone.checkpoints),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"{option}: '{name}' is not in {path}; it has: {', '.join(known)}")
    return config


# Data.


@data.command("generate", epilog="Example: ssp data generate --config config/demo.yaml --dataset ssv2")
def data_generate(config: ConfigPath, dataset: DatasetName) -> None:
    """Make the archives of a demo data set from its seed."""
    from ssp.data.synthetic.archives import generate_archives

    generate_archives(_load(config, dataset), dataset)


@data.command("fetch", epilog="Example: ssp data fetch --config config/paper.yaml --dataset hmdb51")
def data_fetch(config: ConfigPath, dataset: DatasetName) -> None:
    """Get the archives of a data set (from its folder, or its addresses) and verify them."""
    from ssp.data.fetch import fetch_dataset

    fetch_dataset(_load(config, dataset), dataset)


@data.command("unpack", epilog="Example: ssp data unpack --config config/demo.yaml --dataset hmdb51")
def data_unpack(config: ConfigPath, dataset: DatasetName) -> None:
    """Unpack the archives of a data set."""
    from ssp.data.archives import unpack_dataset

    unpack_dataset(_load(config, dataset), dataset)


@data.command("manifest", epilog="Example: ssp data manifest --config config/demo.yaml --dataset hmdb51")
def data_manifest(config: ConfigPath, dataset: DatasetName) -> None:
    """List the videos of a data set with labels, splits and groups."""
    from ssp.data.manifest import write_manifest

    write_manifest(_load(config, dataset), dataset)


@data.command("frames", epilog="Example: ssp data frames --config config/demo.yaml --dataset hmdb51 --shard 0")
def data_frames(
    config: ConfigPath,
    dataset: DatasetName,
    shard: Annotated[int, typer.Option("--shard", help="Which shard, from 0.", metavar="K")],
) -> None:
    """Decode one shard of the videos into the frame store."""
    from ssp.data.frames import extract_shard

    extract_shard(_load(config, dataset), dataset, shard)


@data.command("check", epilog="Example: ssp data check config/paper.yaml --dataset hmdb51")
def data_check(
    file: Annotated[Path | None, typer.Argument(help="Config file.", metavar="CONFIG", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The same, as for other commands.", metavar="FILE")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this data set.", metavar="NAME")] = None,
) -> None:
    """Say whether data sets are fit for use: counts, splits, duplicates, formats, unreadable videos.

    Exit code 1 where something is wrong.
    """
    from ssp.data.check import check_dataset, findings

    if (file is None) == (config is None):
        raise ConfigError("ssp data check: give one config file, for example `ssp data check config/demo.yaml`")
    loaded, failures, fit = _load(file or config, dataset), [], True
    for name in [dataset] if dataset else loaded.datasets:
        try:
            page = check_dataset(loaded, name)
            typer.echo(page)
            fit &= not findings(page)
        except DataError as error:  # the other data sets are worth a page
            failures.append(str(error))
    if failures:
        raise DataError("; ".join(failures))
    if not fit:
        raise typer.Exit(1)


# Backbone.


@app.command(epilog="Example: ssp pretrain --config config/demo.yaml --checkpoint source_f8")
def pretrain(config: ConfigPath, checkpoint: CheckpointName) -> None:
    """Pre-train a backbone on generated source classes (demo)."""
    from ssp.pretrain import run_pretrain

    run_pretrain(_load(config, checkpoint=checkpoint), checkpoint)


@app.command("fetch-weights", epilog="Example: ssp fetch-weights --config config/paper.yaml --checkpoint k400_f8")
def fetch_weights(config: ConfigPath, checkpoint: CheckpointName) -> None:
    """Get the published weights of a backbone and verify them."""
    from ssp.data.fetch import obtain
    from ssp.paths import Paths

    loaded = _load(config, checkpoint=checkpoint)
    archive = loaded.backbone.checkpoints[checkpoint].archive
    if archive is None:
        raise ConfigError(f"{config}: backbone.checkpoints.{checkpoint} has no archive to fetch")
    obtain(archive, None, Paths.of(loaded).fetched_checkpoint(archive.file).parent)


# Tuning.


@tracking.command("init", epilog="Example: ssp tracking init --config config/demo.yaml")
def tracking_init(config: ConfigPath) -> None:
    """Make or upgrade the MLflow database (or reach the server), and a relational sweep storage if there is one.

    The workflow runs this before anything that takes long, so what only the code that trains can check is checked here.
    """
    loaded = _load(config)
    from ssp.sweep import check_training
    from ssp.tracking import init_tracking

    check_training(loaded)
    if loaded.sweep.storage != "journal":
        from ssp.storage import open_database

        open_database(loaded.sweep.storage)
    typer.echo(f"tracking is ready: {init_tracking(loaded)}")


@app.command(epilog="Example: ssp sweep --config config/demo.yaml --dataset ssv2 --method ssp")
def sweep(config: ConfigPath, dataset: DatasetName, method: MethodName) -> None:
    """Choose hyper-parameters on the validation split; goes on where a killed sweep stopped."""
    loaded = _load(config, dataset, method)
    from ssp.sweep import run_sweep

    choice = run_sweep(loaded, dataset, method)
    outcome = (
        f"chosen: trial {choice.trial} of {len(choice.trials)}, validation top-1 {choice.value:.2f} %, "
        f"{choice.hyperparameters.model_dump()}"
        if choice.hyperparameters
        else f"failed: {choice.reason}"
    )
    typer.echo(f"{dataset} {method}: {outcome}")


@app.command(epilog="Example: ssp train --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def train(config: ConfigPath, dataset: DatasetName, method: MethodName, seed: SeedNumber) -> None:
    """Train one seed from the frozen choice and read test once; goes on after the last epoch of a killed run."""
    loaded = _load(config, dataset, method)
    from ssp.run import train_cell

    record = train_cell(loaded, dataset, method, seed)
    outcome = (
        f"test top-1 {record.metrics.top1:.2f} % ({record.metrics.correct} of {record.metrics.videos})"
        if record.metrics
        else f"failed: {record.reason}"
    )
    typer.echo(f"{dataset} {method} seed {seed}: {outcome}")


@app.command(epilog="Example: ssp explain --config config/demo.yaml --dataset ssv2")
def explain(config: ConfigPath, dataset: DatasetName) -> None:
    """Draw what SSP attends to in test videos, for the report; `predict --explain` does it for any video."""
    loaded = _load(config, dataset)
    from ssp.explain_cell import explain_dataset

    explained = explain_dataset(loaded, dataset)
    for clip in explained.clips:
        typer.echo(f"{clip.id}: {clip.name}, named {clip.predicted_name} ({100 * clip.probability:.0f} %)")
    if not explained.clips:
        typer.echo(f"{dataset}: the run failed, nothing to explain: {explained.made_from.reason}")


# Results.


@app.command(epilog="Example: ssp tables --config config/demo.yaml")
def tables(config: ConfigPath) -> None:
    """Make the tables from the records, and print accuracy and parameters."""
    from ssp.tables import print_tables, write_tables

    loaded = _load(config)
    write_tables(loaded)
    print_tables(loaded)


@app.command(epilog="Example: ssp report --config config/demo.yaml")
def report(config: ConfigPath) -> None:
    """Draw the figures and write the HTML report, from tables, records, sweeps, predictions and frames."""
    from ssp.figures import write_figures
    from ssp.report import write_report

    loaded = _load(config)
    for path in (*write_figures(loaded), write_report(loaded)):
        typer.echo(path)


@app.command(epilog="Example: ssp params --format md")
def params(
    config: Annotated[
        Path | None, typer.Option("--config", help="Backbone, methods and data sets of a config.", metavar="FILE")
    ] = None,
    format: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """Count parameters: all published backbones, methods and data sets, or those of a config."""
    loaded = _load(config) if config else None
    from ssp.parameters import config_parameter_table, parameter_table

    frame = config_parameter_table(loaded) if loaded else parameter_table()
    if format is TableFormat.table:
        from ssp.tables.terminal import print_parameters

        print_parameters(frame)
        return
    from ssp.tables.frames import to_csv
    from ssp.tables.markup import dataframe_to_latex, dataframe_to_markdown

    texts = {
        TableFormat.csv: lambda: to_csv(frame),
        TableFormat.md: lambda: dataframe_to_markdown(frame),
        TableFormat.tex: lambda: dataframe_to_latex(frame, "Parameters", "tab:params"),
    }
    typer.echo(texts[format](), nl=False)


@app.command(epilog="Example: ssp evaluate --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def evaluate(config: ConfigPath, dataset: DatasetName, method: MethodName, seed: SeedNumber) -> None:
    """Test saved weights again, and compare with the record; writes nothing."""
    loaded = _load(config, dataset, method)
    from ssp.inference import evaluate_saved

    typer.echo(evaluate_saved(loaded, dataset, method, seed))


@app.command(epilog="Example: ssp predict clip.mp4 --config config/demo.yaml --dataset ssv2 --method ssp --seed 0")
def predict(
    video: Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO", readable=False)],
    config: ConfigPath,
    dataset: DatasetName,
    method: MethodName,
    seed: SeedNumber = 0,
    explain: Annotated[
        Path | None, typer.Option("--explain", help="Draw what SSP attends to, as a PNG.", metavar="OUT.png")
    ] = None,
) -> None:
    """Name the most probable classes of a video, by saved weights; --explain draws what SSP attends to in it."""
    loaded = _load(config, dataset, method)
    from ssp.inference import predict_video

    for name, probability in predict_video(loaded, dataset, method, seed, video, explain):
        typer.echo(f"{100 * probability:6.2f} %  {name}")


# The way in.


class _Stderr(logging.StreamHandler):
    """Writes to whatever stderr is now: a progress bar replaces it while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # noqa: ANN202 - a text stream
        return sys.stderr


def _keep_freed_memory() -> None:
    """Have glibc keep what torch frees for the next step, instead of giving it back and zeroing it page by page anew.

    Steps of small models take a fifth to a third less. Environment variables would come too late for this process.
    """
    trim_threshold, mmap_threshold = -1, -3  # numbers of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
        libc.mallopt(trim_threshold, 512 << 20)


def main() -> None:
    """Run the command line."""
    # Before torch loads OpenMP, which reads it once. By default OpenMP's threads spin while they wait for each other;
    # where other jobs want the same cores (a workflow at work), a step of two spinning threads takes many times longer.
    # Not GOMP_SPINCOUNT: 300 to 3000 win 13 to 26 % alone on two cores, but beside other jobs steps take 2 to 5 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _keep_freed_memory()
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("ssp").addHandler(handler)
    logging.getLogger("ssp").setLevel(logging.INFO)
    try:
        app()
    except (SSPError, OSError) as error:
        problem = error if isinstance(error, SSPError) else storage_error(error)
        if problem is None:
            raise
        typer.secho(f"error: {problem}", fg=typer.colors.RED, err=True)
        sys.exit(1)
