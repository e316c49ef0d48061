"""What a row is to an estimate: FLOPs of a clip, what trains, and whether gradients go through the trunk.

- Counted on models without numbers, or taken from a `costs.json` that has counted the same row.
- Counted on the clips of the first data set, and in proportion to frames on others: for the rows of the paper that is
  0.1 to 5 % off, where a count takes seconds a row.
- A point of an ablation is taken for its base row.
"""

from __future__ import annotations

from dataclasses import dataclass

from ssp.config import Config
from ssp.records.costs import Costs


@dataclass(frozen=True)
class RowFacts:
    """Of one row, on clips of `frames` frames."""

    flops: int
    """Of a forward pass of one clip."""
    frames: int
    tuned: int
    """Parameters that train, without head and final norm."""
    total: int
    """All parameters."""
    head: int

    @property
    def frozen(self) -> bool:
        """Whether head and final norm alone train."""
        return self.tuned == 0


@dataclass(frozen=True)
class Rows:
    """The facts of all rows of a config."""

    config: Config
    facts: dict[str, RowFacts]

    def flops(self, dataset: str, row: str) -> float:
        """FLOPs of a forward pass of one clip of a data set."""
        facts = self.facts[self.counted_as(row)]
        return facts.flops * self.config.datasets[dataset].clips.num_frames / facts.frames

    def frozen(self, row: str) -> bool:
        """Whether head and final norm alone train."""
        return self.facts[self.counted_as(row)].frozen

    def counted_as(self, row: str) -> str:
        """The row of the tables whose facts a row has."""
        return base_row(self.config, row)


def base_row(config: Config, row: str) -> str:
    """The row itself, or of a point of an ablation the row that it varies."""
    if row in config.methods:
        return row
    return next(config.ablations[name].of for name, points in config.points.items() if row in [p.row for p in points])


def count_rows(config: Config, measured: Costs | None = None) -> Rows:
    """The facts of all rows of the tables of a config.

    Args:
        config: whose rows.
        measured: costs that may know some of them.
    """
    return Rows(config, {name: _known(config, name, measured) or _counted(config, name) for name in config.methods})


def _known(config: Config, name: str, measured: Costs | None) -> RowFacts | None:
    """What costs say of a row of the same method, options, backbone and size of picture."""
    if measured is None:
        return None
    ours, theirs = config.costs_slice()["backbone"], measured.config["backbone"]
    if any(theirs.get(key) != ours.get(key) for key in ("architecture", "image_size")):
        return None
    row = config.rows[name]
    for costs in measured.rows.values():
        if costs.flops and (costs.method, costs.options) == (row.method, row.options):
            counts = costs.parameters
            return RowFacts(costs.flops, measured.clips.frames, counts.tuned, counts.total, counts.head)
    return None


def _counted(config: Config, name: str) -> RowFacts:
    import torch

    from ssp.backbone.flops import UncountedOperator, forward_flops
    from ssp.jobs.cell import new_model
    from ssp.methods.parameters import parameter_counts

    dataset = next(iter(config.datasets))
    with torch.device("meta"):
        model = new_model(config, dataset, config.rows[name].method, config.rows[name].options)
    counts = parameter_counts(model)
    frames = config.datasets[dataset].clips.num_frames
    try:
        flops = forward_flops(model)
    except UncountedOperator:  # of a method that somebody has added; the backbone is most of it
        with torch.device("meta"):
            flops = forward_flops(new_model(config, dataset, "linear", {}))
    return RowFacts(flops, frames, counts["tuned"], counts["total"], counts["head"])
