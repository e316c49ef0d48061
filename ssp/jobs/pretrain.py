"""Pre-training of the demo's backbone on generated source classes.

- Full training of a fresh model, by the steps of every training, with the settings of
  `backbone.checkpoints.<name>.pretrain`; the published backbones
  are fetched instead and never come here.
- Clips are rendered once, in memory; no augmentation, since the renderer varies everything that is not the class.
- Clip order and weights are functions of the seed: the same settings give the same bytes on the same machine and
  number of threads, killed and continued or not (state every `STATE_EVERY` steps, removed at the end).
- What is written is the backbone under its published names, without the head of the source classes, and beside it a
  JSON report of the accuracy on held-out clips.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssp.backbone.checkpoint import write_safetensors
from ssp.backbone.layout import is_head
from ssp.config import Checkpoint, Config, Pretrain, slice_hash
from ssp.data.synthetic import source
from ssp.data.synthetic.scenes import SOURCE
from ssp.errors import CheckpointError, ConfigError
from ssp.files import write_json
from ssp.jobs.lease import lease
from ssp.jobs.team import Team, obey, team
from ssp.methods.build import build_model
from ssp.paths import Paths
from ssp.progress import progress
from ssp.training.execution import Execution, derive_seed
from ssp.training.loop import TrainingState, take_step
from ssp.training.optim import Schedule, make_optimizer
from ssp.training.passes import MicroBatch
from ssp.training.stopping import Interrupted, asked_to_stop, stoppable

STATE_EVERY = 100  # steps


def run_pretrain(config: Config, checkpoint: str) -> Path:
    """Pre-train a backbone and write it to `Paths.backbone(checkpoint)`, with a report beside it.

    The state that a killed run continues from is written every `STATE_EVERY` steps.

    Raises:
        ConfigError: the config has no such checkpoint, or fetches it.
        CheckpointError: the loss is not finite.
    """
    chosen = config.backbone.checkpoints.get(checkpoint)
    if chosen is None or chosen.pretrain is None:
        known = [name for name, entry in config.backbone.checkpoints.items() if entry.pretrain]
        raise ConfigError(
            f"backbone.checkpoints.{checkpoint}: nothing to pre-train; pre-trained are: {', '.join(known) or 'none'}"
        )
    paths, path = Paths.of(config), Paths.of(config).backbone(checkpoint)
    size = config.processes("pretrain")
    if size > min(chosen.pretrain.batch_size, chosen.pretrain.clips):
        raise ConfigError(
            f"compute.pretrain: {size} processes (or gpus) are too many for steps of {chosen.pretrain.batch_size} clips"
        )
    state, outputs = _state(config, checkpoint), [paths.backbone_report(checkpoint), path]
    with (
        team(size, bool(config.compute.pretrain.gpus), _take_part, (config, checkpoint)) as others,
        stoppable(),
        lease(paths.lease(path), outputs, state.identity, state.remove) as draft,
    ):
        if draft:
            _pretrain(config, checkpoint, draft, others)
    return path


def _take_part(config: Config, checkpoint: str) -> None:
    """What another process than the first does."""
    obey(lambda _: _trained(config, checkpoint))


def _state(config: Config, checkpoint: str) -> TrainingState:
    """Where a killed run goes on."""
    made_with = {"slice": config.backbone_slice(checkpoint), "torch": torch.__version__}
    return TrainingState(Paths.of(config).backbone(checkpoint).with_suffix(".state"), slice_hash(made_with))


def _pretrain(config: Config, checkpoint: str, draft: Path, others: Team | None) -> None:
    """The training, by the one job that is at it."""
    chosen, path = config.backbone.checkpoints[checkpoint], Paths.of(config).backbone(checkpoint)
    started = time.time()
    if others:
        others.order("train")
    model, losses, execution = _trained(config, checkpoint)
    settings, identity = chosen.pretrain, _state(config, checkpoint).identity
    report = _measure(model, *_rendered(config, chosen, held_out=True), settings, execution)
    report |= {"train_loss": losses[-1], "settings": settings.model_dump(mode="json"), "identity": identity}
    report["config_hash"] = slice_hash(config.backbone_slice(checkpoint))
    processes = others.size if others else 1
    report["run"] = {"seconds": round(time.time() - started, 1), "device": execution.name, "processes": processes}
    write_json(draft / Paths.of(config).backbone_report(checkpoint).name, report)
    weights = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if not is_head(n)}
    write_safetensors(weights, draft / path.name, {"identity": identity})


def _trained(config: Config, checkpoint: str) -> tuple[nn.Module, list[float], Execution]:
    """The trained model, its losses, and how it was computed; the same in each process."""
    chosen = config.backbone.checkpoints[checkpoint]
    settings = chosen.pretrain
    execution = Execution.of(config.compute, "pretrain", "auto")
    clips, labels = _rendered(config, chosen, held_out=False)
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = build_model(
        config.backbone.architecture,
        "full",
        source.CLASSES,
        num_frames=chosen.num_frames,
        img_size=config.backbone.image_size,
    ).to(execution.device)
    return model, _train(model, clips, labels, settings, execution, _state(config, checkpoint)), execution


def _channels_first(clips: np.ndarray) -> Tensor:
    """(B, T, H, W, 3) to (B, 3, T, H, W)."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)


