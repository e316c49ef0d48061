"""Section: what each method trains and adds."""

from __future__ import annotations

from typing import Any

from ssp.report.results import Results, anchor


def content(results: Results) -> dict[str, Any]:
    """The rows of the parameter table."""
    rows = results.tables.parameters.to_dict("records")
    return {"rows": [row | {"anchor": anchor(row["dataset"], row["method"])} for row in rows]}
