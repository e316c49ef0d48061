"""What a finished benchmark says on the terminal: the tables, where everything lies, how to open the MLflow pages.

Light: reads files that the workflow wrote, imports neither torch nor MLflow. `python -m ssp.jobs.summary CONFIG`
repeats it.
"""

from __future__ import annotations

import sys

from ssp.config import Config, load_config
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
    uri = config.tracking.uri
    if uri is None:
        return f"mlflow ui --backend-store-uri sqlite:///{Paths.of(config).mlflow}/mlflow.db"
    if uri.startswith(("http://", "https://")):
        return f"open {uri}"
    return "mlflow ui --backend-store-uri (tracking.uri of the config)"  # it may hold a password


if __name__ == "__main__":
    print_summary(load_config(sys.argv[1]))
