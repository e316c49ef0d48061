"""The workflow killed at random moments and started again with the same command, and what must hold at its end.

- Snakemake and all that it started get SIGKILL. Which jobs there are, go on and are finished is read from Snakemake's
  own words, so the jobs of a new rule are killed and watched too.
- Before each start workflow/scripts/clear_stale_lock.py runs, as in `make demo`.
- What must hold: no finished job runs again; a killed training goes on after its last safe epoch; every file of data
  and results has the bytes of an unkilled run (of JSON: all but `run` and the commit; not compared are logs, times,
  costs, and MLflow's and Optuna's own files); no temporary file is left; no trial and no MLflow run stays RUNNING,
  and each run that a record names is finished.

Used by benchmarks/kill_anywhere.py, and by a short test; what must hold at the end also by benchmarks/kill_cluster.py,
whose studies and MLflow runs are elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ssp.jobs.warm import ADDRESS
from ssp.records.usage import read_usage
from tests.services import slay
from tests.workflow.running import ROOT, TINY, command_line

if TYPE_CHECKING:
    from mlflow.entities import Run
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

RESULTS = Path("results/tiny")
UNLIKE = ("logs/", "mlflow/", "state/", "report.html", "costs.json", "tables/costs.", "SHA256SUMS")
"""How names of results begin that are times, bytes of memory and ids, by their nature."""
MOMENTS = {"trial": 0.3, "epoch": 0.3, "evaluation": 0.3}  # short within long jobs, met by what they write; seconds
LIMIT_S = 1800  # for one start of the workflow
_JOB = re.compile(r"^(?:Job|\s+jobid:) (\d+)")
_LOG = re.compile(r"^Shell command: .* > \S*/logs/(\S+)\.log 2>&1$")
_FINISHED = re.compile(r"^Finished jobid: (\d+)")


def write_config(folder: Path, *, epochs: int, steps: int, quick: bool = False) -> None:
    """One seed of tiny.yaml, with more epochs and pre-training steps, so that kills meet them; `quick`: one cell."""
    plain = yaml.safe_load(TINY.read_text())
    plain["backbone"]["checkpoints"]["f4"]["pretrain"]["steps"] = steps
    for dataset in plain["datasets"].values():
        dataset["recipe"]["epochs"] = epochs
    plain["seeds"] = plain["seeds"][:1]
    if quick:
        plain["datasets"] = {"breakfast": plain["datasets"]["breakfast"]}
        plain["methods"] = {"ssp": plain["methods"]["ssp"]}
        plain.pop("ablations", None)
    folder.mkdir()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))


# -- one start of the workflow ---------------------------------------------------------------------------------------


class Start:
    """One start of Snakemake in a folder, which is its working directory."""

    def __init__(self, folder: Path, number: int, cores: int) -> None:
        clear = [sys.executable, ROOT / "workflow/scripts/clear_stale_lock.py"]
        subprocess.run(clear, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        command = command_line(folder, "--configfile", "tiny.yaml", "--cores", str(cores))
        # Every other start has each job import for itself: what a job writes must not depend on that.
        environment = os.environ | ({ADDRESS: ""} if number % 2 else {})
        self.folder, self.number, self.log = folder, number, folder / f"start-{number}.log"
        with self.log.open("w") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)

    def jobs(self) -> tuple[list[str], list[str]]:
        """Jobs that were started, and those that were finished; named as their logs, "rule/wildcards"."""
        started, finished, number = {}, [], ""
        for line in self.log.read_text(errors="replace").splitlines():
            if match := _JOB.match(line):
                number = match[1]
            elif match := _LOG.match(line):
                started[number] = match[1]
            elif (match := _FINISHED.match(line)) and match[1] in started:
                finished.append(started[match[1]])
        return list(started.values()), finished

    def going_on(self) -> list[str]:
        """Jobs at work now."""
        started, finished = self.jobs()
        return sorted(set(started) - set(finished))

    def wait(self) -> None:
        """Until the workflow is complete; an error when it fails."""
        if code := self.process.wait(LIMIT_S):
            raise RuntimeError(f"start {self.number} ended with {code}\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL to Snakemake, then to all that runs in the folder, until nothing does."""
        self.process.kill()
        self.process.wait()
        while alive := running(self.folder):
            slay(*alive)
            time.sleep(0.02)


