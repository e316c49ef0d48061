"""The plan of a config: its jobs, each with its clips and seconds, and their sums by stage, data set and row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from ssp.config import Config
from ssp.plan import work
from ssp.plan.speeds import Span, Speeds, total
from ssp.records.usage import jobs

STAGES = ("data", "frames", "pre-training", "search", "training", "testing", "costs and report")
_STAGE = {
    **dict.fromkeys(("generate", "fetch", "unpack", "manifest", "keep_manifest", "fetch_weights"), "data"),
    "frames": "frames",
    "pretrain": "pre-training",
}
_KIND = {rule: "data" for rule in ("generate", "unpack", "manifest", "frames")} | {"pretrain": "pretrain"}
"""Which section of `compute` a rule asks for; all others that run as jobs ask for `train`."""
_LOCAL = (
    *("fetch", "fetch_weights", "init_tracking", "build_scan"),
    *("tables", "ablation", "ablation_curve", "keep_manifest", "report"),
)
MARGIN = 1.5  # of time that is asked for


@dataclass(frozen=True)
class Share:
    """Part of a job: what it does in one stage."""

    rule: str
    job: tuple[str, ...]
    stage: str
    dataset: str | None
    row: str | None
    clips: work.Clips
    seconds: Span | None
    """None: not known."""


@dataclass(frozen=True)
class Longest:
    """The longest job of one section of `compute`, in minutes."""

    section: str
    job: str
    minutes: Span
    limit: int


@dataclass(frozen=True)
class Estimate:
    """What a config takes."""

    config: Config
    speeds: Speeds
    shares: list[Share]

    def hours(self, **of: str | None) -> Span:
        """Hours of jobs; of one stage, data set or row where that is said."""
        chosen = (s for s in self.shares if s.seconds and all(getattr(s, key) == of[key] for key in of))
        return total(share.seconds for share in chosen) * (1 / 3600)

    def clips(self, **of: str | None) -> tuple[float, float]:
        """Clips forward and backward, and forward alone; of one stage, data set or row where that is said."""
        both, forward = 0.0, 0.0
        for share in self.shares:
            if all(getattr(share, key) == of[key] for key in of):
                through = not (share.row and self.speeds.rows.frozen(share.row))
                both += share.clips.trained if through else 0
                forward += share.clips.viewed + share.clips.tested + (0 if through else share.clips.trained)
        return both, forward

    def jobs(self, **of: str | None) -> int:
        """Jobs that have a part in it."""
        return len({(s.rule, s.job) for s in self.shares if all(getattr(s, key) == of[key] for key in of)})

    @property
    def unknown(self) -> list[str]:
        """Rules whose time nobody knows yet."""
        return sorted({share.rule for share in self.shares if share.seconds is None})

    def longest(self) -> list[Longest]:
        """The longest job of each section of `compute`, beside the minutes that it is given; sweeps apart."""
        longest: dict[tuple[str, bool], Longest] = {}
        for (rule, job), seconds in self._asking().items():
            section, sweep = _KIND.get(rule, "train"), rule in ("search", "sweep")
            limit = getattr(self.config.compute, section).runtime * self._times(rule, job)
            one = Longest(section, " ".join((rule, *job)), seconds * (1 / 60), limit)
            if (section, sweep) not in longest or one.minutes > longest[section, sweep].minutes:
                longest[section, sweep] = one
        return list(longest.values())

    def requests(self) -> dict[str, int]:
        """Minutes of `runtime` that each section of `compute` needs for its longest job, with `MARGIN`."""
        needed: dict[str, float] = defaultdict(float)
        for (rule, job), seconds in self._asking().items():
            section = _KIND.get(rule, "train")
            needed[section] = max(needed[section], seconds.value / 60 / self._times(rule, job))
        return {section: ceil(MARGIN * minutes) for section, minutes in needed.items()}

    def _asking(self) -> dict[tuple[str, tuple[str, ...]], Span]:
        """Seconds of each job that asks for time, and is not run where snakemake is."""
        found: dict[tuple[str, tuple[str, ...]], list[Span]] = defaultdict(list)
        for share in self.shares:
            if share.seconds and share.rule not in _LOCAL:
                found[share.rule, share.job].append(share.seconds)
        return {job: total(spans) for job, spans in found.items()}

    def _times(self, rule: str, job: tuple[str, ...]) -> int:
        """How often `runtime` a job is given: a search has it for each training that its trials make together."""
        if rule not in ("search", "sweep"):
            return 1
        return max(1, ceil(self.config.trainings_of_a_study(job[0]) / max(1, len(self.config.workers(job[0])))))


def estimate(config: Config, speeds: Speeds) -> Estimate:
    """Plan a config.

    Raises:
        DataError: own videos are counted by their manifest, and there is none yet.
    """
    shares: list[Share] = []
    for rule, found in jobs(config).items():
        for job in found:
            shares += _shares(config, speeds, rule, job)
    return Estimate(config, speeds, shares)


def _shares(config: Config, speeds: Speeds, rule: str, job: tuple[str, ...]) -> Iterable[Share]:
    if rule in ("search", "sweep"):
        dataset, row = job[:2]
        clips, workers = work.study(config, dataset, row, speeds.rows.frozen(row)), len(config.workers(dataset))
        if workers:  # they share the trials, and the sweep chooses
            clips = work.Clips() if rule == "sweep" else (1 / workers) * clips
        seconds = [speeds.start("sweep"), speeds.training() * clips.trainings]
        yield Share(rule, job, "search", dataset, row, clips, total([*seconds, *_passes(speeds, dataset, row, clips)]))
    elif rule == "train":
        dataset, row = job[:2]
        clips = work.run(config, dataset, speeds.rows.frozen(row))
        training, test = work.Clips(clips.trained, clips.viewed, 0, 1), work.Clips(tested=clips.tested)
        seconds = total([speeds.start(rule), *_passes(speeds, dataset, row, training)])
        yield Share(rule, job, "training", dataset, row, training, seconds)
        yield Share(rule, job, "testing", dataset, row, test, total(_passes(speeds, dataset, row, test)))
    else:
        stage = _STAGE.get(rule, "costs and report")
        clips, dataset = work.Clips(), None
        if rule == "pretrain":
            pretrain = config.backbone.checkpoints[job[0]].pretrain
            clips = work.Clips(pretrain.steps * pretrain.batch_size, pretrain.held_out, 0, 1)
        elif job and job[0] in {*config.datasets, *config.archived}:
            dataset = config.columns[job[0]][0] if job[0] in config.archived else job[0]
        yield Share(rule, job, stage, dataset, None, clips, speeds.job(config, rule, job))


def _passes(speeds: Speeds, dataset: str, row: str, clips: work.Clips) -> list[Span]:
    return [
        speeds.trained(dataset, row) * clips.trained,
        speeds.forward(dataset, row) * (clips.viewed + clips.tested),
    ]
