"""The one training loop: every method, every trial of a sweep and every cell of the benchmark goes through `fit`.

Pre-training, which has its own clips and no validation, takes the same optimizer steps (`take_step`).

Design choices
- `fit` is a generator of epochs, so whoever drives it logs curves, prunes a trial or stops, and `fit` knows nothing of
  Optuna or MLflow.
- The recipe's batch size is that of an optimizer step, whatever the memory allows: a batch is cut into micro-batches
  whose gradients add up to the gradient of the whole.
- Order of the data, mixing and drop path are functions of (seed, epoch, step) alone, and of the clip; see
  `ssp.training.execution`. Only full batches are used; the surplus of an epoch is another one in the next.
- Where memory runs out, passes are halved and the step is taken again (`ssp.training.passes`).
- Several processes share the micro-batches of a step out (`ssp.training.parallel`), and the result is that of one.
- What is measured after every epoch, where anything is, serves curves and sweeps, and the weights that leave are those
  of the last epoch; those of the best one with `keep_best` alone, as the published code has it.
- The state of a training is written atomically after each epoch, every so many minutes within one, and after the step
  in which it is asked to stop (`ssp.training.stopping`). A run that was ended continues there and, on a CPU, ends with
  the very same bytes as one that never was.
- A loss that is not finite, or too little memory, is a result (`TrainingFailed`), not a crash.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from ssp.config import Recipe
from ssp.errors import ConfigError
from ssp.files import atomic_path
from ssp.records.record import Chosen
from ssp.training.evaluate import batching, validate
from ssp.training.execution import Execution, derive_seed
from ssp.training.failure import TrainingFailed, failures
from ssp.training.features import Features
from ssp.training.mixing import StepMix, draw_step, mixed_targets
from ssp.training.optim import Schedule, make_optimizer, set_learning_rate
from ssp.training.parallel import current
from ssp.training.passes import MicroBatch, Passes
from ssp.training.stopping import Interrupted, asked_to_stop


@dataclass(frozen=True)
class EpochResult:
    """What an epoch gave; accuracy in percent."""

    epoch: int  # counted from 1
    lr: float
    train_loss: float
    val_loss: float | None  # None: nothing was measured after it
    val_top1: float | None
    seconds: float
    finished: float  # Unix time
    largest_pass: int | None = None  # videos, where memory did not hold a micro-batch
    restored: bool = False  # done before this process started
    seconds_before: float = 0.0  # of `seconds`, those of earlier processes


@dataclass
class _Begun:
    """What has been done of an epoch."""

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainingState:
    """Where a training can be continued. A state of another identity (config, code of the choice, data) is ignored."""

    path: Path
    identity: str

    def load(self, device: torch.device | str) -> dict[str, Any] | None:
        """The state of this training, or None where there is none to continue."""
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except Exception:  # not there, or damaged: whatever garbage makes a reader raise
            return None
        return state if isinstance(state, dict) and state.get("identity") == self.identity else None

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, execution: Execution
    ) -> dict[str, Any] | None:
        """Put model and optimizer where this training was left; gives what else was saved, None where there is none.

        Of several processes the first one reads it for all.
        """
        device = execution.device if execution.group.size == 1 else "cpu"
        saved = execution.group.from_first("state", lambda: self.load(device))
        if saved:
            model.load_state_dict(saved["model"], strict=False)
            optimizer.load_state_dict(saved["optimizer"])
        return saved

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, **done: Any) -> None:  # noqa: ANN401 - plain data
        """Write what trains, the optimizer, and what has been done so far; of several processes the first one does."""
        if current().rank:
            return
        state = {
            "identity": self.identity,
            "model": trained_tensors(model),
            "optimizer": optimizer.state_dict(),
            **done,
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def remove(self) -> None:
        """The training is over, and what came of it is safe."""
        self.path.unlink(missing_ok=True)


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that training changes: parameters that train, and buffers."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return trained | dict(model.named_buffers())


def best_of(epochs: list[EpochResult]) -> EpochResult:
    """The first epoch whose top-1 accuracy no other exceeds."""
    return max(epochs, key=lambda epoch: epoch.val_top1)


def fit(
    model: nn.Module,
    train_set: Dataset,
    val_set: Dataset | None,
    *,
    recipe: Recipe,
    chosen: Chosen,
    seed: int,
    execution: Execution,
    epochs: int | None = None,
    keep_best: bool = False,
    features: Features | None = None,
    state: TrainingState | None = None,
    save_every_s: float = math.inf,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[EpochResult]:
    """Train a model in place, one epoch per item.

    Args:
        model: on the device of `execution`; parameters that do not train have `requires_grad` False.
        train_set: its items are (uint8 clips (R, 3, T, H, W), label, row, view, erasing (R, 5)); has `set_epoch`.
        val_set: its items are (uint8 clip (3, T, H, W), label, row, view), measured after each epoch; None: nothing is.
        recipe: epochs, batch size, loss and mixing.
        chosen: learning rate and weight decay (drop path is a property of the model).
        seed: of the data order, mixing and drop path.
        execution: device, precision and loader processes.
        epochs: a shorter training than the recipe's (sweeps); warm-up shrinks in proportion.
        keep_best: end with the weights of the epoch that is `best_of` all on `val_set`, not with those of the last.
        features: of the model's frozen trunk, so that they are taken once; the results are the same.
        state: where to continue and to keep what is done.
        save_every_s: seconds after which the state is written within an epoch, too.
        on_step: called with (optimizer steps done, all optimizer steps).

    Yields:
        One result per epoch; first those that were done before a restart.

    Raises:
        TrainingFailed: a loss is not finite, or memory ran out.
        Interrupted: asked to stop; the state is written.
        ConfigError: no training videos, or a micro-batch that would tear mixing pairs apart.
    """
    epochs = epochs or recipe.epochs
    if not len(train_set) or (val_set is not None and not len(val_set)):
        raise ConfigError("datasets: no training or no validation videos; mend expected, generate or validation")
    group = execution.group
    if recipe.micro_batch and recipe.micro_batch % 2 and (recipe.augmentation.mixup or recipe.augmentation.cutmix):
        raise ConfigError(f"recipe.micro_batch: {recipe.micro_batch} tears mixing pairs apart; give an even number")
    micro, videos = recipe.micro_batch or recipe.batch_size, min(recipe.batch_size, len(train_set))
    if (parts := math.ceil(videos / micro)) < group.size:
        raise ConfigError(
            f"recipe.micro_batch: the {videos} videos of a step make {parts} micro-batches of {micro} for {group.size} "
            f"processes (compute.*.processes, gpus, nodes); give at most {max(1, videos // group.size)}, or fewer "
            "processes"
        )
    steps = max(1, len(train_set) // recipe.batch_size)  # per epoch
    schedule = Schedule(chosen.lr, steps * epochs, round(recipe.warmup_share * steps * epochs))
    optimizer = make_optimizer(model, chosen.weight_decay)
    done: list[EpochResult] = []
    best: dict[str, Tensor] = {}
    begun = _Begun()
    if state and (saved := state.restore(model, optimizer, execution)):
        done = [
            EpochResult(**{**epoch, "restored": True, "seconds_before": epoch["seconds"]}) for epoch in saved["epochs"]
        ]
        best, begun = saved["best"], _Begun(**saved["begun"])
    passes = Passes(model, min(micro, videos))
    group.same_weights(model)
    yield from done

    def keep(begun: _Begun) -> None:
        if state:
            state.save(model, optimizer, epochs=[asdict(epoch) for epoch in done], best=best, begun=asdict(begun))

    with failures():
        for epoch in range(len(done), epochs):
            started = saved_at = time.perf_counter()
            model.train()
            train_set.set_epoch(epoch)
            batches = epoch_batches(len(train_set), recipe.batch_size, seed, epoch)
            # Of each batch: where the micro-batches of this process begin.
            begin = [group.share(range(0, len(batch), micro)) for batch in batches]
            loads = [batches[step][at : at + micro] for step in range(begun.steps, steps) for at in begin[step]]
            load = partial(execution.loader, train_set, loads)
            loader, mixed = features.epoch(epoch, loads, load) if features else (iter(load()), False)
            losses = begun.losses
            for step in range(begun.steps, steps):
                mix = draw_step(recipe.augmentation, seed, epoch, step, len(batches[step]))
                passes.step(seed, "step", epoch, step, videos=len(batches[step]), repeats=recipe.augmentation.repeats)
                held = passes.largest
                loss = take_step(
                    features or model,
                    optimizer,
                    _placed(loader, begin[step]),
                    lr=schedule(epoch * steps + step),
                    videos=len(batches[step]),
                    mix=features.mixing(mix) if mixed else mix,
                    label_smoothing=recipe.label_smoothing,
                    clip_grad=recipe.clip_grad,
                    execution=execution,
                    passes=passes,
                )
                if not math.isfinite(loss):
                    raise TrainingFailed(f"training loss is {loss} in epoch {epoch + 1}, step {step + 1} of {steps}")
                losses.append(loss)
                if features and passes.largest != held:
                    features.forget()
                if on_step:
                    on_step(epoch * steps + step + 1, steps * epochs)
                asked, *_ = group.gather("stopping", asked_to_stop)
                if state and (asked or time.perf_counter() - saved_at > save_every_s):
                    keep(_Begun(step + 1, losses, begun.seconds + time.perf_counter() - started))
                    saved_at = time.perf_counter()
                if asked:
                    raise Interrupted
            if features:
                features.keep(epoch)
            val_loss = val_top1 = None
            if val_set is not None:
                how, measured = batching(recipe, "validation"), val_set
                if features and not recipe.co_batched:  # whose batches are others than those of a plain pass in order
                    measured = features.embedded(val_set, batch_size=how["batch_size"], execution=execution)
                try:
                    val_loss, val_top1 = validate(features or model, measured, **how, execution=execution)
                except Interrupted:
                    keep(_Begun(steps, losses, begun.seconds + time.perf_counter() - started))
                    raise
                if not math.isfinite(val_loss):
                    raise TrainingFailed(f"validation loss is {val_loss} after epoch {epoch + 1}")
            seconds, train_loss = begun.seconds + time.perf_counter() - started, math.fsum(losses) / steps
            found = (schedule(epoch * steps + steps - 1), train_loss, val_loss, val_top1, seconds, time.time())
            done.append(EpochResult(epoch + 1, *found, passes.largest, seconds_before=begun.seconds))
            begun = _Begun()
            if keep_best and best_of(done) is done[-1]:
                best = {name: tensor.clone() for name, tensor in trained_tensors(model).items()}
            keep(begun)
            yield done[-1]
    if keep_best:
        model.load_state_dict(best, strict=False)


def epoch_batches(videos: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Videos of each optimizer step of an epoch: full batches of a shuffled order, or one of all where too few."""
    order = torch.randperm(videos, generator=torch.Generator().manual_seed(derive_seed(seed, "order", epoch))).tolist()
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(max(1, videos // batch_size))]


def _placed(loader: Iterator[Sequence[Tensor]], firsts: Sequence[int]) -> Iterator[MicroBatch]:
    """Micro-batches of a step, as they are loaded, with their places in the batch."""
    for first, (clips, labels, *others) in zip(firsts, loader, strict=False):
        yield MicroBatch(first, clips, labels, *others[2:])


class _Remembered:
    """Micro-batches that can be gone through again from the first on, loaded when they are come to."""

    def __init__(self, parts: Iterable[MicroBatch]) -> None:
        self._coming, self._seen = iter(parts), []

    def __iter__(self) -> Iterator[MicroBatch]:
        yield from tuple(self._seen)
        for part in self._coming:
            self._seen.append(part)
            yield part


def _backward(
    model: nn.Module,
    part: MicroBatch,
    videos: int,
    mix: StepMix | None,
    label_smoothing: float,
    execution: Execution,
    passes: Passes,
) -> Iterator[Tensor]:
    """Add the gradient of a micro-batch, pass by pass; gives each one's share of the batch's mean loss."""
    clips, labels = execution.clips(part.clips, part.erasing), part.labels.to(execution.device, non_blocking=True)
    keep = torch.ones(len(labels), dtype=torch.float64)
    if mix:
        clips, keep = mix.clips(clips, part.first)
    for own in passes.of(part._replace(labels=labels)):
        with execution.autocast():
            logits = model(clips[own].flatten(0, 1)).float()
        targets = mixed_targets(labels, logits.shape[1], keep)[own].repeat_interleave(clips.shape[1], 0)
        loss = cross_entropy(logits, targets, label_smoothing=label_smoothing) * (len(labels[own]) / videos)
        loss.backward()
        yield loss.detach()


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[MicroBatch],
    *,
    lr: float,
    videos: int,
    execution: Execution,
    mix: StepMix | None = None,
    label_smoothing: float = 0.0,
    clip_grad: float | None = None,
    passes: Passes | None = None,
) -> float:
    """One optimizer step: the gradient of the whole batch, added up over its micro-batches, and the update.

    Args:
        model: in training mode.
        optimizer: over what trains.
        parts: micro-batches, of several processes this one's share.
        lr: learning rate of this step.
        videos: of all micro-batches of all processes together.
        execution: device and precision.
        mix: mixup or CutMix of the step; None: neither.
        label_smoothing: of the cross-entropy.
        clip_grad: largest gradient norm; None: not clipped.
        passes: draws of each clip, and how large a pass may be; None: a micro-batch, with torch's draws.

    Returns:
        The mean loss of the batch. Where it is not finite nothing is updated.

    Raises:
        TrainingFailed: memory ran out, with `passes` in a pass of one video.
    """
    set_learning_rate(optimizer, lr)

    again, passes = _Remembered(parts), passes or Passes()

    def backward() -> list[float] | None:
        losses = []
        with passes.too_large():
            for part in again:
                losses.append(sum(_backward(model, part, videos, mix, label_smoothing, execution, passes)))
            return torch.stack(losses).tolist() if losses else []  # the one wait for the device
        return None

    def update() -> None:
        if clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        optimizer.step()

    while (losses := execution.group.gradients(model, backward)) is None:
        optimizer.zero_grad(set_to_none=True)
        passes.halve()
    total = 0.0
    for loss in losses:
        total += loss
    if math.isfinite(total):
        execution.group.gather("update", update)
    optimizer.zero_grad(set_to_none=True)
    return total
