"""Section: what training and using each row costs, beside a linear probe."""

from __future__ import annotations

from typing import Any

from ssp.report.results import Results
from ssp.tables.markup import plain_text


def content(results: Results) -> dict[str, Any]:
    """Caption, columns, rows of texts, and notes."""
    layout = results.layouts["costs"]
    return {
        "caption": layout.caption,
        "columns": [" ".join(filter(None, column)) for column in layout.table.columns],
        "rows": [[plain_text(value) for value in row] for row in layout.table.itertuples(index=False)],
        "notes": layout.notes,
        "record": results.link(results.paths.costs),
    }
