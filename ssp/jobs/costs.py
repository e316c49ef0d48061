"""What training and using each row costs, measured on one machine in one job.

Design choices
- Rows take turns, round after round, so that whatever else the machine does falls on all of them; a round's times are
  compared with each other (`ssp.tables.costs`). The first round warms up and does not count.
- A step is the training loop's own (`take_step`: forward, backward, clipping, AdamW) at the recipe's batch size, in its
  micro-batches. Clips are random numbers that lie on the device: loading and augmenting cost every row the same.
- Weights are random: nothing measured depends on their values. So this needs neither data nor the backbone's file.
- Options are those of the config; what a search chooses may differ from data set to data set.
- Memory is the peak of two steps, in a process of its own for each row: of torch's allocator on a GPU, of resident
  memory on a CPU. What a step of a linear probe on one video leaves there first (libraries, their buffers) is left out.
- A row that is out of memory has a reason in place of these numbers, and the others go on.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ssp.backbone.checkpoint import save_tuned
from ssp.backbone.flops import UncountedOperator, forward_flops
from ssp.backbone.videomamba import VideoMamba
from ssp.config import Config, Recipe, slice_hash
from ssp.data.manifest import class_count
from ssp.jobs.cell import new_model
from ssp.methods.parameters import parameter_counts
from ssp.processes import end_with_parent
from ssp.progress import progress
from ssp.records.costs import Clips, Costs, RowCosts, save_costs
from ssp.records.record import Parameters, Scan, package_versions, running_code
from ssp.scan import choose_backend
from ssp.training.evaluate import evaluation_batch
from ssp.training.execution import Execution
from ssp.training.failure import TrainingFailed, failures
from ssp.training.loop import take_step
from ssp.training.optim import make_optimizer
from ssp.training.passes import MicroBatch

MOST, ENOUGH_S = 40, 10.0  # rounds; seconds after which no more than the least (`compute.cost_rounds`) are needed
PAGE = 4096  # bytes; a model that fits into what was left free shows no more
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05  # any will do
log = logging.getLogger(__name__)

Key = str | None  # a row, or None: the linear probe that is measured besides where no row is one


@dataclass(frozen=True)
class Setting:
    """What is measured: a method with its options, on the clips of a data set (None: the first of the config)."""

    config: Config
    method: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)
    drop_path: float = 0.0
    dataset: str | None = None

    @property
    def clips_of(self) -> str:
        """The data set."""
        return self.dataset or next(iter(self.config.datasets))

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.config.datasets[self.clips_of].recipe

    @property
    def execution(self) -> Execution:
        """Where it computes, and how."""
        return Execution.of(self.config.compute, "train", self.recipe.precision)

    def build(self) -> VideoMamba:
        """The model, where torch makes new tensors."""
        return new_model(self.config, self.clips_of, self.method, self.options, self.drop_path)


def measure_costs(config: Config) -> Costs:
    """Count and measure what each row of the tables costs, and write `results/<config>/costs.json`.

    Raises:
        ConfigError: the GPU that the config asks for is not there.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    settings = settings_of(config)
    first = next(iter(settings.values()))
    clips, execution = _clips(config), first.execution
    counted = {key: _count(setting) for key, setting in settings.items()}
    memory = {key: peak_memory(setting, clips.videos) for key, setting in settings.items()}
    fitting = {key: setting for key, setting in settings.items() if isinstance(memory[key], int)}
    steps, passes = _time(fitting, clips, execution, config.compute.cost_rounds)
    rows = {key: _row(counted[key], memory[key], steps.get(key), passes.get(key)) for key in settings}
    plain, scan = config.costs_slice(), choose_backend(torch.float32, execution.device)
    costs = Costs(
        config=plain,
        config_hash=slice_hash(plain),
        clips=clips,
        device=execution.name,
        threads=config.compute.train.threads,
        precision="bfloat16" if execution.bfloat16 else "float32",
        scan=Scan(backend=scan.name, reason=scan.reason),
        git=running_code(),
        versions=package_versions(),
        rows={name: rows[name] for name in config.methods},
        probe=rows.get(None),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - clock, 3),
        host=socket.gethostname(),
    )
    save_costs(config, costs)
    return costs


def settings_of(config: Config) -> dict[Key, Setting]:
    """What is measured for a config: its rows, and a linear probe where none of them is one."""
    dataset = next(iter(config.datasets))
    settings: dict[Key, Setting] = {name: setting_of(config, dataset, name) for name in config.methods}
    if all(setting.method != "linear" for setting in settings.values()):
        settings[None] = Setting(config, drop_path=config.datasets[dataset].start.drop_path)
    return settings


def setting_of(config: Config, dataset: str, name: str) -> Setting:
    """A row on the clips of a data set, as its first trial has it."""
    row = config.rows[name]
    return Setting(config, row.method, row.options, config.first_trial(dataset, name).drop_path, dataset)


def _clips(config: Config) -> Clips:
    name, dataset = next(iter(config.datasets.items()))
    recipe = dataset.recipe
    return Clips(
        frames=dataset.clips.num_frames,
        image_size=config.backbone.image_size,
        classes=class_count(config, name),
        videos=recipe.batch_size,
        at_once=min(recipe.micro_batch or recipe.batch_size, recipe.batch_size),
        repeats=recipe.augmentation.repeats,
        inference=evaluation_batch(recipe),
    )


def _row(
    counted: dict[str, Any],
    memory: int | TrainingFailed,
    steps: list[float] | TrainingFailed | None,
    passes: list[float] | TrainingFailed | None,
) -> RowCosts:
    """What was found of a row, or why it was not."""
    found = {"memory_bytes": memory, "step_seconds": steps, "inference_seconds": passes}
    failure = next((value for value in found.values() if isinstance(value, TrainingFailed)), None)
    return RowCosts(**counted, reason=str(failure)) if failure else RowCosts(**counted, **found)


