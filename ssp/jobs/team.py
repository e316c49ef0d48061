"""The other processes of a training: started where a job trains, told what the first one does, ended with it.

Design choices
- The process that was given the job is the first. It alone holds the lease, searches, tracks and writes; the others
  take its orders (train this, an epoch, test) and do the same on their share. So what a sweep proposes and prunes is
  the first one's, and the others know nothing of Optuna and MLflow.
- They start with the first order, each in a clean interpreter: none where another job has done it all.
- Where a launcher has started all of them (`ssp.jobs.nodes` or `torchrun`, on one node or several) none is started
  here: that of rank 0 is the first, and any other ends when its orders do.
- Signals that ask for a stop are the first one's, too. One of the others that was killed ends the first, and they end
  with it, however it ended.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.distributed as dist

from ssp.errors import ConfigError, SSPError
from ssp.processes import end_with_parent
from ssp.progress import be_quiet
from ssp.training.failure import TrainingFailed
from ssp.training.gpus import take_gpus
from ssp.training.parallel import HERE, Elsewhere, Group, current, join, launched, leave, meeting_point
from ssp.training.stopping import ASKING, Interrupted, ProcessLost, ignore_in_worker

GRACE_S = 10.0  # for who finds out by its connections that another is gone
END_S = 30.0
log = logging.getLogger(__name__)


class Team:
    """The first process's side.

    Args:
        size: how many processes there are.
        cuda: whether each has a GPU.
        serve: what the others do (`obey` within); it can be pickled.
        arguments: of it.
    """

    def __init__(self, size: int, cuda: bool, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.size, self._cuda, self._serve, self._arguments = size, cuda, serve, arguments
        self._others: list[multiprocessing.process.BaseProcess] = []
        self._over, self._noticed = threading.Event(), threading.Event()
        self._threads = torch.get_num_threads()  # of this process when it is alone

    def order(self, what: str, **about: Any) -> None:  # noqa: ANN401 - plain data
        """Have the others do something, too.

        Raises:
            ProcessLost: one of them is gone.
        """
        if current().size == 1:
            self._start()
        current().from_first("order", lambda: (what, about))

    def end(self) -> None:
        """The others have nothing more to do."""
        self._over.set()
        if current().size > 1:
            with suppress(ProcessLost):
                current().from_first("order", lambda: None)
            for process in self._others:
                process.join(END_S)
        self.abort()

    def abort(self, lost: bool = False) -> None:
        """End the others wherever they are. `lost`: because one of them is gone."""
        if lost and self._others:
            self._noticed.wait(GRACE_S)  # how it ended is said first
        self._over.set()
        for process in self._others:
            process.kill()
            process.join()
        if current().size > 1:
            torch.set_num_threads(self._threads)
            leave()

    def _start(self) -> None:
        first = 0
        if self._cuda:
            first, there = torch.cuda.current_device(), torch.cuda.device_count()
            if first + self.size > there:
                raise ConfigError(f"compute: {self.size} GPUs asked for a training, but torch sees {there} here")
        store, context = meeting_point(self.size), multiprocessing.get_context("spawn")
        # Blocked until they are ignored: a signal that reaches a process while it starts would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        try:
            for rank in range(1, self.size):
                place = Group(rank, self.size), store.port, first + rank if self._cuda else None
                process = context.Process(target=_other, args=(*place, self._serve, self._arguments))
                process.start()
                self._others.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        threading.Thread(target=self._watch, daemon=True).start()
        join(Group(0, self.size), store, cuda=self._cuda)
        self._threads = torch.get_num_threads()
        torch.set_num_threads(max(1, self._threads // self.size))

    def _watch(self) -> None:
        """End this process where another has ended, unless it finds out by itself."""
        (ended, *_) = wait([process.sentinel for process in self._others])
        if self._over.is_set():
            return
        rank = next(k for k, process in enumerate(self._others, 1) if process.sentinel == ended)
        self._others[rank - 1].join()
        code = self._others[rank - 1].exitcode or 0
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has ended with code {code}"
        log.error("process %d of the %d that train together %s", rank + 1, self.size, how)
        self._noticed.set()
        if not self._over.wait(GRACE_S):
            os._exit(1)


@contextmanager
def team(size: int, cuda: bool, serve: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[Team | None]:
    """While the block runs, its trainings are shared by several processes; `None` where there is one.

    A process that a launcher has started beside the first obeys that one, and ends. Without one, this process takes as
    many GPUs as there are processes.

    Args:
        size: how many processes there are, unless a launcher says.
        cuda: whether each has a GPU.
        serve: what the others do.
        arguments: of it.

    Raises:
        ConfigError: a launcher has started more processes on this node than torch sees GPUs.
    """
    outside = launched()
    if outside.size > 1:
        if cuda:
            local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
            if local >= there:
                here = int(os.environ.get("LOCAL_WORLD_SIZE", outside.size))
                raise ConfigError(
                    f"compute: {here} GPUs asked for the processes of a node, but torch sees {there} here"
                )
            torch.cuda.set_device(local)
        join(outside, None, cuda=cuda)
        if outside.rank:
            ignore_in_worker(0)
            _serve_quietly(serve, arguments)
            sys.exit()
        size = outside.size
    elif cuda:
        take_gpus(size)
    if size == 1:
        yield None
        return
    made = Team(size, cuda, serve, arguments)
    try:
        yield made
    except Interrupted:
        made.end()
        raise
    except BaseException as error:
        made.abort(lost=isinstance(error, ProcessLost))
        raise
    made.end()


def obey(act: Callable[..., None]) -> None:
    """Follow the orders of the first process until there are no more: `act` gets each with what was said about it."""
    while order := current().from_first("order", lambda: None):
        what, about = order
        # All have raised it, and the first one says so.
        with suppress(Elsewhere, TrainingFailed, Interrupted, SSPError):
            act(what, **about)


def _other(group: Group, port: int, gpu: int | None, serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Another process than the first."""
    ignore_in_worker(0)
    end_with_parent()
    if gpu is not None:
        torch.cuda.set_device(gpu)
    join(group, dist.TCPStore(HERE, port, group.size), cuda=gpu is not None)
    _serve_quietly(serve, arguments)


def _serve_quietly(serve: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    logging.getLogger("ssp").setLevel(logging.WARNING)
    be_quiet()
    try:
        serve(*arguments)
    except ProcessLost:  # the first one says so; srun ends all at the first that fails, before it has said why
        os._exit(0 if launched().size > 1 else 1)
    leave()
