"""The table of costs, from the record that `costs` has written: what each row adds, computes, takes and leaves behind.

Design choices
- Times are given relative to the linear probe of the same round, as the median of these ratios over all rounds.
- FLOPs are those of the tuned model as it trains. Where a method folds into the weights, inference was measured so,
  and a note says what it computes then.
- A number of tuned parameters says little without the backbone's. Where its share is more than `WIDE` times the paper's
  share for that method, or less than one `WIDE`th, a note says so.
"""

from __future__ import annotations

from statistics import median

import pandas as pd

from ssp.config import Config, data_title
from ssp.records.costs import Costs, RowCosts
from ssp.records.published import TEST_VIDEOS, published_parameters
from ssp.tables.markup import Notes, Number

COLUMNS = (
    "method",
    "parameters",
    "share",
    "published_share",
    "gflops",
    "merged_gflops",
    "step",
    "memory",
    "inference",
    "saved_mb",
    "step_s",
    "memory_mb",
    "inference_ms",
    "rounds",
    "reason",
    "device",
    "threads",
    "scan",
    "precision",
)
"""Of the long table. share: tuned parameters beside all of the backbone's; step, memory, inference: relative to the
linear probe; inference_ms: of a clip; MB: 10^6 bytes; rounds: of steps."""

WIDE = 2.0
LINEAR = "× linear's"  # over the columns of ratios


def cost_rows(config: Config, costs: Costs) -> list[dict]:
    """One row per row of the config, in its order."""
    return [_cost_row(config, name, costs) for name in config.methods]


def _cost_row(config: Config, name: str, costs: Costs) -> dict:
    found, linear = costs.rows[name], costs.linear
    counts = found.parameters
    row = {
        "method": name,
        "parameters": counts.tuned,
        "share": counts.tuned / (counts.total - counts.extra - counts.head),
        "published_share": _published_share(config.rows[name].published),
        "gflops": _giga(found.flops),
        "merged_gflops": _giga(found.merged_flops),
        "saved_mb": found.saved_bytes / 1e6,
        "rounds": len(found.step_seconds),
        "reason": found.reason,
        "device": costs.device,
        "threads": costs.threads,
        "scan": costs.scan.backend,
        "precision": costs.precision,
    }
    if found.reason:
        return row
    row |= {
        "step_s": median(found.step_seconds),
        "memory_mb": found.memory_bytes / 1e6,
        "inference_ms": 1000 * median(found.inference_seconds),
    }
    return row if linear.reason else row | _ratios(found, linear)


def _ratios(row: RowCosts, linear: RowCosts) -> dict[str, float]:
    def paired(own: list[float], of_linear: list[float]) -> float:
        return median(a / b for a, b in zip(own, of_linear, strict=True))

    return {
        "step": paired(row.step_seconds, linear.step_seconds),
        "memory": row.memory_bytes / linear.memory_bytes,
        "inference": paired(row.inference_seconds, linear.inference_seconds),
    }


def _published_share(name: str | None) -> float | None:
    """Parameters of the paper's row beside those of its full fine-tuning."""
    published = published_parameters()
    return published[name] / published["full"] if name in published else None


def _giga(count: int | None) -> float | None:
    return None if count is None else count / 1e9


def cost_cells(config: Config, table: pd.DataFrame) -> tuple[dict[tuple[str, str], list], str, list[str]]:
    """The table for readers: columns of cells under two-level names, what the caption says of them, and notes."""
    notes = Notes()
    rows = [row._asdict() for row in table.itertuples(index=False)]
    titles = [config.rows[row["method"]].title for row in rows]
    budgets = [
        Number(f"{row['parameters']:,}", notes.mark(words) if (words := _budget(config, row, title)) else "")
        for row, title in zip(rows, titles, strict=True)
    ]
    failures = {
        title: notes.mark(f"{title} was not measured: {row['reason']}")
        for row, title in zip(rows, titles, strict=True)
        if not _missing(row["reason"])
    }

    def relative(column: str) -> list[Number | None]:
        return [
            Number("–", failures[title])
            if title in failures
            else None
            if _missing(row[column])
            else Number(
                f"{row[column]:.2f}", notes.mark(words) if column == "inference" and (words := _merged(row)) else ""
            )
            for row, title in zip(rows, titles, strict=True)
        ]

    columns = {
        ("", "method"): titles,
        ("", "parameters"): budgets,
        ("", "GFLOPs"): [_significant(row["gflops"]) for row in rows],
        (LINEAR, "step"): relative("step"),
        (LINEAR, "memory"): relative("memory"),
        (LINEAR, "inference"): relative("inference"),
        ("", "saved MB"): [_significant(row["saved_mb"]) for row in rows],
    }
    return columns, _how(config, rows), notes


def _budget(config: Config, row: dict, title: str) -> str:
    """Where a row's parameters are much more or much fewer than in the paper, beside the backbone's: how much.

    Only on the paper's data sets and those like them: beside own videos the paper has nothing to say.
    """
    if _missing(row["published_share"]) or not any(one.source in TEST_VIDEOS for one in config.archived.values()):
        return ""
    times = row["share"] / row["published_share"]
    if 1 / WIDE <= times <= WIDE:
        return ""
    return (
        f"{title} tunes {100 * row['share']:.1f} % of the backbone's parameters, {times:.1f} times the paper's "
        f"{100 * row['published_share']:.1f} %"
    )


def _merged(row: dict) -> str:
    """What inference computes where what was learned is in the weights, if that is less."""
    if _missing(row["merged_gflops"]) or row["merged_gflops"] == row["gflops"]:
        return ""
    return f"folded into the backbone's weights, which makes {_significant(row['merged_gflops']).text} GFLOPs"


def _how(config: Config, rows: list[dict]) -> str:
    (dataset, settings), first = next(iter(config.archived.items())), rows[0]
    clips, recipe = settings.clips, settings.recipe
    side, videos, repeats = config.backbone.image_size, recipe.batch_size, recipe.augmentation.repeats
    threads = f", {first['threads']} thread{'s' if first['threads'] > 1 else ''}" if first["device"] == "cpu" else ""
    each = f" ({repeats} clips each)" if repeats > 1 else ""
    rounds = max(row["rounds"] for row in rows)
    return (
        f"Costs on clips of {data_title(config, dataset)} ({clips.num_frames} x {side} x {side}), measured with random "
        f"ones on {first['device']}{threads} ({first['precision']}, scan {first['scan']}). Parameters: those that "
        "train, without head and final norm. GFLOPs: of the forward pass of a clip, both scans included, a "
        f"multiply-add being two. Step: time of an optimizer step of {videos} videos{each}; memory: its peak; "
        f"inference: time of a clip; each relative to the linear probe ({LINEAR}), median over {rounds} rounds. Saved: "
        "what a run keeps, head included."
    )


def _significant(value: float | None) -> Number | None:
    """Three significant digits, but whole numbers in full."""
    if _missing(value):
        return None
    return Number(f"{value:,.0f}" if value >= 100 else f"{value:.{max(0, 2 - _magnitude(value))}f}")


def _magnitude(value: float) -> int:
    """Power of ten of the first digit shown."""
    return int(f"{value:.2e}".partition("e")[2])


def _missing(value: object) -> bool:
    return value is None or value != value or value is pd.NA
