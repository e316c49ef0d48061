"""What a finished benchmark says on the terminal: the tables, where everything lies, how to open the MLflow pages.

Light: reads files that the workflow wrote, imports neither torch nor MLflow.
"""

from __future__ import annotations

import json
import shlex

from ssp.config import Config
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
    parts.append(f"MLflow pages:\n  {_mlflow_pages(config, paths)}")
    return "\n" + "\n\n".join(parts) + "\n"


def _mlflow_pages(config: Config, paths: Paths) -> str:
    """The command that opens the MLflow pages; a server by its URL has its own."""
    if config.tracking.uri and config.tracking.uri.startswith(("http://", "https://")):
        return config.tracking.uri
    ready = paths.mlflow / "ready.json"
    uri = json.loads(ready.read_text())["uri"] if ready.is_file() else config.tracking.uri
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri else "(no run yet)"
