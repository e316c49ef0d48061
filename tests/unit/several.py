"""The same work in several processes that train together."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ssp.processes import end_with_parent
from ssp.training.parallel import HERE, Group, join, leave, meeting_point
from tests.copies import forks

PATIENCE_S = 600


def in_processes(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the work gives in each, in the order of ranks."""
    store, answers = meeting_point(size), forks.Queue()
    processes = [
        forks.Process(target=_one, args=(Group(rank, size), store.port, answers, work, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=PATIENCE_S) for _ in processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [found[rank] for rank in range(size)]


def _one(group, port, answers, work, arguments):
    end_with_parent()
    torch.set_num_threads(1)
    join(group, dist.TCPStore(HERE, port, group.size), cuda=False)
    try:
        answers.put((group.rank, work(*arguments)))
    except BaseException as error:
        answers.put((group.rank, repr(error)))
        raise
    leave()
