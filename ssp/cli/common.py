"""Options that commands share, and how they read the config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssp.errors import ConfigError

if TYPE_CHECKING:
    from ssp.config import Config

# Whether a file can be read is for the library to say, in its one line (`readable`).
ConfigPath = Annotated[Path, typer.Option("--config", help="Config file.", metavar="FILE", readable=False)]
# For commands whose one subject is a config: `ssp check FILE`, which also takes --config like the others.
ConfigArgument = Annotated[Path | None, typer.Argument(help="Config file.", metavar="CONFIG", show_default=False)]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="The same, as for other commands.", metavar="FILE")]
DatasetName = Annotated[str, typer.Option("--dataset", help="Data set, as the config names it.", metavar="NAME")]
MethodName = Annotated[
    str,
    typer.Option("--method", help="Row of the config: one of `methods`, or a point of an ablation.", metavar="NAME"),
]
SeedNumber = Annotated[int, typer.Option("--seed", help="One of the config's seeds.", metavar="N")]
StudyNumber = Annotated[
    int | None,
    typer.Option("--study", help="Which of sweep.repeats studies, from 0, where there are several.", metavar="N"),
]
WorkerNumber = Annotated[
    int | None,
    typer.Option(
        "--worker",
        help="Only run trials, as this one of sweep.workers, from 0; the command without it chooses.",
        metavar="N",
    ),
]
ResultsFolder = Annotated[
    Path, typer.Argument(help="Folder of results, wherever it lies.", metavar="RESULTS", readable=False)
]
CheckpointName = Annotated[str, typer.Option("--checkpoint", help="One of backbone.checkpoints.", metavar="NAME")]


def load(
    path: Path,
    dataset: str | None = None,
    method: str | None = None,
    checkpoint: str | None = None,
    ablation: str | None = None,
    archives: str | None = None,
    made: bool = False,
) -> Config:
    """Read a config and check names given on the command line against it.

    `made`: for a command that needs results alone, and no code of the methods that made them.
    """
    from ssp.config import load_config

    config = load_config(path, made=made)
    for option, name, known in (
        ("--dataset", dataset, config.datasets),
        ("--dataset", archives, config.archived),
        ("--method", method, config.rows),
        ("--checkpoint", checkpoint, config.backbone.checkpoints),
        ("NAME", ablation, config.ablations),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"{option}: '{name}' is not in {path}; it has: {', '.join(known)}")
    if archives is not None and (own := config.archived[archives].videos):
        raise ConfigError(
            f"--dataset: '{archives}' has no archives, its videos are read from {own}; run `ssp data manifest`"
        )
    return config


def one_config(argument: Path | None, option: Path | None, command: str) -> Path:
    """The config that was given in one of the two ways."""
    if (argument is None) == (option is None):
        raise ConfigError(f"{command}: give one config file, for example `{command} config/demo.yaml`")
    return argument or option
