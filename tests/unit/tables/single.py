"""One claim from merged predictions (`ssp.records.predictions.merge_views`); tables make many at once from tallies."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ssp.tables.stats import Difference, Interval, differences, intervals, tally


def accuracy_interval(seeds: Sequence[pd.DataFrame]) -> Interval:
    """Of the mean over seeds."""
    return intervals([[tally(dict(enumerate(seeds)))]])[0]


def paired_difference(first: Mapping[int, pd.DataFrame], second: Mapping[int, pd.DataFrame]) -> Difference:
    """`first` minus `second`; by seed."""
    return differences([([tally(first)], [tally(second)])])[0]