def running(folder: Path) -> list[int]:
    """Processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if status != "Z" and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
    return found


def run_whole(folder: Path, cores: int) -> dict[str, float]:
    """The run that nobody kills; returns the rules that call the library as they began, with mean seconds of a job."""
    start, seconds = Start(folder, 0, cores), {}
    start.wait()
    for job in start.jobs()[0]:
        if (used := folder / RESULTS / f"logs/{job}.tsv").exists():
            seconds.setdefault(job.split("/")[0], []).append(read_usage(used).s)
    return {rule: sum(times) / len(times) for rule, times in seconds.items()}


# -- the moment to kill ----------------------------------------------------------------------------------------------


def _trigger(stage: str, start: Start) -> Callable[[], bool]:
    """A function that says whether a stage, a rule or one of MOMENTS, is going on."""
    results = start.folder / RESULTS
    if stage == "trial":  # a trial writes its parameters and epochs into the journal of its study

        def written() -> int:
            return sum(path.read_bytes().count(b"\n") for path in results.glob("state/sweeps/*/*.journal"))

        before = written()
        return lambda: written() > before + 3
    if stage in MOMENTS:
        place, other = ("state/training", "weights") if stage == "epoch" else ("weights", "records")

        def cells(kind: str) -> set[Path]:
            return {path.relative_to(results / kind).with_suffix("") for path in (results / kind).glob("*/*/seed?.*")}

        old = cells(place)
        return lambda: bool(cells(place) - old - cells(other))
    return lambda: any(job.split("/")[0] == stage for job in start.going_on())


def _wait_for(stages: list[str], start: Start, rng: random.Random) -> str | None:
    """Wait until one of the stages is going on; None when the workflow ends before."""
    triggers, limit = {stage: _trigger(stage, start) for stage in sorted(set(stages))}, time.monotonic() + LIMIT_S
    while start.process.poll() is None and time.monotonic() < limit:
        if met := [stage for stage, going_on in triggers.items() if going_on()]:
            return rng.choice(met)
        time.sleep(0.02)
    return None


def safe_epochs(folder: Path) -> dict[str, int]:
    """Cells whose training is unfinished, "data set/method/seed<k>": epochs that are safe."""
    import torch

    place = folder / RESULTS / "state/training"
    return {
        path.relative_to(place).with_suffix("").as_posix(): len(torch.load(path, weights_only=True)["epochs"])
        for path in sorted(place.rglob("seed*.pt"))
    }


# -- a history of kills ----------------------------------------------------------------------------------------------


@dataclass
class Kill:
    """One kill."""

    stage: str  # that was waited for
    after_s: float  # since it was met
    jobs: list[str]  # that died
    finished: int  # jobs that were finished by then


@dataclass
class History:
    """All starts in one folder until the workflow is complete."""

    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    resumed: dict[str, int] = field(default_factory=dict)  # cell -> epochs that were not trained again
    problems: list[str] = field(default_factory=list)


def run_killed(folder: Path, stages: list[str], typical: dict[str, float], rng: random.Random, cores: int) -> History:
    """Kill once at each of the stages, whichever comes first, then let the workflow end.

    Args:
        folder: holds the config.
        stages: rules and MOMENTS; those that do not come any more are left out.
        typical: seconds of a job of each rule; a kill comes within that time.
        rng: where the moments come from.
        cores: of each start.
    """
    history, done, safe, left = History(), set(), {}, list(stages)
    while True:
        start = Start(folder, history.starts, cores)
        history.starts += 1
        stage = _wait_for(left, start, rng) if left else None
        if stage:
            after = rng.uniform(0, (typical | MOMENTS)[stage])
            with contextlib.suppress(subprocess.TimeoutExpired):
                start.process.wait(after)
                stage = None  # the workflow was over before
        if stage:
            left.remove(stage)
            start.kill()
        else:
            start.wait()
        started, finished = start.jobs()
        history.problems += [f"ran again although finished: {job}" for job in started if job in done]
        done |= set(finished)
        if not stage:
            break
        history.kills.append(Kill(stage, round(after, 2), start.going_on(), len(done)))
        # A training without a state that is not finished was killed before its first epoch, or after its end.
        safe = {cell: epochs for cell, epochs in safe.items() if f"train/{cell}" in done} | safe_epochs(folder)
    for cell, epochs in safe.items():
        record = json.loads((folder / RESULTS / f"records/{cell}.json").read_text())
        history.resumed[cell] = record["run"]["resumed_after_epoch"] or 0
        if history.resumed[cell] != epochs:
            history.problems.append(f"{cell}: {epochs} epochs were safe, resumed after {history.resumed[cell]}")
    return history


# -- what is compared ------------------------------------------------------------------------------------------------


def essence(folder: Path) -> dict[str, str]:
    """Checksums of all files that must not depend on kills; JSON without `run` and the commit, which may move on."""
    found = {}
    for path in sorted(path for top in ("data", RESULTS) for path in (folder / top).rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.is_relative_to(RESULTS) and name.relative_to(RESULTS).as_posix().startswith(UNLIKE):
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            parts = [content] if path.suffix == ".json" else content.splitlines()
            kept = [{k: v for k, v in json.loads(part).items() if k not in ("run", "git")} for part in parts]
            content = json.dumps(kept, sort_keys=True).encode()
        found[name.as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@dataclass
class Stores:
    """Where a run keeps its studies, and the address of its MLflow runs."""

    studies: list[BaseStorage]
    tracking: str

    def trials(self) -> list[tuple[str, FrozenTrial]]:
        """All trials, with the names of their studies."""
        import optuna

        names = [(name, of) for of in self.studies for name in optuna.get_all_study_names(of)]
        found = [(name, optuna.load_study(study_name=name, storage=of)) for name, of in names]
        return [(name, trial) for name, study in found for trial in study.get_trials(deepcopy=False)]

    def runs(self) -> list[Run]:
        """All MLflow runs."""
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking, registry_uri=self.tracking)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return client.search_runs(experiments, max_results=10_000)


def beside(folder: Path) -> Stores:
    """Where they are by default: beside the results."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    results = folder / RESULTS
    journals = sorted(results.glob("state/sweeps/*/*.journal"))
    studies = [JournalStorage(JournalFileBackend(str(journal))) for journal in journals]
    return Stores(studies, f"sqlite:///{results}/mlflow/mlflow.db")


