"""What a config costs in GPU hours, by arithmetic over what it asks for: `python benchmarks/paper_cost.py [CONFIG]`.

Nothing is measured. The speeds are assumptions about an H100 with VideoMamba-M on clips of 8 frames at 224 pixels; all
rows train at the speed of VPT, but for the linear probe, which has no backward pass, and SSP. More frames cost in
proportion. Pruning is not counted: it makes searches without folds cheaper.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from ssp.config import Config, load_config

TRAINED, FORWARD = 18.0, 54.0  # clips a second, with and without backward
FRAMES = 8
SLOWER = {"ssp": 1.3}
RANGE = (10.0, 40.0)  # what TRAINED may be, all else in proportion
PAPER = Path(__file__).resolve().parents[1] / "config" / "paper.yaml"


def hours(config: Config) -> dict[str, dict[str, float]]:
    """GPU hours by data set: of searches, of final trainings of the tables, of ablations, of reading test."""
    found = {dataset: defaultdict(float) for dataset in config.datasets}
    for dataset, row, _ in config.studies():
        for rung in config.rungs(dataset):
            one = _training(config, dataset, row, rung.epochs, rung.videos)
            found[dataset]["search"] += rung.trials * config.datasets[dataset].validation.folds * one
    for dataset, row, _ in config.runs():
        epochs = config.datasets[dataset].recipe.epochs
        kind = "finals" if row in config.methods else "ablations"
        found[dataset][kind] += _training(config, dataset, row, epochs, final=True)
        data = config.datasets[dataset]
        views = data.clips.test_segments * data.clips.test_crops
        found[dataset]["test" if kind == "finals" else kind] += _forward(config, dataset, data.expected.test * views)
    return found


def _training(config: Config, dataset: str, row: str, epochs: int, share: float = 1.0, final: bool = False) -> float:
    """Hours of one training; of a trial with the validation after each epoch."""
    data, method = config.datasets[dataset], config.rows[row].method
    held_out = 0 if final and config.refit else data.expected.train * data.validation.fraction
    clips = epochs * share * (data.expected.train - held_out) * data.recipe.augmentation.repeats
    validation = _forward(config, dataset, epochs * held_out)
    if method == "linear":
        return _forward(config, dataset, clips) + validation
    return clips * data.clips.num_frames / FRAMES / TRAINED / 3600 * SLOWER.get(method, 1.0) + validation


def _forward(config: Config, dataset: str, clips: float) -> float:
    return clips * config.datasets[dataset].clips.num_frames / FRAMES / FORWARD / 3600


def table(config: Config) -> str:
    """The hours as Markdown, and their sum."""
    kinds = ("search", "finals", "test", "ablations")
    lines = [f"| data set | {' | '.join(kinds)} | together |", "| --- |" + " ---: |" * (len(kinds) + 1)]
    found, total = hours(config), 0.0
    for dataset, parts in found.items():
        total += sum(parts.values())
        cells = [parts[kind] for kind in kinds] + [sum(parts.values())]
        lines.append(f"| {dataset} | {' | '.join(f'{cell:,.0f}' for cell in cells)} |")
    sums = [sum(parts[kind] for parts in found.values()) for kind in kinds] + [total]
    lines.append(f"| all | {' | '.join(f'{cell:,.0f}' for cell in sums)} |")
    low, high = (total * TRAINED / speed for speed in reversed(RANGE))
    return "\n".join(
        [*lines, "", f"{total:,.0f} hours; {low:,.0f} to {high:,.0f} with {RANGE[1]:g} to {RANGE[0]:g} clips a second."]
    )


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PAPER
    asked = load_config(path)
    print(f"{len(asked.studies())} studies, {len(asked.runs())} trainings.\n\n{table(asked)}")
