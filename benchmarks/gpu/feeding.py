"""`fit` fed from a frame store by loader processes; killed, and taken up again."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from benchmarks.gpu import apart
from benchmarks.gpu.device import Device
from benchmarks.gpu.machine import ROOT
from benchmarks.gpu.training import made_model
from ssp.config import Clips, Frames, Recipe
from ssp.data import jpegs
from ssp.data.clips import ClipDataset
from ssp.data.frames import FrameStore, ShardWriter
from ssp.records.record import Chosen
from ssp.training.execution import Execution
from ssp.training.loop import EpochResult, TrainingState, epoch_batches, fit, take_step, trained_tensors
from ssp.training.mixing import draw_step
from ssp.training.optim import make_optimizer
from ssp.training.passes import MicroBatch

CHOSEN = Chosen(lr=1e-4, weight_decay=0.05, drop_path=0.4)
LIMIT = 60  # seconds of one training of `resumed`


@contextmanager
def stored(device: Device, steps: int) -> Iterator[tuple[ClipDataset, Recipe]]:
    """Training clips for so many steps, as the recipe for HMDB51 has them, and that recipe with steps of 16 clips.

    A few videos of a scene that pans, with some noise, under many rows: a store of another size reads alike.
    """
    # Not by `load_config`, which would import the sources of all data sets.
    config = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())["datasets"]["hmdb51"]
    recipe, sizes = Recipe.model_validate(config["recipe"]), device.sizes
    augmentation, quality = recipe.augmentation, Frames.model_validate(config["frames"]).jpeg_quality
    batch = max(2, sizes.clips // augmentation.repeats)
    recipe = recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0, "batch_size": batch, "micro_batch": None})
    videos, (count, frames, height, width) = steps * batch, sizes.stored
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="gpu-store-") as folder:
        with ShardWriter(Path(folder) / "shard-0.lmdb") as writer:
            records = [jpegs.pack(_scene(random, frames, height, width), quality) for _ in range(count)]
            for row in range(videos):
                writer.put_video(row, records[row % count])
            writer.put_meta({"manifest": "", "shards": 1, "short_side": height, "jpeg_quality": quality, "shard": 0})
        yield (
            ClipDataset(
                pd.DataFrame({"row": range(videos), "label": np.arange(videos) % 51}),
                FrameStore(folder),
                Clips(sampling="dense", num_frames=sizes.frames, stride=min(4, frames // sizes.frames)),
                image_size=sizes.image,
                mode="train",
                seed=0,
                augmentation=augmentation,
            ),
            recipe,
        )


def _scene(random: np.random.Generator, frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    wide = random.normal(0, 1, (-(-height // 8), -(-(width + frames) // 8), 3)).cumsum(1).repeat(8, 0).repeat(8, 1)
    for at in range(frames):
        frame = 128 + 20 * wide[:height, at : at + width] + random.normal(0, 4, (height, width, 3))
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _rate(times: Sequence[float], skipped: int, clips: int) -> float:
    """Clips a second, from the end of the last skipped step on."""
    return clips * (len(times) - skipped) / (times[-1] - times[skipped - 1])


def fed(device: Device) -> Iterator[dict]:
    """SSP: clips a second of `fit`, of its steps alone, and of the loader processes alone."""
    steps, skipped = device.sizes.fed
    execution = Execution(device.torch, bfloat16=True, loader_workers=device.sizes.loaders)
    with stored(device, steps) as (clips, recipe):
        model = made_model(device, "ssp", CHOSEN.drop_path).to(device.torch)
        per_step, ends = recipe.batch_size * recipe.augmentation.repeats, []
        device.forget_peak()
        training = fit(
            model,
            clips,
            None,
            recipe=recipe,
            chosen=CHOSEN,
            seed=0,
            execution=execution,
            on_step=lambda *_: ends.append(time.perf_counter()),  # a step waits for its loss
        )
        list(training)
        row = {"clips": per_step, "loaders": execution.loader_workers, "processors": len(os.sched_getaffinity(0))}
        row |= {"fed": _rate(ends, skipped, per_step), "peak_gb": device.peak_gb()}
        ends = []
        batches = epoch_batches(len(clips), recipe.batch_size, 0, 1)
        for *given, _, _, erasing in execution.loader(clips, batches):
            ends.append(time.perf_counter())
            part = MicroBatch(0, *(tensor.to(device.torch) for tensor in (*given, erasing)))
        row["loaded"] = _rate(ends, skipped, per_step)
        work = partial(
            take_step,
            model.train(),
            make_optimizer(model, 0.05),
            [part],
            lr=1e-4,
            videos=recipe.batch_size,
            mix=draw_step(recipe.augmentation, 0, 0, 0, recipe.batch_size),
            label_smoothing=recipe.label_smoothing,
            execution=execution,
        )
        took = device.milliseconds({"step": work}, device.sizes.rounds)["step"]
        yield row | {"alone": 1000 * per_step / took}


def _train(
    device: Device, clips: ClipDataset, recipe: Recipe, folder: Path, name: str, killed_in: int | None
) -> Iterator[dict]:
    """A training in a process of its own: its first step here, its loss and its weights."""
    device.set_up()
    execution = Execution(device.torch, bfloat16=True, loader_workers=2)
    began: list[int] = []

    def on_step(done: int, _: int) -> None:
        began.append(done)
        if done == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)  # the step is taken, and not yet saved

    model = made_model(device, "ssp", CHOSEN.drop_path).to(device.torch)
    training = fit(
        model,
        clips,
        None,
        recipe=recipe,
        chosen=CHOSEN,
        seed=0,
        execution=execution,
        state=TrainingState(folder / name, "gpu"),
        save_every_s=0,
        on_step=on_step,
    )
    done: list[EpochResult] = list(training)
    weights = torch.cat([tensor.flatten().float().cpu() for tensor in trained_tensors(model).values()])
    torch.save(weights, folder / f"{name}.weights")
    yield {"began": began[0], "loss": done[-1].train_loss}


def resumed(device: Device) -> Iterator[dict]:
    """Three processes: a training that nobody kills, one killed within an epoch, and the same one again."""
    steps, kill = device.sizes.resumed
    with tempfile.TemporaryDirectory(prefix="gpu-state-") as scratch, stored(device, steps) as (clips, recipe):
        folder, found = Path(scratch), {}
        for name, state, killed_in in (("whole", "one", None), ("killed", "two", kill), ("again", "two", None)):
            rows: list[dict] = []
            problem = apart.run(partial(_train, device, clips, recipe, folder, state, killed_in), LIMIT, rows.append)
            if (name == "killed") != (problem is not None and problem.endswith(f"{-signal.SIGKILL}")):
                raise RuntimeError(f"the {name} training: {problem}")
            found[name] = rows
        one, two = (torch.load(folder / f"{state}.weights") for state in ("one", "two"))
        yield {
            **{"steps": steps, "killed_in": kill, "went_on_with": found["again"][0]["began"]},
            "loss_difference": abs(found["again"][0]["loss"] - found["whole"][0]["loss"]),
            **{"weight_difference": (one - two).abs().max().item(), "equal": torch.equal(one, two)},
        }
