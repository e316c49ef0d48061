"""Kill what a run on a cluster rests on, and compare its results with those of a run that nobody killed.

- A real Slurm, two virtual nodes of this machine (tests/cluster/slurm.py: root, slurm-wlm and munge are needed); a
  small config with three seeds, from the list of videos and the backbone on, on a disk of its own, which can be full.
  Studies are in PostgreSQL, MLflow runs with a server that has another database there (tests/services.py); each history
  has its own.
- Kinds take turns: Snakemake (its jobs stay in the queue; unlocked and started again), the processes of a job, a job
  cancelled, a job requeued, slurmctld, slurmd, a node that vanishes with all that runs there, a disk that is full for
  some seconds, PostgreSQL, the MLflow server. A kill comes at a seeded random moment while a job runs: that of
  PostgreSQL in the middle of a search, that of MLflow's server of a search or a training. Whatever a kill ended is
  started again, servers on their old data.
- What must hold: bytes of all results equal to those of a local, unkilled run; no temporary file, training state or
  trial left; no record and no choice made again once it was there; each trial of the budget told once; of each training
  and trial one finished MLflow run, and no run left open (tests/workflow/killing.py).
- Where PostgreSQL or the MLflow server was killed, a run may stay open or lack curves: a training whose tracker fails
  goes on without it, and says so. So there no more than one finished run is asked for. How many jobs went on like
  that is counted.
- Processes of a job are found by its number: those of another Slurm that runs here meanwhile would be killed, too.

Usage: python benchmarks/kill_cluster.py [--kills 20] [--seed 0] [--kinds K ...]
Writes benchmarks/results/kill_cluster.md and .json after each history, where --kinds is not given; exit code 1 when
something did not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml
from optuna.trial import TrialState
from scan import machine, write

from ssp.jobs.study import open_database
from tests.cluster.conftest import copy_inputs
from tests.cluster.slurm import REQUESTS, Slurm, Snakemake, missing
from tests.cluster.slurm import running as slurm_running
from tests.services import Service, database, mlflow_server, postgresql, slay, without_postgresql
from tests.workflow.killing import RESULTS, Stores, essence, run_whole, verdict, write_config

EPOCHS, STEPS, SEEDS = 300, 120, [0, 1, 2]
SWEEP = {"trials": 6, "epochs": 80, "storage": "env:SSP_STUDIES"}
TRACKING = {"uri": "env:SSP_TRACKING"}
CONFIG = ("--configfile", "tiny.yaml")
DISK_MB = 400
DOWN_S, PAUSE_S, LATEST_S = 4.0, 3.0, 8.0  # of a daemon; after a kill; of a kill since a job was seen to run
AWAY_S = 20.0  # of a server: longer than its clients ask again
LIMIT_S = 1200  # of one history


@dataclass
class Kill:
    """One kill."""

    kind: str
    jobs: list[str]  # that ran


@dataclass
class History:
    """All starts in one folder until the workflow is complete."""

    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    untracked: list[str] = field(default_factory=list)  # jobs that went on without tracking, as their logs say
    said: list[str] = field(default_factory=list)  # the line with which jobs ended
    problems: list[str] = field(default_factory=list)


@dataclass
class Scene:
    """What a history takes place on."""

    slurm: Slurm
    folder: Path
    postgresql: Service
    mlflow: Service
    made: dict[Path, dict] = field(default_factory=dict)  # records and choices: the run that made them, as last seen
    again: list[str] = field(default_factory=list)  # those that another run has made since

    def look(self) -> None:
        """See what is there; often enough that nothing comes and goes in between."""
        for path in (file for of in ("records", "sweeps") for file in (self.folder / RESULTS / of).rglob("*.json")):
            with suppress(FileNotFoundError):  # removed by Snakemake, and given back later
                run = json.loads(path.read_bytes())["run"]
                if self.made.setdefault(path, run) != run:
                    self.made[path] = run
                    self.again.append(path.relative_to(self.folder / RESULTS).as_posix())


def prepare(folder: Path) -> None:
    """One cell of the small config, with three seeds and requests that two nodes can meet."""
    write_config(folder / "run", epochs=EPOCHS, steps=STEPS, quick=True)
    file = folder / "run/tiny.yaml"
    plain = yaml.safe_load(file.read_text()) | {"seeds": SEEDS, "compute": REQUESTS, "tracking": TRACKING}
    plain["sweep"] |= SWEEP
    file.write_text(yaml.safe_dump(plain, sort_keys=False))


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """A file system of its own under a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def running(slurm: Slurm) -> list[dict[str, str]]:
    """Jobs that run now."""
    return [job for job in slurm.jobs() if job["JobState"] == "RUNNING"]


def processes(job: dict[str, str]) -> list[int]:
    """Processes of a job."""
    mark, found = f"SLURM_JOB_ID={job['JobId']}\0".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def _service(service: Service) -> None:
    service.kill()
    time.sleep(AWAY_S)
    service.start()


def _daemon(slurm: Slurm, name: str, *command: str) -> None:
    slay(int((slurm.folder / f"{name}.pid").read_text()))
    time.sleep(DOWN_S)
    slurm.ask(*command)


