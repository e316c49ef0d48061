"""Results that go from hand to hand: check, pack, join, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssp.cli.common import ResultsFolder
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
