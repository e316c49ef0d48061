"""Kill the workflow anywhere, start it again, and compare with a run that nobody killed.

- Snakemake and all of its jobs get SIGKILL at seeded random moments: a stage is waited for, then a random part of the
  time that it takes. Stages take turns, so that all are hit. Then the same command again, after
  workflow/scripts/clear_stale_lock.py, as `make demo` does.
- What must hold: no finished job runs again (Snakemake's own words); a killed training goes on after its last epoch
  (`run.resumed_after_epoch` of its record); tables, predictions, weights, choices and records (but for `run`) are the
  same bytes as those of the unkilled run; each study has its trials and none is left RUNNING, nor an MLflow run;
  no temporary file is left.
- The config is tests/workflow/tiny.yaml with more epochs and pre-training steps, so that kills meet them.

Usage: python benchmarks/kill_anywhere.py [--kills 20] [--seed 0] [--cores 2] [--quick] [--keep FOLDER]
Writes benchmarks/results/kill_anywhere.md and kill_anywhere.json; exit code 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
EPOCHS, STEPS = 12, 240
LIMIT_S = 1800  # for one start of the workflow
STARTED, FINISHED = re.compile(r"^\s*Job (\d+): (.+)$"), re.compile(r"Finished jobid: (\d+) \(Rule:")

# Stage: words of its command, and the rule whose benchmark files say how long a job takes.
COMMANDS = {
    "archive": ("data generate", "generate"),
    "fetch": ("data fetch", "fetch"),
    "unpack": ("data unpack", "unpack"),
    "manifest": ("data manifest", "manifest"),
    "frames": ("data frames", "frames"),
    "pre-training": ("pretrain", "pretrain"),
    "tracking": ("tracking init", "init_tracking"),
    "sweep": ("sweep", "sweep"),
    "training": ("train", "train"),
    "tables": ("tables", "tables"),
    "report": ("report", "report"),
}
# These are met by what they write, not by their command: it is short within a long job.
MOMENTS = ("trial", "epoch", "evaluation")
ORDER = [
    *("archive", "fetch", "unpack", "manifest", "frames", "pre-training", "pre-training", "tracking", "sweep"),
    *(
        "trial",
        "sweep",
        "trial",
        "training",
        "epoch",
        "evaluation",
        "epoch",
        "training",
        "evaluation",
        "tables",
        "report",
    ),
]


def tiny_config(folder: Path, quick: bool = False) -> Path:
    """The config of the runs; `quick` leaves one data set, two methods and one seed."""
    plain = yaml.safe_load(TINY.read_text())
    plain["backbone"]["checkpoints"]["f4"]["pretrain"]["steps"] = STEPS
    for dataset in plain["datasets"].values():
        dataset["recipe"]["epochs"] = EPOCHS
    if quick:
        plain["seeds"] = plain["seeds"][:1]
        plain["datasets"] = {"breakfast": plain["datasets"]["breakfast"]}
        plain["methods"] = {name: plain["methods"][name] for name in ("linear", "ssp")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


# -- one start of the workflow ---------------------------------------------------------------------------------------


@dataclass
class Start:
    """A start of Snakemake in a folder: the process, and what it has said."""

    folder: Path
    cores: int
    number: int
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", "."]
        command += ["--configfile", "tiny.yaml", "--cores", str(self.cores)]
        self.log = self.folder / f"start-{self.number}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def jobs(self) -> tuple[list[str], list[str]]:
        """Jobs that were started, and those of them that Snakemake called finished; by their messages."""
        names, finished = {}, []
        for line in self.log.read_text(errors="replace").splitlines():
            if match := STARTED.match(line):
                names[match[1]] = match[2]
            elif match := FINISHED.search(line):
                finished.append(names.get(match[1], match[1]))
        return list(names.values()), [name for name in finished if name in names.values()]

    def kill(self) -> list[str]:
        """SIGKILL to Snakemake, then to all that runs in the folder, until nothing does; returns the jobs' commands."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        killed = set()
        while alive := running(self.folder):
            for pid, command in alive.items():
                killed.add(command)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        return sorted(command.partition(" -m ")[2] for command in killed if " -m ssp" in command)