def _node(slurm: Slurm, job: dict[str, str]) -> None:
    """A node is gone with all that runs there, and comes back."""
    node = job["NodeList"]
    there = [process for one in running(slurm) if one["NodeList"] == node for process in processes(one)]
    steps = subprocess.run(
        ["pgrep", "-f", f"slurmstepd: \\[({job['JobId']})\\."], capture_output=True, text=True
    ).stdout
    slay(int((slurm.folder / f"{node}.pid").read_text()), *map(int, steps.split()), *there)
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=vanished")
    time.sleep(DOWN_S)
    slurm.ask("slurmd", "-N", node)
    with suppress(subprocess.CalledProcessError):  # it may have come back by itself
        slurm.ask("scontrol", "update", f"nodename={node}", "state=resume")


def _disk(folder: Path) -> None:
    """Nothing more can be written for some seconds."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(2**20))
            file.flush()
    time.sleep(DOWN_S)
    filler.unlink()


KINDS: dict[str, Callable[[Scene, Snakemake, dict[str, str]], None]] = {
    "Snakemake": lambda scene, start, job: start.kill(),
    "processes of a job": lambda scene, start, job: slay(*processes(job)),
    "PostgreSQL": lambda scene, start, job: _service(scene.postgresql),
    "slurmctld": lambda scene, start, job: _daemon(scene.slurm, "ctld", "slurmctld"),
    "job cancelled": lambda scene, start, job: scene.slurm.ask("scancel", job["JobId"]),
    "MLflow server": lambda scene, start, job: _service(scene.mlflow),
    "slurmd": lambda scene, start, job: _daemon(scene.slurm, job["NodeList"], "slurmd", "-N", job["NodeList"]),
    "full disk": lambda scene, start, job: _disk(scene.folder),
    "node vanishes": lambda scene, start, job: _node(scene.slurm, job),
    "job requeued": lambda scene, start, job: scene.slurm.ask("scontrol", "requeue", job["JobId"]),
}
SERVED = {"PostgreSQL": ("rule_sweep_",), "MLflow server": ("rule_sweep_", "rule_train_")}  # jobs that need the servers


def run_killed(scene: Scene, left: list[str], rng: random.Random) -> History:
    """Kill in turn while the workflow runs, start it again where it has ended, until it is complete."""
    history, began, slurm = History(), time.monotonic(), scene.slurm
    while True:
        start = slurm.start_snakemake(scene.folder, *CONFIG)
        history.starts += 1
        while met := _meet(scene, start, left, rng):
            kind, job = met
            left.remove(kind)
            history.kills.append(Kill(kind, sorted(one["Comment"] for one in running(slurm))))
            try:
                KINDS[kind](scene, start, job)
            except subprocess.CalledProcessError as error:  # the job was over before
                history.kills[-1].jobs.append(f"missed: {(error.stderr or '').strip()}")
            time.sleep(PAUSE_S)
        done = start.wait()
        scene.look()
        history.said += re.findall(r"^error: .*", done.err.replace(f"{scene.folder}/", ""), re.MULTILINE)
        if done.code == 0 or time.monotonic() - began > LIMIT_S:
            break
        slurm.snakemake(scene.folder, "--unlock", *CONFIG)
    if done.code:
        history.problems.append(f"not complete after {LIMIT_S} s: {done.err[-2000:]}")
    history.problems += [f"made again: {name}" for name in scene.again]
    history.seconds = round(time.monotonic() - began, 1)
    logs = (scene.folder / RESULTS / "logs").rglob("*.log")
    history.untracked = sorted(log.stem for log in logs if "tracking stopped" in log.read_text(errors="replace"))
    return history


def _meet(scene: Scene, start: Snakemake, left: list[str], rng: random.Random) -> tuple[str, dict[str, str]] | None:
    """The next kind, and a job that runs, at a random moment; None when the workflow ends before, or none is left."""
    while left and start.process.poll() is None:
        if running(scene.slurm):
            time.sleep(rng.uniform(0, LATEST_S))
            jobs = running(scene.slurm)
            for kind in left:
                found = [job for job in jobs if job["Comment"].startswith(SERVED.get(kind, ""))]
                if found := [job for job in found if kind not in SERVED or _trains(scene.folder, job)]:
                    return kind, rng.choice(found)
        scene.look()
        time.sleep(0.2)
    return None


def _trains(folder: Path, job: dict[str, str]) -> bool:
    """Whether a job has trained an epoch, as its log says, which may still be that of an earlier try."""
    rule, _, cell = job["Comment"].removeprefix("rule_").partition("_wildcards_")
    log = folder / RESULTS / "logs" / rule / f"{re.sub(r'_(?=[0-9]$)', '/seed', cell).replace('_', '/')}.log"
    with suppress(FileNotFoundError):
        own = log.stat().st_mtime > datetime.fromisoformat(job["StartTime"]).timestamp()
        return own and "epoch " in log.read_text(errors="replace")
    return False


def told_twice(stores: Stores, tracked: bool) -> list[str]:
    """Places in the budget that two trials fill; trainings and trials with another number of finished runs than one.

    Args:
        stores: of the run.
        tracked: the tracking servers were there all the time; else there may be fewer runs.
    """
    over = (TrialState.COMPLETE, TrialState.PRUNED)
    slots = Counter((name, trial.user_attrs["slot"]) for name, trial in stores.trials() if trial.state in over)
    found = [f"{count} trials for place {slot} of {name}" for (name, slot), count in slots.items() if count > 1]
    runs = [run.info for run in stores.runs() if "seed" in run.info.run_name or "trial" in run.info.run_name]
    finished = Counter(run.run_name for run in runs if run.status == "FINISHED")
    names = sorted({run.run_name for run in runs})
    wrong = [name for name in names if finished[name] > 1 or (tracked and not finished[name])]
    return found + [f"{finished[name]} finished MLflow runs of {name}" for name in wrong]


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Service, Service]]:
    """PostgreSQL and an MLflow server; jobs find them by the environment."""
    with ExitStack() as started:
        cluster = started.enter_context(postgresql())
        mlflow = started.enter_context(mlflow_server(database(cluster.address, "runs"), folder))
        os.environ |= {"SSP_STUDIES": database(cluster.address, "studies"), "SSP_TRACKING": mlflow.address}
        yield cluster, mlflow


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all")
    args = parser.parse_args()
    if why := missing() or without_postgresql():
        sys.exit(f"Error: nothing can be started here: {why}")
    rng, about = random.Random(args.seed), machine(2, "wall")
    left = list(itertools.islice(itertools.cycle(args.kinds or KINDS), args.kills))
    root = Path(tempfile.mkdtemp(prefix="kill-cluster-"))
    (root / "whole").mkdir()
    prepare(root / "whole")
    whole = root / "whole/run"
    with servers(root / "whole/mlflow"):
        run_whole(whole, 2)
    compared, histories = len(essence(whole)), []
    print(f"unkilled: {compared} files to compare", flush=True)
    (root / "slurm").mkdir()
    with slurm_running(root / "slurm") as slurm:
        while left:
            histories.append(history := one_history(slurm, root, len(histories), whole, left, rng))
            kinds = [kill.kind for kill in history.kills]
            print(f"history {len(histories)}: {kinds}: {history.problems or 'all held'}", flush=True)
            report(args, about, compared, histories)
            if not history.kills:
                break
    sys.exit(any(history.problems for history in histories))


def one_history(slurm: Slurm, root: Path, number: int, whole: Path, left: list[str], rng: random.Random) -> History:
    """A folder of its own, killed until it is complete, and compared."""
    place = root / f"killed-{number}"
    with disk(place), servers(root / f"mlflow-{number}") as (cluster, mlflow):
        slurm.environment |= {name: os.environ[name] for name in ("SSP_STUDIES", "SSP_TRACKING")}
        (place / "run").mkdir()
        copy_inputs(whole, place / "run")
        shutil.rmtree(place / "run/data/tiny/breakfast/frames")
        history = run_killed(Scene(slurm, place / "run", cluster, mlflow), left, rng)
        stores = Stores([open_database(SWEEP["storage"])], mlflow.address)
        tracked = not SERVED.keys() & {kill.kind for kill in history.kills}
        history.problems += verdict(whole, place / "run", stores, tracked=tracked) + told_twice(stores, tracked)
    return history


def report(args: argparse.Namespace, about: dict, compared: int, histories: list[History]) -> None:
    """Write what was found so far."""
    kills = [(number, kill) for number, history in enumerate(histories, 1) for kill in history.kills]
    problems = [problem for history in histories for problem in history.problems]
    said = Counter(line for history in histories for line in history.said)
    lines = [
        f"| {place} | {kill.kind} | {number} | {', '.join(kill.jobs) or 'none'} |"
        for place, (number, kill) in enumerate(kills, 1)
    ]
    text = f"""# Killed on Slurm, started again

{len(kills)} kills, histories: {len(histories)}, starts of Snakemake: {sum(h.starts for h in histories)}; in all
{sum(h.seconds for h in histories):.0f} s. Two virtual nodes on {about["cores"]} cores of {about["processor"]}.

Did not hold: {"; ".join(problems) or "nothing"}.

Compared: {compared} files of each history with those of a local run that nobody killed, byte by byte; what was left
over; records and choices that were made again; trials of each place in the budget; finished MLflow runs, one for each
training and trial. Where PostgreSQL or the MLflow server was killed, runs may be open or missing: no more than one
finished run is asked for there. Jobs that went on without tracking: {sum(len(h.untracked) for h in histories)}.

What jobs ended with that were not killed:

{chr(10).join(f"- {count} x `{line}`" for line, count in said.items()) or "- nothing"}

| kill | of | history | jobs that ran |
| ---: | --- | ---: | --- |
{chr(10).join(lines)}
"""
    found = {"machine": about, "seed": args.seed, "files_compared": compared}
    found |= {"histories": [asdict(history) for history in histories]}
    if args.kinds:
        print(text)
    else:
        write("kill_cluster", found, text)


if __name__ == "__main__":
    main()
