"""`ssp plan` and `ssp rehearse`: before a benchmark is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import ConfigArgument, ConfigOption, load, one_config
from ssp.errors import ConfigError, SSPError

commands = typer.Typer()


@commands.command(epilog="Example: ssp plan config/demo.yaml")
def plan(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            help="Results that speeds are taken from: of a rehearsal, or of an earlier run.",
            metavar="FOLDER",
            readable=False,
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Propose the largest plan that fits.", metavar="HOURS")
    ] = None,
    requests: Annotated[
        bool, typer.Option("--requests", help="Print time requests for the section `compute`.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what a config takes before anything runs: jobs, clips, hours, disk, memory, and what would be cheaper.

    Speeds are those of the config's own results where there are any, else assumed; the first lines say which.
    """
    path = one_config(file, config, "ssp plan")
    if budget is not None and budget <= 0:
        raise ConfigError(f"--budget: {budget:g} hours are none; give a positive number")
    if sum((budget is not None, requests, json)) > 1:
        raise ConfigError("--budget, --requests, --json: give one of them")
    loaded = load(path)
    from ssp.config import read_yaml, resolved
    from ssp.files import json_text
    from ssp.plan import words
    from ssp.plan.estimate import estimate
    from ssp.plan.measured import find_speeds

    plain, _ = resolved(read_yaml(path), path)
    speeds, reason = find_speeds(loaded, records)
    found = estimate(loaded, speeds)
    if requests:
        if not speeds.measured:
            raise ConfigError(
                "--requests: nothing was measured, and time limits must not rest on an assumption; "
                f"run `ssp rehearse {path}` first, or name results: --records FOLDER"
            )
        typer.echo(words.requests(found))
    elif budget is not None:
        typer.echo(words.proposal(found, plain, budget))
    elif json:
        typer.echo(json_text(words.as_json(found, plain)), nl=False)
    else:
        typer.echo(words.told(found, plain, reason))


@commands.command(epilog="Example: ssp rehearse config/demo.yaml")
def rehearse(
    file: ConfigArgument = None,
    config: ConfigOption = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where it is run; by default rehearsals/<name>.", metavar="FOLDER"),
    ] = None,
    cores: Annotated[int | None, typer.Option("--cores", help="CPU cores; by default all.", metavar="N", min=1)] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only this data set; may be given several times.", metavar="NAME"),
    ] = None,
) -> None:
    """Run the whole workflow on a small stand-in of a config, say what breaks, and plan from what was measured.

    Again after a kill it goes on. Exit code 1 where something broke.
    """
    path = one_config(file, config, "ssp rehearse")
    loaded = load(path)
    import torch

    from ssp.config import parse_config, read_yaml, resolved
    from ssp.plan import words
    from ssp.plan.cheaper import without
    from ssp.plan.estimate import estimate
    from ssp.plan.measured import find_speeds
    from ssp.rehearsal.run import prepare, results_of
    from ssp.rehearsal.run import rehearse as run

    plain, _ = resolved(read_yaml(path), path)
    for name in datasets or ():
        if name not in loaded.archived:
            raise ConfigError(f"--dataset: '{name}' is not in {path}; it has: {', '.join(loaded.archived)}")
    for name in [*loaded.archived] if datasets else ():
        if name not in datasets:
            without(plain, name)
    chosen = parse_config(plain, str(path)).placed(origin=path)
    place = folder or Path("rehearsals") / loaded.name
    small = prepare(plain, chosen, place, torch.cuda.is_available())
    typer.echo(f"wrote {small.origin}")
    size = chosen.backbone.image_size
    broken = run(small, place, size, cores or os.cpu_count() or 1, typer.echo)
    results = results_of(small, place)
    typer.echo("Nothing broke." if not broken else f"{len(broken)} broke:")
    for one in broken:
        typer.echo(f"  {one.told()}")
    try:
        if small.backbone.image_size != size:
            raise ConfigError(f"smaller pictures on a CPU do not tell a GPU's hours; `ssp plan {path}` assumes some")
        speeds, _ = find_speeds(chosen, results)
        typer.echo(f"\nThe plan, from what was measured (again: ssp plan {path} --records {results}):\n")
        typer.echo(words.told(estimate(chosen, speeds), plain))
    except SSPError as error:
        typer.echo(f"No plan: {error}")
    if broken:
        raise typer.Exit(1)
