"""Results that go from hand to hand: check, pack, join, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import ResultsFolder
from ssp.errors import ConfigError
from ssp.sharing.weights import Weights

commands = typer.Typer()

Results = Annotated[Path, typer.Argument(help="Folder of results, or an archive.", metavar="RESULTS", readable=False)]
Several = Annotated[
    list[Path], typer.Argument(help="Folders of results, or archives.", metavar="RESULTS...", readable=False)
]


@commands.command(epilog="Example: ssp verify results/demo")
def verify(
    results: Results,
    rerun: Annotated[
        tuple[str, str, int] | None,
        typer.Option("--rerun", help="Train this run again, elsewhere, and compare.", metavar="DATASET ROW SEED"),
    ] = None,
) -> None:
    """Say whether results go together: tables from records, records from sealed predictions, choices from trials.

    Needs neither data nor GPU; with --rerun both, and the backbone. One line for each file that is not as it should
    be, and exit code 1 then.
    """
    from ssp.sharing.opening import opened
    from ssp.verify import verify_results

    with opened(results) as folder:
        found = verify_results(folder)
        for line in found.lines:
            typer.echo(line)
        typer.echo(found.told(results))
        if found.wrong:
            raise typer.Exit(1)
        if rerun:
            from ssp.verify.rerun import rerun as train_again

            outcome = train_again(folder, *rerun)
            typer.echo("\n".join(outcome.lines))
            if not outcome.same:
                raise typer.Exit(1)


@commands.command(epilog="Example: ssp pack results/demo --weights best")
def pack(
    results: ResultsFolder,
    out: Annotated[
        Path | None, typer.Option("--out", help="The archive; by default <name>.zip here.", metavar="FILE.zip")
    ] = None,
    weights: Annotated[Weights, typer.Option("--weights", help="Tuned weights to pack.")] = Weights.all,
) -> None:
    """Pack results that verify into one archive: a Workflow Run RO-Crate, the same bytes for the same results.

    --weights best: of each data set those of the row with the highest mean, all seeds.
    """
    from ssp.sharing.pack import pack as write_archive

    archive = write_archive(results, out, weights)
    typer.echo(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


@commands.command(epilog="Example: ssp merge results/demo theirs.zip --out results/both")
def merge(
    results: Several,
    out: Annotated[Path, typer.Option("--out", help="The new folder; its name names the results.", metavar="FOLDER")],
) -> None:
    """Join results of several machines or groups into one folder, with tables, report and who contributed what.

    Protocol and videos must be the same. What is not, or is missing, is one line each; then nothing is written, and the
    exit code is 1.
    """
    from ssp.sharing.merge import merge as join

    merged = join(results, out)
    for line in (*merged.conflicts, *merged.notes):
        typer.echo(line)
    if merged.conflicts:
        typer.echo(f"{out}: not written, for {len(merged.conflicts)} reasons")
        raise typer.Exit(1)
    typer.echo(f"{out}: joined from {len(results)}; `ssp verify {out}` checks it")


@commands.command(epilog="Example: ssp compare results/demo theirs.zip")
def compare(
    results: Several,
    json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="The cells as CSV.")] = False,
) -> None:
    """Put results side by side: each later one minus the first, which cells moved, what differs in what made them."""
    if json and csv:
        raise ConfigError("--json, --csv: give one of the two")
    from ssp.sharing.compare import compare as put_side_by_side

    compared = put_side_by_side(results)
    typer.echo(compared.json() if json else compared.csv() if csv else compared.text(), nl=not csv)
