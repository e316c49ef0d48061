"""Speeds that an earlier run or a rehearsal has measured.

- Of a training, seconds a clip are those of its epochs but the first, which warms up; of a test, those of its views.
  What a job takes besides (start of Python, imports, models, MLflow, the first epoch's surplus) is the rest of what
  they measured, as a mean over jobs of its rule.
- Where a row or a data set was not measured, seconds a FLOP of the nearest that was are taken: the same row elsewhere,
  else rows of the same kind (with or without a backward pass).
- The interval is the middle 80 % of single epochs around the mean of their cell (with one epoch each: of cells around
  what FLOPs would say), and where FLOPs stand in for a measurement the smallest and the largest seconds a FLOP.
- Jobs without clips grow with what they read (`size`), less what it takes to start: as long as `tables`, which imports
  as much and reads little (a pre-training: as a training), and at most `MOSTLY` of their quickest. `costs` takes turns
  for some seconds, or a few rounds, whichever is longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median

from ssp.config import Config, load_results_config
from ssp.data.manifest import read_manifest
from ssp.errors import ConfigError, RecordError
from ssp.paths import Paths
from ssp.plan import work
from ssp.plan.rows import Rows, count_rows
from ssp.plan.speeds import AssumedSpeeds, Span, Speeds
from ssp.records.choice import Choice
from ssp.records.costs import Costs
from ssp.records.record import Record, load_checked, load_records
from ssp.records.usage import jobs, read_usage

MOST, ENOUGH_S = 40, 10.0  # of `ssp.jobs.costs`, which would import torch; a test compares them
MIDDLE = 0.1, 0.9  # of single epochs
MOSTLY = 0.9  # of a job that was too short to tell start from work
# Rules whose jobs grow with what they read.
GROWING = ("generate", "unpack", "manifest", "frames", "pretrain", "costs")


def size(config: Config, rule: str, job: tuple[str, ...]) -> float | None:
    """What the time of a job grows with: videos, frames, clips, FLOPs; None: not known before data are there."""
    if rule == "pretrain":
        pretrain = config.backbone.checkpoints[job[0]].pretrain
        return pretrain.clips + pretrain.held_out + 3 * pretrain.steps * pretrain.batch_size
    if rule == "costs":
        recipe = next(iter(config.datasets.values())).recipe
        return recipe.batch_size * recipe.augmentation.repeats
    dataset = config.columns[job[0]][0] if job[0] in config.columns else job[0]
    if rule in ("unpack", "manifest"):
        expected = config.datasets[dataset].expected
        return (expected.clips if expected else None) or sum(work.videos(config, dataset))
    found = frames(config, dataset)
    return found and found / (config.datasets[dataset].frames.shards if rule == "frames" else 1)


def rounds(costs: Costs, least: int, larger: float = 1.0) -> float:
    """Seconds of the rounds that `costs` takes, so many at least: steps so much larger, then inference as it was."""
    rows = [row for row in costs.rows.values() if not row.reason]
    steps, passes = (sum(median(getattr(row, key)) for row in rows) for key in ("step_seconds", "inference_seconds"))
    return sum(
        each * (1 + min(MOST, max(least, ENOUGH_S / each))) for each in (larger * steps, passes * costs.clips.inference)
    )


def frames(config: Config, dataset: str) -> float | None:
    """Frames of all listed videos: as the manifest has them, or as they are generated; None: not known yet."""
    path, made = Paths.of(config).manifest(dataset), config.datasets[dataset].generate
    for place in (path, Paths.of(config).kept_manifest(dataset)):
        if place.is_file():
            return float(read_manifest(place)["frames"].sum())
    return sum(work.videos(config, dataset)) * made.fps * sum(made.seconds) / 2 if made else None


class MeasuredSpeeds(Speeds):
    """Those of a folder of results: of the same config, of a part of it, or of a rehearsal.

    Args:
        folder: where they are.
        rows: of the config that is planned.
        there: the folder's own config.
        records: of whole runs under it.

    Raises:
        RecordError: a choice there cannot be read.
    """

    measured = True

    def __init__(self, folder: Path, rows: Rows, there: Config, records: list[Record]) -> None:
        self.rows, self.config, self._records = rows, there, records
        self._own = Rows(there, count_rows(there, known_costs(there)).facts)
        self._trained, self._forward, self._ratios = {}, {}, []
        self._measure_clips()
        self._jobs = {
            (rule, job): read_usage(path)
            for rule, found in jobs(there).items()
            for job in found
            if (path := Paths.of(there).usage(rule, *job)).is_file()
        }
        self._start = {"train": self._start_of_trainings(), "sweep": 0.0}
        self._training, self._start["sweep"] = self._start_of_trials()
        self.device = self._records[0].device
        self.told = f"measured: {len(self._records)} trainings and {len(self._jobs)} jobs in {folder}, on {self.device}"

    def trained(self, dataset: str, row: str) -> Span:
        """As its cell was measured, or the nearest."""
        return self._clip(self._trained, dataset, row, self.rows.frozen(row))

    def forward(self, dataset: str, row: str) -> Span:
        """As its cell was measured, or the nearest."""
        return self._clip(self._forward, dataset, row, None)

    def start(self, rule: str) -> Span:
        """Mean over jobs of the rule."""
        return self._spread(self._start[rule])

    def training(self) -> Span:
        """Mean over all trials."""
        return self._spread(self._training)

    def job(self, config: Config, rule: str, job: tuple[str, ...]) -> Span | None:
        """As it was measured, or as other jobs of the rule, in proportion to what it reads."""
        found = {name: m.s for (of, name), m in self._jobs.items() if of == rule}
        if not found:
            return None
        seconds = found[job] if job in found else fmean(found.values())
        if rule not in GROWING:
            return self._spread(seconds)
        sizes = size(config, rule, job), size(self.config, rule, job if job in found else next(iter(found)))
        if None in sizes or not sizes[1]:
            return None
        if rule == "costs" and (costs := known_costs(self.config)):
            besides = max(0.0, seconds - rounds(costs, self.config.compute.cost_rounds))
            return self._spread(besides + rounds(costs, config.compute.cost_rounds, sizes[0] / sizes[1]))
        reading = self._jobs.get(("tables", ()))
        start = self._start["train"] if rule == "pretrain" else reading.s if reading else 0.0
        least = min(start, MOSTLY * min(found.values()))
        return self._spread(least + max(0.0, seconds - least) * sizes[0] / sizes[1])

    def memory_mb(self, row: str) -> float | None:
        """The most that a run of the row took, or of any row where it was not measured."""
        own = [record for record in self._records if record.method == row] or self._records
        return max(record.run.peak_gpu_memory_mb or record.run.peak_memory_mb for record in own)

    def _measure_clips(self) -> None:
        """Seconds a FLOP of each (data set, row), in training and without gradients."""
        trained, forward = defaultdict(list), defaultdict(list)
        for record in self._records:
            cell = record.dataset, record.method
            clips = work.run(self.config, record.dataset, self._own.frozen(record.method))
            forward[cell].append(record.run.test_seconds / clips.tested / self._own.flops(*cell))
        self._forward = {cell: fmean(found) for cell, found in forward.items()}
        for record in self._records:
            cell, seconds = (record.dataset, record.method), record.run.epoch_seconds
            clips, epochs = work.run(self.config, record.dataset, self._own.frozen(record.method)), len(seconds)
            looking = self._forward[cell] * self._own.flops(*cell) * clips.viewed / epochs
            each = clips.trained / epochs * self._own.flops(*cell)
            # At least half of an epoch is training, however slow a small test was.
            trained[cell] += [max(s - looking, s / 2) / each for s in seconds[1:] or seconds]
        self._trained = {cell: fmean(found) for cell, found in trained.items()}
        if max(map(len, trained.values())) > 1:
            self._ratios = sorted(s / self._trained[cell] for cell, found in trained.items() for s in found)
        else:
            alike = {cell: self._own.frozen(cell[1]) for cell in trained}
            means = {kind: fmean(self._trained[c] for c in alike if alike[c] == kind) for kind in set(alike.values())}
            self._ratios = sorted(self._trained[cell] / means[alike[cell]] for cell in trained)

    def _spread(self, seconds: float) -> Span:
        """With the middle of what single epochs took beside the mean."""
        ends = (self._ratios[round(part * (len(self._ratios) - 1))] for part in MIDDLE)
        low, high = ends
        return Span(seconds, seconds * min(low, 1.0), seconds * max(high, 1.0))

    def _clip(self, a_flop: dict[tuple[str, str], float], dataset: str, row: str, frozen: bool | None) -> Span:
        """Seconds of a clip, from seconds a FLOP of its cell or of the nearest."""
        flops = self.rows.flops(dataset, row)
        if (dataset, row) in a_flop:
            return self._spread(a_flop[dataset, row] * flops)
        near = [s for (_, name), s in a_flop.items() if name == row]
        near = near or [s for (_, name), s in a_flop.items() if frozen in (None, self._own.frozen(name))]
        near = near or [*a_flop.values()]
        middle = self._spread(fmean(near) * flops)
        return Span(middle.value, min(middle.low, min(near) * flops), max(middle.high, max(near) * flops))

    def _seconds(self, dataset: str, row: str, clips: work.Clips) -> float:
        """Of clips of the run that was measured."""
        a_flop = self._trained.get((dataset, row)), self._forward.get((dataset, row))
        if None in a_flop:
            return 0.0
        flops = self._own.flops(dataset, row)
        return flops * (a_flop[0] * clips.trained + a_flop[1] * (clips.viewed + clips.tested))

    def _start_of_trainings(self) -> float:
        rest = []
        for record in self._records:
            job = self._jobs.get(("train", (record.dataset, record.method, f"seed{record.seed}")))
            clips = work.run(self.config, record.dataset, self._own.frozen(record.method))
            taken = job.s if job else record.run.seconds
            rest.append(taken - self._seconds(record.dataset, record.method, clips))
        return max(0.0, fmean(rest))

    def _start_of_trials(self) -> tuple[float, float]:
        """Seconds of a training of a sweep, and of each of its jobs, besides clips and trainings."""
        trainings, rest, starts = 0, 0.0, []
        for choice in self._choices():
            name = _sweep_job(choice)
            workers = [("search", (*name, f"worker{number}")) for number in self.config.workers(choice.dataset)]
            found = [self._jobs[job] for job in (("sweep", name), *workers) if job in self._jobs]
            seconds = choice.run.trial_seconds
            if None in seconds or not seconds:
                continue
            clips = self._tried(choice)
            if clips.trainings:
                trainings += clips.trainings
                rest += sum(seconds) - self._seconds(choice.dataset, choice.method, clips)
            if found or not workers:
                taken = sum(job.s for job in found) if found else choice.run.seconds
                starts.append((taken - sum(seconds)) / max(1, len(found)))
        return max(0.0, rest / max(1, trainings)), max(0.0, fmean(starts or [self._start["train"]]))

    def _tried(self, choice: Choice) -> work.Clips:
        """What a study trained, pruned trials as far as they came."""
        frozen, rungs = self._own.frozen(choice.method), self.config.rungs(choice.dataset)
        if frozen or any(trial.rung >= len(rungs) for trial in choice.trials):
            return work.study(self.config, choice.dataset, choice.method, frozen)
        tried = (
            work.trial(self.config, choice.dataset, rungs[trial.rung], frozen, len(trial.epochs))
            for trial in choice.trials
            if trial.state != "failed"
        )
        return sum(tried, work.Clips())

    def _choices(self) -> Iterator[Choice]:
        paths = Paths.of(self.config)
        for dataset, row, number in self.config.studies():
            path = paths.choice(dataset, row, number)
            if path.is_file():
                yield load_checked(Choice, path, "choice", "run the workflow again")


def known_costs(config: Config) -> Costs | None:
    """The costs in a folder of results, of whatever config; None where there are none."""
    path = Paths.of(config).costs
    return load_checked(Costs, path, "record of costs", config.command("costs")) if path.is_file() else None


def find_speeds(config: Config, folder: Path | None = None) -> tuple[Speeds, str | None]:
    """Speeds of a folder of results; where none is named, of the config's own if they fit, else assumed ones.

    Args:
        config: what is planned.
        folder: results of an earlier run or a rehearsal.

    Returns:
        The speeds, and why the config's own results were not taken, if there are any.

    Raises:
        RecordError: the named folder has no finished training.
        ConfigError: it has no config.
    """
    home = folder or config.home
    if not (home / "config.yaml").is_file():
        if folder:
            raise ConfigError(f"{folder}: no config.yaml; give a folder of results, such as results/demo")
        return AssumedSpeeds(count_rows(config)), None
    there, records = load_results_config(home), load_records(home / "records")
    finished = [record for record in records if _is_whole(record, there)]
    reason = None
    if not finished:
        reason = f"{home}: no training has finished there that could be measured"
    elif not folder and (finished[0].device == "cpu") == bool(config.compute.train.gpus):
        reason = f"{home}: was measured on {finished[0].device}, and compute.train.gpus is {config.compute.train.gpus}"
    if reason:
        if folder:
            raise RecordError(f"{reason}; run the workflow or `ssp rehearse` first")
        return AssumedSpeeds(count_rows(config)), reason
    return MeasuredSpeeds(home, count_rows(config, known_costs(there)), there, finished), None


def _is_whole(record: Record, there: Config) -> bool:
    """Whether a run of this config was measured from its start to its end: what a kill cut in two was not."""
    known = record.dataset in there.datasets and record.method in there.rows
    return bool(known and record.metrics and record.run.test_seconds) and record.run.resumed_after_epoch is None


def _sweep_job(choice: Choice) -> tuple[str, ...]:
    return (choice.dataset, choice.method, *(() if choice.study is None else (str(choice.study),)))