def _rendered(config: Config, chosen: Checkpoint, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """All clips uint8 (N, T, H, W, 3) of training or of the held-out part, and their labels."""
    size, frames = config.backbone.image_size, chosen.num_frames
    count = chosen.pretrain.held_out if held_out else chosen.pretrain.clips
    clips, labels = np.empty((count, frames, size, size, 3), np.uint8), np.empty(count, np.int64)
    with progress("render held-out clips" if held_out else "render source clips") as update:
        for i in range(count):
            clips[i], labels[i] = source.source_clip(chosen.pretrain.seed, held_out, i, frames=frames, image_size=size)
            update(i + 1, count)
    return clips, labels


def _train(
    model: nn.Module,
    clips: np.ndarray,
    labels: np.ndarray,
    settings: Pretrain,
    execution: Execution,
    state: TrainingState,
) -> list[float]:
    """Train in place from the kept state, or from the beginning; returns the mean loss between two states."""
    optimizer = make_optimizer(model, settings.weight_decay)
    schedule = Schedule(settings.lr, settings.steps, round(settings.warmup * settings.steps))
    saved = state.restore(model, optimizer, execution) or {"step": 0, "losses": [], "running": []}
    first, losses, running = saved["step"], saved["losses"], saved["running"]
    group = execution.group
    group.same_weights(model)
    model.train()
    with progress("pre-train") as update:
        for step in range(first, settings.steps):
            batch = step_clips(len(clips), settings, step)
            loss = take_step(
                model,
                optimizer,
                (
                    MicroBatch(0, _channels_first(clips[part])[:, None], torch.from_numpy(labels[part]))
                    for part in group.share(np.array_split(batch, group.size))
                ),
                lr=schedule(step),
                videos=len(batch),
                clip_grad=settings.clip_grad,
                execution=execution,
            )
            if not math.isfinite(loss):
                raise CheckpointError(
                    f"pre-training: the loss is not finite at step {step}; lower backbone.checkpoints.*.pretrain.lr"
                )
            running.append(loss)
            done = step + 1
            update(done, settings.steps)
            if done % STATE_EVERY == 0 or done == settings.steps:
                losses.append(math.fsum(running) / len(running))
                running.clear()
                state.save(model, optimizer, step=done, losses=losses, running=running)
            asked, *_ = group.gather("stopping", asked_to_stop)
            if asked:
                state.save(model, optimizer, step=done, losses=losses, running=running)
                raise Interrupted
    return losses


def step_clips(clips: int, settings: Pretrain, step: int) -> np.ndarray:
    """Indices of a step's clips: a permutation per pass, cut into full batches."""
    size = min(settings.batch_size, clips)
    epoch, position = divmod(step, clips // size)
    order = np.random.default_rng(derive_seed(settings.seed, "order", epoch)).permutation(clips)
    return order[position * size : (position + 1) * size]


@torch.no_grad()
def _measure(
    model: nn.Module, clips: np.ndarray, labels: np.ndarray, settings: Pretrain, execution: Execution
) -> dict[str, float | int]:
    """Accuracy in percent on held-out clips: of the class, and of its two halves, the look and the motion."""
    model.eval()
    parts = range(0, len(clips), 4 * settings.batch_size)
    guesses = np.concatenate(
        [model(execution.clips(_channels_first(clips[i : i + parts.step]))).argmax(1).cpu().numpy() for i in parts]
    )
    looks = np.unique([(action.hue + action.shape) for action in SOURCE], return_inverse=True)[1]
    motions = np.unique([action.motion for action in SOURCE], return_inverse=True)[1]
    return {
        "clips": len(clips),
        "classes": len(SOURCE),
        "top1": round(100 * float((guesses == labels).mean()), 2),
        "look_top1": round(100 * float((looks[guesses] == looks[labels]).mean()), 2),
        "motion_top1": round(100 * float((motions[guesses] == motions[labels]).mean()), 2),
    }
