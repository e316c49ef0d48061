"""What a finished benchmark says on the terminal: the tables, where everything lies, how to open the MLflow pages.

Light: reads files that the workflow wrote, imports neither torch nor MLflow. `python -m ssp.summary CONFIG` repeats it.
"""

from __future__ import annotations

import sys

from ssp.config import Config, load_config
from ssp.paths import Paths


def summary(config: Config) -> str:
    """The closing words of a run, for the terminal; tables that are not there (yet) are left out."""
    paths = Paths.of(config)
    parts = [config.title]
    for table in ("main", "parameters"):
        file = paths.tables / f"{table}.md"
        if file.is_file():
            parts.append(file.read_text().strip())
    places = {
        "tables": f"{paths.tables}/{{main,parameters}}.{{csv,md,tex}}",
        "records": paths.results / "records",
        "predictions": paths.results / "predictions",
        "tuned weights": paths.results / "weights",
        "sweeps": paths.results / "sweeps",
        "logs": paths.results / "logs",
    }
    parts.append("Written:\n" + "\n".join(f"  {name:14} {place}" for name, place in places.items()))
    parts.append(f"MLflow pages:\n  {_mlflow_pages(config)}")
    return "\n" + "\n\n".join(parts) + "\n"


def _mlflow_pages(config: Config) -> str:
    uri = config.tracking.uri
    if uri is None:
        return f"mlflow ui --backend-store-uri sqlite:///{Paths.of(config).mlflow}/mlflow.db"
    if uri.startswith(("http://", "https://")):
        return f"open {uri}"
    return "mlflow ui --backend-store-uri (tracking.uri of the config)"  # it may hold a password


if __name__ == "__main__":
    print(summary(load_config(sys.argv[1])))
