"""`ssp init`, `ssp data ...` and the weights of backbones: from own videos or archives to frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import CheckpointName, ConfigArgument, ConfigOption, ConfigPath, DatasetName, load, one_config
from ssp.errors import ConfigError, DataError

start_commands = typer.Typer()
commands = typer.Typer(help="Archives, manifests, frames.", no_args_is_help=True)
backbone_commands = typer.Typer()


@commands.command("generate", epilog="Example: ssp data generate --config config/demo.yaml --dataset ssv2")
def data_generate(config: ConfigPath, dataset: DatasetName) -> None:
    """Make the archives of a demo data set from its seed."""
    from ssp.data.synthetic.archives import generate_archives

    generate_archives(load(config, archives=dataset), dataset)


@commands.command("fetch", epilog="Example: ssp data fetch --config config/paper.yaml --dataset hmdb51")
def data_fetch(config: ConfigPath, dataset: DatasetName) -> None:
    """Get the archives of a data set (from its folder, or its addresses) and verify them."""
    from ssp.data.fetch import fetch_dataset

    fetch_dataset(load(config, archives=dataset), dataset)


@commands.command("unpack", epilog="Example: ssp data unpack --config config/demo.yaml --dataset hmdb51")
def data_unpack(config: ConfigPath, dataset: DatasetName) -> None:
    """Unpack the archives of a data set."""
    from ssp.data.archives import unpack_dataset

    unpack_dataset(load(config, archives=dataset), dataset)


@commands.command("manifest", epilog="Example: ssp data manifest --config config/demo.yaml --dataset hmdb51")
def data_manifest(config: ConfigPath, dataset: DatasetName) -> None:
    """List the videos of a data set with labels, splits and groups."""
    from ssp.data.manifest import write_manifest

    write_manifest(load(config, dataset), dataset)


@commands.command("frames", epilog="Example: ssp data frames --config config/demo.yaml --dataset hmdb51 --shard 0")
def data_frames(
    config: ConfigPath,
    dataset: DatasetName,
    shard: Annotated[int, typer.Option("--shard", help="Which shard, from 0.", metavar="K")],
) -> None:
    """Decode one shard of the videos into the frame store."""
    from ssp.data.frames import extract_shard

    extract_shard(load(config, dataset), dataset, shard)


@commands.command("check", epilog="Example: ssp data check config/paper.yaml --dataset hmdb51")
def data_check(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this data set.", metavar="NAME")] = None,
) -> None:
    """Say whether data sets are fit for use: counts, splits, duplicates, formats, unreadable videos.

    Exit code 1 where something is wrong.
    """
    from ssp.data.check import check_dataset, findings

    loaded, failures, fit = load(one_config(file, config, "ssp data check"), dataset), [], True
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


@start_commands.command(epilog="Example: ssp init ~/my_videos --out my.yaml")
def init(
    videos: Annotated[
        Path,
        typer.Argument(
            help="Folder of videos, a folder a class, or a CSV with path and label.",
            metavar="FOLDER|CSV",
            readable=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The config; by default named like the folder.", metavar="FILE")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", help="Published weights; by default a small backbone is pre-trained.", metavar="FILE"
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="How paths read, such as '{class}/{group}_*'.", metavar="PATTERN"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the config if it is there.")] = False,
) -> None:
    """Look at your own videos and write a config for them, which runs as it stands."""
    from ssp.jobs.init import init_config

    path, found = init_config(videos, out, weights, layout, force)
    for line in found:
        typer.echo(line)
    typer.echo(f"wrote {path}; to run it: snakemake --cores all --configfile {path}")


@backbone_commands.command(epilog="Example: ssp pretrain --config config/demo.yaml --checkpoint source_f8")
def pretrain(config: ConfigPath, checkpoint: CheckpointName) -> None:
    """Pre-train a backbone on generated source classes (demo)."""
    from ssp.jobs.pretrain import run_pretrain

    run_pretrain(load(config, checkpoint=checkpoint), checkpoint)


@backbone_commands.command(
    "fetch-weights", epilog="Example: ssp fetch-weights --config config/paper.yaml --checkpoint f8"
)
def fetch_weights(config: ConfigPath, checkpoint: CheckpointName) -> None:
    """Get the published weights of a backbone and verify them."""
    from ssp.data.fetch import obtain
    from ssp.paths import Paths

    loaded = load(config, checkpoint=checkpoint)
    archive = loaded.backbone.checkpoints[checkpoint].archive
    if archive is None:
        raise ConfigError(f"{config}: backbone.checkpoints.{checkpoint} has no archive to fetch")
    obtain(archive, None, Paths.of(loaded).fetched_checkpoint(archive.file).parent)
