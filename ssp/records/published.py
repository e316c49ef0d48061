"""The published results that ours stand beside: the main table of the SSP paper (NeurIPS 2025), as printed there.

- `published.csv` holds what the public README's table image shows: parameters in millions, accuracies in percent.
- Only the rows of VideoMamba-M are of the same backbone and carry a registered method's name; the CLIP rows are for
  reading. There is no linear-probe row.
- Light: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ssp.config.rows import TITLES as ROW_TITLES

BACKBONE = "videomamba_middle"  # of the rows that carry a method's name
GROUP = "VideoMamba-M"
PRINTED = ("full", "adapter", "st_adapter", "vpt", "vfpt", "svp", "additional_scan", "stop", "ssp")
TITLES = {name: ROW_TITLES[name] for name in PRINTED}
"""Registered name -> title in the paper, in its order."""
TEST_VIDEOS = {"hmdb51": 1530, "ucf101": 3783, "ssv2": 24_777, "breakfast": 192}
"""What the published percentages are shares of; on Breakfast recordings, into which their code merges cameras."""
OTHER_RECIPES = {("full", "ssv2"): "published from an ImageNet start with 30 epochs"}
"""(method, data set) whose published number is that of another experiment than the other rows', and of which one."""


def published_table() -> pd.DataFrame:
    """One row per published result, in the paper's order.

    Columns: method (registered name, None where it is not of our backbone), title, group, venue, params_m (millions),
    and per data set hmdb51, ssv2, ucf101, breakfast top-1 accuracy in percent (NaN where not published).
    """
    table = pd.read_csv(Path(__file__).with_name("published.csv")).rename(columns={"method": "title"})
    names = {title: name for name, title in TITLES.items()}
    of_ours = table["group"] == GROUP
    methods = table["title"].map(names).where(of_ours).astype(object)
    table.insert(0, "method", methods.where(methods.notna(), None))
    return table


@cache  # asked for by each row of each table
def published_parameters() -> Mapping[str, float]:
    """Registered method name -> published trainable parameters in millions."""
    table = published_table().dropna(subset=["method"])
    return MappingProxyType(dict(zip(table["method"], table["params_m"], strict=True)))


@cache
def published_accuracy() -> Mapping[tuple[str, str], float]:
    """(registered method name, data set) -> published top-1 accuracy in percent."""
    table = published_table().dropna(subset=["method"]).set_index("method")
    accuracies = table[["hmdb51", "ssv2", "ucf101", "breakfast"]].stack().dropna()
    return MappingProxyType({key: float(value) for key, value in accuracies.items()})