def leftovers(folder: Path, stores: Stores) -> list[str]:
    """Temporary files, states of trainings that are over, trials that seem to go on."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*.tmp*") if ".snakemake" not in path.parts]
    found += [f"state of {cell}" for cell in safe_epochs(folder)]
    trials = [(name, trial) for name, trial in stores.trials() if not trial.state.is_finished()]
    return found + [f"{name}: trial {trial.number} {trial.state.name}" for name, trial in trials]


def open_runs(folder: Path, stores: Stores) -> list[str]:
    """MLflow runs that seem to go on, and records whose run did not come to its end."""
    results, runs = folder / RESULTS, {run.info.run_id: run for run in stores.runs()}
    found = [f"MLflow run RUNNING: {run.info.run_name}" for run in runs.values() if run.info.status == "RUNNING"]
    for record in sorted((results / "records").rglob("*.json")):
        named = runs.get(json.loads(record.read_bytes())["run"]["mlflow_run_id"])
        if named is None or named.info.status != "FINISHED":
            found.append(f"the MLflow run of {record.relative_to(results)} is not finished")
    return found


def different(whole: Path, folder: Path) -> list[str]:
    """Files that differ from those of an unkilled run."""
    ours, theirs = essence(folder), essence(whole)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def verdict(whole: Path, folder: Path, stores: Stores | None = None, *, tracked: bool = True) -> list[str]:
    """Everything that did not hold in a folder whose workflow came to its end.

    Args:
        whole: folder of a run that nobody killed.
        folder: of the run.
        stores: its own; by default beside its results.
        tracked: the tracking store was there all the time, so that MLflow runs must have come to their end, too.
    """
    stores = stores or beside(folder)
    left = leftovers(folder, stores) + (open_runs(folder, stores) if tracked else [])
    return [f"other bytes than unkilled: {name}" for name in different(whole, folder)] + [f"left: {n}" for n in left]
