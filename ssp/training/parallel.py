"""Several processes for one training: what they share out, add up, and agree on.

Design choices
- No wrapper around the model. Micro-batch i of a step is the work of process i mod size, and its loss is a share of the
  whole batch's, so that the gradients of all processes add up to that of the batch, whatever their number. Pairs that
  are mixed stay in one micro-batch, and what a batch does to itself (published gates) is the same.
- Every process takes the same optimizer step from the same bytes, so weights never travel after the first step.
- Work that may fail is done within `gather`: what one process could not do, all learn of, so that none waits for one
  that has given up. A process that is killed closes its connections, which the others notice at once.
- Numbers and failures go over gloo, also where gradients go over NCCL, which would wait for a lost process for long.
- Alone nothing of this is done: `Group` of size 1 calls what it is given.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssp.errors import SSPError, first_line
from ssp.training.failure import TrainingFailed, failures
from ssp.training.stopping import ProcessLost

T = TypeVar("T")
LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # environment variables of launchers, as `torchrun`
HERE = "127.0.0.1"
# Lost processes are noticed by their connections; who waits for the first one's disk or for a lease only waits.
PATIENCE = timedelta(days=7)


class Elsewhere(Exception):
    """Another process has failed, or has been asked to stop; the first one says why."""


@dataclass(frozen=True)
class Group:
    """Which process this is, of those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 1
    """How many of them are on this host."""

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this process in what is shared out: every `size`-th, from the `rank`-th on."""
        return items[self.rank :: self.size]

    def gather(self, what: str, work: Callable[[], T]) -> list[T]:
        """Do work that may fail, and learn what that of each process gave, in the order of ranks.

        Args:
            what: a word for it, the same in all processes.
            work: its result can be pickled.

        Raises:
            Exception: in a process whose work failed, what it raised.
            Elsewhere: that of another process failed. The first process raises what that one has instead.
            ProcessLost: another process is gone.
        """
        if self.size == 1:
            return [work()]
        result = error = None
        try:
            with failures():
                result = work()
        except Exception as problem:
            error = problem
        told = self._exchange((what, result, error and self._in_words(error)))
        if error:
            raise error
        if failed := next((theirs for _, _, theirs in told if theirs), None):
            raise failed if self.rank == 0 else Elsewhere(str(failed))
        if other := {theirs for theirs, _, _ in told} - {what}:
            raise RuntimeError(f"process {self.rank + 1} of {self.size} is at '{what}', others at {sorted(other)}")
        return [theirs for _, theirs, _ in told]

    def from_first(self, what: str, work: Callable[[], T]) -> T:
        """What the work of the first process gives, which it alone does; for what is large. Raises as `gather`."""
        if self.size == 1:
            return work()
        found: list[Any] = [None]

        def first() -> None:
            if self.rank == 0:
                found[0] = work()

        self.gather(what, first)
        self._connected(lambda: dist.broadcast_object_list(found, 0))
        return found[0]

    def same_weights(self, model: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers: libraries may round by the number of threads."""
        if self.size == 1:
            return
        with torch.no_grad():
            for tensor in chain(model.parameters(), model.buffers()):
                copy = tensor.contiguous()
                self._connected(lambda copy=copy: dist.broadcast(copy, 0))
                tensor.copy_(copy)

    def gradients(self, model: nn.Module, work: Callable[[], list[float] | None]) -> list[float] | None:
        """Add up what the work of each process leaves in the gradients; what none has a gradient of has none after.

        Args:
            model: whose parameters that train get the sum.
            work: backward passes of this process's micro-batches; gives their losses, or None where they are to be
                taken again.

        Returns:
            The losses of all micro-batches in order; None where those of any process are to be taken again. Nothing is
            added up then, nor where a loss is not finite.

        Raises:
            Exception: as `gather`.
        """
        if self.size == 1:
            return work()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        flat: dict[torch.dtype, Tensor] = {}

        def own() -> tuple[list[float] | None, list[bool]]:
            losses = work()
            if losses is None:
                return None, []
            for kind in dict.fromkeys(parameter.dtype for parameter in parameters):
                flat[kind] = torch.cat([_gradient(p).flatten() for p in parameters if p.dtype == kind])
            return losses, [parameter.grad is not None for parameter in parameters]

        told = self.gather("gradients", own)
        if any(losses is None for losses, _ in told):
            return None
        losses = _in_turn([losses for losses, _ in told])
        if not all(map(math.isfinite, losses)):
            return losses
        for total in flat.values():
            self._connected(lambda total=total: dist.all_reduce(total))
        rest = {
            kind: iter(total.split([p.numel() for p in parameters if p.dtype == kind])) for kind, total in flat.items()
        }
        for parameter, *has in zip(parameters, *(has for _, has in told), strict=True):
            piece = next(rest[parameter.dtype]).view_as(parameter)
            parameter.grad = piece if any(has) else None
        return losses

    def _exchange(self, said: object) -> list[Any]:
        told: list[Any] = [None] * self.size
        self._connected(lambda: dist.all_gather_object(told, said))
        return told

    def _connected(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            reason = first_line(error)
            raise ProcessLost(f"a process of {self.size} that train together has ended: {reason}") from None

    def _in_words(self, error: Exception) -> Exception:
        """An error as others get it: it must survive the way there."""
        place = f"(process {self.rank + 1} of {self.size})"
        if isinstance(error, TrainingFailed):
            return TrainingFailed(f"{error} {place}")
        return type(error)(str(error)) if isinstance(error, SSPError) else RuntimeError(f"{error!r} {place}")


ALONE = Group()


def current() -> Group:
    """The group that this process is in."""
    if dist.is_available() and dist.is_initialized():
        size = dist.get_world_size()
        return Group(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    return ALONE


def launched() -> Group:
    """The group that a launcher (`torchrun`, `ssp.jobs.nodes`) has started this process for; `ALONE` without one."""
    if os.environ.keys() >= LAUNCHED:
        return Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    return ALONE


def meeting_point(size: int) -> dist.TCPStore:
    """A place on this host where so many processes meet (`join`); its `port` is free on all of it."""
    return dist.TCPStore(HERE, 0, size, is_master=True, wait_for_workers=False)


def join(group: Group, store: dist.TCPStore | None, *, cuda: bool) -> None:
    """Meet the other processes; returns when all are there.

    Args:
        group: which of them this is.
        store: where they meet; None: where the environment of a launcher says.
        cuda: tensors are on GPUs.
    """
    if store is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this host, whatever its name resolves to
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size, timeout=PATIENCE)


def leave() -> None:
    """End the connections to the other processes; whoever still waits for this one learns that it is gone."""
    dist.destroy_process_group()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _in_turn(shares: Sequence[Sequence[float]]) -> list[float]:
    """What was shared out, in order."""
    return [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]
