"""What a finished benchmark says on the terminal: the tables, where everything lies, how to open the MLflow pages.

Light: reads files that the workflow wrote, imports neither torch nor MLflow. `python -m ssp.jobs.summary CONFIG`
repeats it.
"""

from __future__ import annotations

import json
import sys
from urllib.parse import quote, urlencode

from ssp.config import Config, load_config
from ssp.config.secret import public
from ssp.paths import FIGURE_FORMATS, LAID_OUT_TABLES, TABLE_FORMATS, Paths


def print_summary(config: Config) -> None:
    """Print the closing words of a run.

    Tables are left out where they are not written (Snakemake was asked for something else), and where Snakemake's own
    environment has no pandas (`--use-conda`); where they lie is said in any case.
    """
    paths = Paths.of(config)
    if (paths.tables / "main.csv").is_file():
        try:
            from ssp.tables import print_tables
        except ImportError:
            print(f"\n{config.title}")
        else:
            print_tables(config)
    places = {
        "report": paths.report,
        "tables": f"{paths.tables}/{{{','.join(LAID_OUT_TABLES)}}}.{{{','.join(TABLE_FORMATS)}}}",
        "figures": f"{paths.figures}/*.{{{','.join(FIGURE_FORMATS)}}}",
        "records": paths.results / "records",
        "costs": paths.costs,
        "predictions": paths.results / "predictions",
        "tuned weights": paths.results / "weights",
        "sweeps": paths.results / "sweeps",
        "logs": paths.results / "logs",
    }
    lines = "\n".join(f"  {name:14} {place}" for name, place in places.items())
    print(f"\nWritten:\n{lines}\n\nMLflow pages:\n  {_mlflow_pages(config)}\n")


def _mlflow_pages(config: Config) -> str:
    """How to see the runs: MLflow opens on another page, without any."""
    uri = config.tracking.uri
    if uri and uri.startswith(("http://", "https://")):
        return f"open {public(uri).rstrip('/')}{_runs(config)}"
    # Another database's address may hold a password.
    store = "(tracking.uri of the config)" if uri else f"sqlite:///{Paths.of(config).mlflow}/mlflow.db"
    return f"mlflow ui --backend-store-uri {store}\n  open http://127.0.0.1:5000{_runs(config)}"


def _runs(config: Config) -> str:
    """The page of the trainings with their metrics, best test accuracy first; the first page where no run was noted."""
    try:
        experiment = json.loads((Paths.of(config).mlflow / "ready.json").read_bytes())["experiment_id"]
    except (OSError, ValueError, KeyError):
        return ""
    shown = {
        "compareRunsMode": "CHART",  # the table would show no metric before one has picked its columns
        "searchFilter": "tags.`ssp.kind` = 'seed'",
        "orderByKey": "metrics.`test_top1`",
        "orderByAsc": "false",
    }
    return f"/#/experiments/{experiment}/runs?{urlencode(shown, quote_via=quote)}"


if __name__ == "__main__":
    print_summary(load_config(sys.argv[1]))