def running(folder: Path) -> dict[int, str]:
    """Processes whose working directory is the folder: pid -> command."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if status != "Z" and (process / "cwd").resolve() == folder:
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


# -- when to kill ----------------------------------------------------------------------------------------------------


def durations(folder: Path) -> dict[str, float]:
    """Mean seconds of the jobs of each rule, as Snakemake measured them."""
    found = {}
    for rule in (folder / "results/tiny/benchmarks").iterdir():
        files = [rule] if rule.is_file() else list(rule.rglob("*.tsv"))
        seconds = [float(file.read_text().splitlines()[1].split("\t")[0]) for file in files]
        found[rule.stem if rule.is_file() else rule.name] = sum(seconds) / len(seconds)
    return found


def states(folder: Path) -> dict[str, int]:
    """Cells whose training is unfinished: "data set/method/seed" -> epochs that are safe."""
    import torch

    found = {}
    for path in sorted((folder / "results/tiny/state/training").rglob("seed*.pt")):
        cell = path.relative_to(folder / "results/tiny/state/training").with_suffix("").as_posix()
        found[cell] = len(torch.load(path, weights_only=True)["epochs"])
    return found


def trigger(stage: str, folder: Path) -> Callable[[], bool]:
    """A function that says whether the stage is going on now."""
    results = folder / "results/tiny"
    if stage in COMMANDS:
        words = f" -m ssp {COMMANDS[stage][0]} "
        return lambda: any(words in f"{command} " for command in running(folder).values())
    if stage == "trial":

        def lines() -> int:
            return sum(path.read_bytes().count(b"\n") for path in results.glob("state/sweeps/*/*.journal"))

        before = lines()
        return lambda: lines() > before + 3
    place, other = ("state/training", None) if stage == "epoch" else ("weights", "records")

    def files(kind: str) -> set[Path]:
        return {p.relative_to(results / kind).with_suffix("") for p in (results / kind).glob("*/*/seed?.*")}

    old = files(place)
    return lambda: bool(files(place) - old - (files(other) if other else set()))


def wait_for(stages: list[str], start: Start, rng: random.Random, deadline: float) -> str | None:
    """Wait until one of the stages is going on; None when the workflow is over before."""
    triggers = {stage: trigger(stage, start.folder) for stage in sorted(set(stages))}
    while start.process.poll() is None:
        if met := [stage for stage, going_on in triggers.items() if going_on()]:
            return rng.choice(met)
        if time.monotonic() > deadline:
            start.kill()
            raise TimeoutError(f"none of {', '.join(triggers)} began within {LIMIT_S} s, see {start.log}")
        time.sleep(0.02)
    return None


# -- what is compared ------------------------------------------------------------------------------------------------


def _plain(path: Path) -> Any:
    plain = json.loads(path.read_text())
    plain.pop("run", None)
    return plain


def essence(folder: Path) -> dict[str, str]:
    """Checksum of all that must not depend on kills; of records and choices without what `run` says."""
    results, found = folder / "results/tiny", {}
    for kind in ("tables", "predictions", "weights", "backbone", "figures"):
        for path in sorted((results / kind).rglob("*.*")):
            if path.suffix == ".json":  # the report of a pre-training
                found[f"{kind}/{path.name}"] = hashlib.sha256(json.dumps(_plain(path)).encode()).hexdigest()
            elif path.is_file():
                key = path.relative_to(results).as_posix()
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    for kind in ("records", "sweeps"):
        for path in sorted((results / kind).rglob("*.json")):
            text = json.dumps(_plain(path), sort_keys=True)
            found[path.relative_to(results).as_posix()] = hashlib.sha256(text.encode()).hexdigest()
    for path in sorted((folder / "data").rglob("manifest.parquet")):
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files, states of trainings that are over, trials and MLflow runs that seem to go on."""
    import optuna
    from mlflow import MlflowClient
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    results = folder / "results/tiny"
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*.tmp*") if ".snakemake" not in p.parts]
    found += [f"state of {cell}" for cell in states(folder)]
    for journal in sorted(results.glob("state/sweeps/*/*.journal")):
        storage = JournalStorage(JournalFileBackend(str(journal)))
        for study in storage.get_all_studies():
            trials = optuna.load_study(study_name=study.study_name, storage=storage).get_trials(deepcopy=False)
            found += [
                f"{study.study_name}: trial {t.number} {t.state.name}" for t in trials if not t.state.is_finished()
            ]
    client = MlflowClient(f"sqlite:///{results}/mlflow/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=50_000)
    return found + [f"MLflow run RUNNING: {run.info.run_name}" for run in runs]


# -- the histories ---------------------------------------------------------------------------------------------------


@dataclass
class Kill:
    """One kill and what the workflow was doing."""

    stage: str
    after_s: float  # since the stage began
    jobs: list[str]  # commands that died
    finished: int  # jobs that were finished by then
    safe_epochs: dict[str, int]  # epochs of unfinished trainings


@dataclass
class History:
    """Starts of one folder until the workflow is complete."""

    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    run_again: list[str] = field(default_factory=list)  # jobs that were finished, and ran again
    not_resumed: list[str] = field(default_factory=list)
    resumed: dict[str, int] = field(default_factory=dict)  # cell -> epochs that were not trained again
    failed: str | None = None

    def problems(self) -> list[str]:
        """What did not hold within the history."""
        found = [f"ran again although finished: {job}" for job in self.run_again]
        return found + self.not_resumed + ([self.failed] if self.failed else [])


def run_whole(folder: Path, cores: int) -> tuple[float, dict[str, float]]:
    """The run that nobody kills: seconds, and mean seconds of each rule's jobs."""
    clock = time.monotonic()
    start = Start(folder, cores, 0)
    if start.process.wait(LIMIT_S):
        raise RuntimeError(f"the unkilled run failed\n{start.log.read_text()[-3000:]}")
    return time.monotonic() - clock, durations(folder)


def run_killed(folder: Path, stages: list[str], typical: dict[str, float], rng: random.Random, cores: int) -> History:
    """Kill once at each of the stages, whichever comes first, then let the workflow end."""
    history, done, expected, left = History(), set(), {}, list(stages)
    while True:
        clear = subprocess.run(
            [sys.executable, ROOT / "workflow/scripts/clear_stale_lock.py"], cwd=folder, capture_output=True, text=True
        )
        if clear.returncode:
            history.failed = f"the lock was not cleared: {clear.stderr.strip()}"
            return history
        start = Start(folder, cores, history.starts)
        history.starts += 1
        stage = wait_for(left, start, rng, time.monotonic() + LIMIT_S) if left else None
        killed = stage is not None
        if killed:
            left.remove(stage)
            length = typical.get(COMMANDS[stage][1], 1.0) if stage in COMMANDS else 0.3
            after = rng.uniform(0, length)
            with contextlib.suppress(subprocess.TimeoutExpired):
                start.process.wait(after)
            jobs = start.kill()
        elif code := start.process.wait(LIMIT_S):
            history.failed = f"start {start.number} ended with {code}\n{start.log.read_text()[-3000:]}"
            return history
        started, finished = start.jobs()
        history.run_again += [job for job in started if job in done]
        done |= set(finished)
        if killed:
            safe = states(folder)
            expected |= safe
            history.kills.append(Kill(stage, round(after, 2), jobs, len(done), safe))
        if not killed:
            break  # complete: stages that are left cannot be met in this folder
    for cell, epochs in expected.items():
        record = json.loads((folder / f"results/tiny/records/{cell}.json").read_text())
        history.resumed[cell] = record["run"]["resumed_after_epoch"] or 0
        if history.resumed[cell] != epochs:
            history.not_resumed.append(f"{cell}: {epochs} epochs were safe, resumed after {history.resumed[cell]}")
    return history


def verdict(whole: Path, folder: Path, history: History) -> list[str]:
    """Everything that did not hold, after a history that came to its end."""
    if history.failed:
        return history.problems()
    ours, theirs = essence(folder), essence(whole)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    found = history.problems() + [f"other bytes than unkilled: {name}" for name in different]
    return found + [f"left over: {name}" for name in leftovers(folder)]


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one data set, two methods, one seed")
    parser.add_argument("--stages", nargs="+", choices=[*COMMANDS, *MOMENTS], help="where to kill; default: everywhere")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    root = (args.keep or Path(tempfile.mkdtemp(prefix="kill-anywhere-"))).resolve()
    root.mkdir(exist_ok=True)
    load = os.getloadavg()[0]

    whole = root / "whole"
    whole.mkdir()
    tiny_config(whole, args.quick)
    seconds, typical = run_whole(whole, args.cores)
    print(f"unkilled: {seconds:.0f} s, {len(essence(whole))} files to compare", flush=True)
    order = args.stages or ORDER
    plan = [order[i % len(order)] for i in range(args.kills)]
    histories, problems, clock = [], [], time.monotonic()
    while plan:
        folder = root / f"killed-{len(histories)}"
        folder.mkdir()
        tiny_config(folder, args.quick)
        history = run_killed(folder, plan, typical, rng, args.cores)
        found = verdict(whole, folder, history)
        problems += found
        histories.append(history)
        print(f"history {len(histories)}: {len(history.kills)} kills, {history.starts} starts: {found or 'all held'}")
        if history.failed or not history.kills:
            break
        for kill in history.kills:
            plan.remove(kill.stage)

    kills = [kill for history in histories for kill in history.kills]
    found = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_before": round(load, 2),
        },
        "seed": args.seed,
        "unkilled_s": round(seconds, 1),
        "killed_s": round(time.monotonic() - clock, 1),
        "files_compared": len(essence(whole)),
        "histories": [asdict(history) for history in histories],
        "problems": problems,
    }
    resumed = {cell: epochs for history in histories for cell, epochs in history.resumed.items()}
    rows = [
        f"| {i} | {kill.stage} | {kill.after_s} | {kill.finished} | {'; '.join(kill.jobs) or '-'} |"
        for i, kill in enumerate(kills, 1)
    ]
    text = "\n".join(
        [
            f"{len(kills)} kills in {len(histories)} histories, {sum(h.starts for h in histories)} starts; "
            f"unkilled {seconds:.0f} s, with kills {found['killed_s']:.0f} s on {args.cores} cores "
            f"(load {load:.1f} before); {found['files_compared']} files compared.",
            f"Finished jobs that ran again: {sum(len(h.run_again) for h in histories)}. Trainings killed with epochs "
            f"done: {len(resumed)}, all but {sum(len(h.not_resumed) for h in histories)} went on after their last one "
            f"({', '.join(f'{c} after {e}' for c, e in resumed.items()) or 'none was met'}).",
            f"Problems: {'; '.join(problems) or 'none'}.",
            "",
            "| # | stage | s after it began | jobs finished before | killed jobs |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    print(text)
    if not args.quick and not args.stages:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "kill_anywhere.md").write_text(text)
        (RESULTS / "kill_anywhere.json").write_text(json.dumps(found, indent=1) + "\n")
    if args.keep is None and not problems:
        shutil.rmtree(root)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