# What shapes alone decide.


def _count(setting: Setting) -> dict[str, Any]:
    """Parameters, FLOPs, and the size of the saved weights."""
    with torch.device("meta"):
        model, merged = setting.build(), setting.build()
    found = {
        "method": setting.method,
        "options": setting.options,
        "parameters": Parameters(**parameter_counts(model)),
        "flops": _flops(model),
    }
    if model.method.mergeable:
        merged.method.merge(merged)
        found["merged_flops"] = _flops(merged)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_tuned(model.to_empty(device="cpu"), path, {})
        return found | {"saved_bytes": path.stat().st_size}


def _flops(model: VideoMamba) -> int | None:
    try:
        return forward_flops(model)
    except UncountedOperator as problem:
        log.warning("%s: FLOPs are left out: %s", model.method.name, problem)
        return None


# Steps, and the memory that they take.


class Trainee:
    """A model with its optimizer, ready to take a step on the same videos again and again."""

    def __init__(self, setting: Setting, execution: Execution, videos: int) -> None:
        torch.manual_seed(0)
        self.execution, self.videos, recipe = execution, videos, setting.recipe
        self.clip_grad, self.at_once = recipe.clip_grad, min(recipe.micro_batch or videos, videos)
        self.model = setting.build().to(execution.device).train()
        self.optimizer = make_optimizer(self.model, WEIGHT_DECAY)
        shape = (3, self.model.bare_layout.frames, *self.model.img_size)
        self.clips = torch.randn(self.at_once, recipe.augmentation.repeats, *shape, device=execution.device)
        self.labels = torch.arange(self.at_once, device=execution.device) % self.model.head.out_features

    def step(self) -> None:
        """One optimizer step."""
        loss = take_step(
            self.model,
            self.optimizer,
            self.parts(),
            lr=LEARNING_RATE,
            videos=self.videos,
            clip_grad=self.clip_grad,
            execution=self.execution,
        )
        if not math.isfinite(loss):  # then there was no update
            raise TrainingFailed(f"the loss of random clips is {loss}")

    def parts(self) -> Iterator[MicroBatch]:
        """The micro-batches of a step."""
        for start in range(0, self.videos, self.at_once):
            count = min(self.at_once, self.videos - start)
            yield MicroBatch(start, self.clips[:count], self.labels[:count])


def peak_memory(setting: Setting, videos: int, steps: int = 2) -> int | TrainingFailed:
    """`measure_memory` in a process of its own: a copy of one that has imported all this and computed nothing."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, "torch._dynamo"])  # which the first optimizer step imports
    with ProcessPoolExecutor(1, mp_context=processes, initializer=end_with_parent) as pool:
        try:
            return pool.submit(measure_memory, setting, videos, steps).result()
        except TrainingFailed as failure:
            return failure
        except BrokenProcessPool:
            return TrainingFailed("out of memory: the process was killed")


def measure_memory(setting: Setting, videos: int, steps: int = 2) -> int:
    """Bytes that optimizer steps take at their peak, with model, optimizer and clips; the second has its state."""
    execution = setting.execution
    with failures():
        Trainee(Setting(setting.config), execution, 1).step()
        before = _memory_now(execution.device)
        trainee = Trainee(setting, execution, videos)
        for _ in range(steps):
            trainee.step()
    return max(_memory_peak(execution.device) - before, PAGE)


def _memory_now(device: torch.device) -> int:
    """Bytes in use, once what is free has been given back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return _resident("VmRSS")


def _memory_peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(key: str) -> int:
    """Resident memory of this process in bytes: VmRSS now, VmHWM at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


# Time.


Times = dict[Key, list[float] | TrainingFailed]


def _time(settings: dict[Key, Setting], clips: Clips, execution: Execution, least: int) -> tuple[Times, Times]:
    """Seconds of each round's step, and of its inference on one clip; merged where a method folds into the weights."""
    if not settings:
        return {}, {}
    trainees = {key: Trainee(setting, execution, clips.videos) for key, setting in settings.items()}
    steps = _rounds({key: trainee.step for key, trainee in trainees.items()}, execution.device, "steps", least)
    models = {key: trainee.model.eval() for key, trainee in trainees.items()}
    trainees.clear()
    for model in models.values():
        if model.method.mergeable:
            model.method.merge(model)
    shape = (clips.inference, 3, clips.frames, clips.image_size, clips.image_size)
    video = torch.randn(shape, device=execution.device)

    def look(model: VideoMamba) -> None:
        with torch.inference_mode(), execution.autocast():
            model(video)

    works = {key: lambda model=model: look(model) for key, model in models.items()}
    passes = _rounds(works, execution.device, "inference", least)
    per_clip = {k: v if isinstance(v, TrainingFailed) else [s / len(video) for s in v] for k, v in passes.items()}
    return steps, per_clip


def _rounds(works: dict[Key, Callable[[], None]], device: torch.device, title: str, least: int) -> Times:
    """Seconds that each work takes, in rounds through all of them after one to warm up."""
    times: Times = {key: [] for key in works}
    began = time.perf_counter()
    with progress(f"costs: {title}") as on_round:
        for turn in range(MOST + 1):
            for key, work in works.items():
                if isinstance(times[key], TrainingFailed):
                    continue
                try:
                    with failures():
                        seconds = _seconds(work, device)
                except TrainingFailed as failure:
                    times[key] = failure
                else:
                    times[key] += [seconds] if turn else []
            on_round(turn, MOST)
            if turn >= least and time.perf_counter() - began > ENOUGH_S:
                break
    return times


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    finish()
    start = time.perf_counter()
    work()
    finish()
    return time.perf_counter() - start
