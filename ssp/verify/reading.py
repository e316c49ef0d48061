"""The runs of a folder of results, each read once; by several processes where there is much to read.

At the size of config/paper.yaml predictions are 34 GB, and the largest of their files take a core one to two seconds
each (benchmarks/verify.py). Of small results all is read sooner than processes would have started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context

import pandas as pd

from ssp.config import Config
from ssp.paths import Paths
from ssp.processes import end_with_parent
from ssp.records.record import Record
from ssp.tables.cells import Reader, read_tested

MUCH = 10**9  # bytes of predictions
_TAKES = 7  # times its size: what reading one file after the other takes of memory at its peak


@contextmanager
def reader(config: Config) -> Iterator[Reader]:
    """`read_tested` of a config."""
    paths, runs = Paths.of(config), config.runs()
    files = [path for run in runs if (path := paths.predictions(*run)).is_file()]
    count = processes([path.stat().st_size for path in files])
    if count == 1:
        yield cache(partial(read_tested, config))
        return
    # Spawned: threads of Arrow do not survive a fork.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=end_with_parent)
    try:
        read = {run: pool.submit(read_tested, config, *run) for run in runs}

        @cache
        def result(dataset: str, method: str, seed: int) -> tuple[Record, pd.DataFrame | None]:
            try:
                return read[dataset, method, seed].result()
            except BrokenProcessPool:  # a process was killed, perhaps for want of memory: one alone takes least
                return read_tested(config, dataset, method, seed)

        yield result
    finally:
        pool.shutdown(cancel_futures=True)


def processes(sizes: Sequence[int]) -> int:
    """How many processes read files of these sizes (bytes): as many as there are cores, within half of the memory."""
    if sum(sizes) < MUCH:
        return 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), len(sizes), memory // 2 // (_TAKES * max(sizes))))
