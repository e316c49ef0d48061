"""Kill what a run on a cluster rests on, and compare its results with those of a run that nobody killed.

- A real Slurm, two virtual nodes of this machine (tests/cluster/slurm.py: root, slurm-wlm and munge are needed); a
  small config with three seeds, on a disk of its own, which can be full.
- Kinds take turns: Snakemake (its jobs stay in the queue; unlocked and started again), the processes of a job, a job
  cancelled, a job requeued, slurmctld, slurmd, a node that vanishes with all that runs there, a disk that is full for
  some seconds. A kill comes at a seeded random moment while a job runs. Whatever a kill ended is started again.
- What must hold: bytes of all results equal to those of a local, unkilled run; no temporary file, trial or MLflow run
  left; one finished MLflow run for each seed (tests/workflow/killing.py).

Usage: python benchmarks/kill_cluster.py [--kills 20] [--seed 0] [--kinds K ...]
Writes benchmarks/results/kill_cluster.md and .json, where --kinds is not given; exit code 1 when something did not
hold.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml
from mlflow import MlflowClient
from scan import machine, write

from tests.cluster.slurm import REQUESTS, Slurm, Snakemake, missing
from tests.cluster.slurm import running as slurm_running
from tests.workflow.killing import RESULTS, essence, run_whole, verdict, write_config

EPOCHS, STEPS, SEEDS = 20, 120, [0, 1, 2]
CONFIG = ("--configfile", "tiny.yaml")
DISK_MB = 400
DOWN_S, PAUSE_S, LATEST_S = 4.0, 3.0, 8.0  # of a daemon; after a kill; of a kill since a job was seen to run
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
    problems: list[str] = field(default_factory=list)


def prepare(folder: Path) -> None:
    """One cell of the small config, with three seeds and requests that two nodes can meet."""
    write_config(folder / "run", epochs=EPOCHS, steps=STEPS, quick=True)
    file = folder / "run/tiny.yaml"
    plain = yaml.safe_load(file.read_text()) | {"seeds": SEEDS, "compute": REQUESTS}
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


def slay(*pids: int) -> None:
    """SIGKILL to those that are there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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


KINDS: dict[str, Callable[[Slurm, Snakemake, dict[str, str], Path], None]] = {
    "Snakemake": lambda slurm, start, job, folder: start.kill(),
    "processes of a job": lambda slurm, start, job, folder: slay(*processes(job)),
    "slurmctld": lambda slurm, start, job, folder: _daemon(slurm, "ctld", "slurmctld"),
    "job cancelled": lambda slurm, start, job, folder: slurm.ask("scancel", job["JobId"]),
    "slurmd": lambda slurm, start, job, folder: _daemon(slurm, job["NodeList"], "slurmd", "-N", job["NodeList"]),
    "full disk": lambda slurm, start, job, folder: _disk(folder),
    "node vanishes": lambda slurm, start, job, folder: _node(slurm, job),
    "job requeued": lambda slurm, start, job, folder: slurm.ask("scontrol", "requeue", job["JobId"]),
}


def run_killed(slurm: Slurm, folder: Path, left: list[str], rng: random.Random) -> History:
    """Kill in turn while the workflow runs, start it again where it has ended, until it is complete."""
    history, began = History(), time.monotonic()
    while True:
        start = slurm.start_snakemake(folder, *CONFIG)
        history.starts += 1
        while left and (job := _next_job(slurm, start, rng)):
            kind = left.pop(0)
            history.kills.append(Kill(kind, sorted(one["Comment"] for one in running(slurm))))
            try:
                KINDS[kind](slurm, start, job, folder)
            except subprocess.CalledProcessError as error:  # the job was over before
                history.kills[-1].jobs.append(f"missed: {(error.stderr or '').strip()}")
            time.sleep(PAUSE_S)
        done = start.wait()
        if done.code == 0 or time.monotonic() - began > LIMIT_S:
            break
        slurm.snakemake(folder, "--unlock", *CONFIG)
    if done.code:
        history.problems.append(f"not complete after {LIMIT_S} s: {done.err[-2000:]}")
    history.seconds = round(time.monotonic() - began, 1)
    return history


def _next_job(slurm: Slurm, start: Snakemake, rng: random.Random) -> dict[str, str] | None:
    """A job that runs, at a random moment; None when the workflow ends before."""
    while start.process.poll() is None:
        if running(slurm):
            time.sleep(rng.uniform(0, LATEST_S))
            if found := running(slurm):
                return rng.choice(found)
        time.sleep(0.2)
    return None


def runs_twice(folder: Path) -> list[str]:
    """Trainings and trials with another number of finished MLflow runs than one."""
    client = MlflowClient(f"sqlite:///{folder}/{RESULTS}/mlflow/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=10_000)
    finished = Counter(run.info.run_name for run in runs if run.info.status == "FINISHED")
    names = {run.info.run_name for run in runs if "seed" in run.info.run_name or "trial" in run.info.run_name}
    return [f"{finished[name]} finished MLflow runs of {name}" for name in sorted(names) if finished[name] != 1]


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all")
    args = parser.parse_args()
    if why := missing():
        sys.exit(f"Error: no Slurm can be started here: {why}")
    rng, about = random.Random(args.seed), machine(2, "wall")
    left = list(itertools.islice(itertools.cycle(args.kinds or KINDS), args.kills))
    root = Path(tempfile.mkdtemp(prefix="kill-cluster-"))
    (root / "whole").mkdir()
    prepare(root / "whole")
    whole = root / "whole/run"
    run_whole(whole, 2)
    compared, histories = len(essence(whole)), []
    print(f"unkilled: {compared} files to compare", flush=True)
    (root / "slurm").mkdir()
    with slurm_running(root / "slurm") as slurm:
        while left:
            place = root / f"killed-{len(histories)}"
            with disk(place):
                prepare(place)
                folder = place / "run"
                histories.append(history := run_killed(slurm, folder, left, rng))
                history.problems += verdict(whole, folder) + runs_twice(folder)
            print(
                f"{place.name}: {[kill.kind for kill in history.kills]}: {history.problems or 'all held'}", flush=True
            )
            if not history.kills:
                break
    report(args, about, compared, histories)


def report(args: argparse.Namespace, about: dict, compared: int, histories: list[History]) -> None:
    """Write what was found, and end."""
    kills = [(number, kill) for number, history in enumerate(histories, 1) for kill in history.kills]
    problems = [problem for history in histories for problem in history.problems]
    lines = [
        f"| {place} | {kill.kind} | {number} | {', '.join(kill.jobs) or 'none'} |"
        for place, (number, kill) in enumerate(kills, 1)
    ]
    text = f"""# Killed on Slurm, started again

{len(kills)} kills, histories: {len(histories)}, starts of Snakemake: {sum(h.starts for h in histories)}; in all
{sum(h.seconds for h in histories):.0f} s. Two virtual nodes on {about["cores"]} cores of {about["processor"]}.

Did not hold: {"; ".join(problems) or "nothing"}.

Compared: {compared} files of each history with those of a local run that nobody killed, byte by byte; what was left
over; finished MLflow runs, one for each training and trial.

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
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
