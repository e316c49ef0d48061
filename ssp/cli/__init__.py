"""The command line `ssp`, the same as `python -m ssp`: every rule of the workflow is one of these commands.

Design choices
- A command reads the config, calls one function of the library, and prints what came out. Nothing is decided here.
- Imports are inside the commands: `ssp --help` and a mistyped option answer at once, without torch.
- A mistake of the user is one red line on stderr and exit code 1; any other exception is a defect and keeps its
  traceback. Ctrl-C ends with 130 and a closed pipe with 1: typer sees to both. A training that was asked to stop ends
  with 75: run it again.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from ssp.cli import data, planning, results, sharing, tuning
from ssp.errors import SSPError
from ssp.files import storage_error
from ssp.processes import keep_freed_memory
from ssp.training.stopping import CONTINUE, Interrupted, ProcessLost

app = typer.Typer(
    name="ssp",
    help="Parameter-efficient tuning of video state-space models: State Space Prompting and a reproducible benchmark.",
    epilog="Example: ssp params --config config/demo.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.start_commands)
app.add_typer(planning.commands)
app.add_typer(data.commands, name="data")
app.add_typer(data.backbone_commands)
app.add_typer(tuning.tracking_commands, name="tracking")
app.add_typer(tuning.commands)
app.add_typer(results.commands)
app.add_typer(sharing.commands)


class _Stderr(logging.StreamHandler):
    """Writes to whatever stderr is now: a progress bar replaces it while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # noqa: ANN202 - a text stream
        return sys.stderr


def main() -> None:
    """Run the command line."""
    # Before torch loads OpenMP, which reads it once. By default OpenMP's threads spin while they wait for each other;
    # where other jobs want the same cores (a workflow at work), a step of two spinning threads takes many times longer.
    # Not GOMP_SPINCOUNT: 300 to 3000 win 13 to 26 % alone on two cores, but beside other jobs steps take 2 to 5 times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("ssp").addHandler(handler)
    logging.getLogger("ssp").setLevel(logging.INFO)
    try:
        app()
    except KeyboardInterrupt:  # before typer sees to it
        sys.exit(130)
    except Interrupted as interrupted:
        typer.secho(str(interrupted), fg=typer.colors.YELLOW, err=True)
        sys.exit(CONTINUE)
    except ProcessLost as lost:
        typer.secho(f"error: {lost}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except (SSPError, OSError) as error:
        problem = error if isinstance(error, SSPError) else storage_error(error)
        if problem is None:
            raise
        typer.secho(f"error: {problem}", fg=typer.colors.RED, err=True)
        sys.exit(1)
