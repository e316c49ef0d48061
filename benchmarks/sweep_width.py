"""How much sooner a search is over with several workers: trials that sleep, on a real Slurm of two virtual nodes.

- Sleeping stands for work, as both nodes are one machine: a method that does what the linear probe does, after a sleep.
- The same search with one worker and with several, both at the same time, by the workflow and profiles/slurm. What is
  compared is the time of the trials alone, of the search's jobs, and to the choice.

Usage, as root: python benchmarks/sweep_width.py [--trials 16] [--seconds 40] [--workers 4]
Writes benchmarks/results/sweep_width.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import yaml
from safetensors.torch import save_file
from scan import machine, write

from ssp.config import Config
from ssp.jobs.study import JOURNAL, open_storage
from ssp.methods.build import build_model
from ssp.paths import Paths
from tests.cluster.slurm import Slurm, missing, running
from tests.unit.tiny_benchmark import tiny_config
from tests.workflow.running import snakemake

METHOD = """
import os, sys, time
from baselines.linear import LinearProbe

class Sleeping(LinearProbe):
    name = "sleeping"

    def attach(self, model):
        if sys.argv[1] in ("sweep", "train"):  # not where the config is checked, or costs are measured
            time.sleep(float(os.environ["SLEEP_S"]))
"""


def install(folder: Path, seconds: float) -> dict[str, str]:
    """Put the sleeping method into a folder, for this process and others; their environment variables."""
    about = folder / "sleeping-0.dist-info"
    about.mkdir(parents=True)
    (folder / "sleeping.py").write_text(METHOD)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[ssp.methods]\nsleeping = sleeping:Sleeping\n")
    sys.path.insert(0, str(folder))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), "SLEEP_S": str(seconds)}


def write_config(folder: Path, **changes: object) -> tuple[Config, Path]:
    """A config whose rows sleep, and the file that it is in, beside its backbone.

    Args:
        folder: is made.
        **changes: of the config.
    """
    folder.mkdir()
    sleeping = {"methods": {"sleeping": {"published": False}}, "reference": "sleeping", "explained": None}
    asked = {"datasets__ucf101__recipe__epochs": 1, "compute": {"train": {"mem_mb": 2000, "runtime": 60}}}
    config = tiny_config(folder, **sleeping | asked | changes)
    torch.manual_seed(0)
    backbone = build_model(config.backbone.architecture, "linear", 5, num_frames=4, img_size=32)
    state = {name: p.detach() for name, p in backbone.named_parameters() if not name.startswith("head.")}
    save_file(state, folder / "backbone.safetensors")
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return config, file


def prepare(folder: Path, trials: int, workers: int) -> tuple[Config, Path]:
    """A config with its data, and the file that it is in."""
    space = {"lr": {"low": 0.001, "high": 0.1}}
    config, file = write_config(folder, sweep={"trials": trials, "epochs": 1, "workers": workers, "space": space})
    paths = Paths.of(config)
    needed = [paths.manifest("ucf101"), paths.shard("ucf101", 0), paths.results / "tracking.done"]
    done = snakemake(folder, *needed, paths.results / "scan.done", "--cores", "2", "--configfile", file)
    if done.code:
        sys.exit(done.err[-3000:])
    return config, file


def through(slurm: Slurm, file: Path, target: str | Path, *options: str, partition: str = "both") -> float:
    """Seconds of a workflow through Slurm.

    Args:
        slurm: the cluster.
        file: the config; its folder is the working directory.
        target: of Snakemake.
        *options: of it.
        partition: the nodes that take part.

    Raises:
        RuntimeError: it failed.
    """
    clock, where = time.monotonic(), ("--default-resources", f"slurm_partition={partition}")
    if slurm.start_snakemake(file.parent, target, "--configfile", file, *where, *options).process.wait():
        raise RuntimeError("\n".join(log.read_text()[-3000:] for log in file.parent.glob("snakemake-*.log")))
    return time.monotonic() - clock


def measure(slurm: Slurm, config: Config, file: Path) -> dict:
    """Seconds of a search, of its jobs, and where they ran."""
    folder, choice = file.parent, Paths.of(config).choice("ucf101", "sleeping")
    whole = through(slurm, file, choice, "--retries", "0")
    jobs = [job for job in slurm.jobs() if str(folder) in job["StdOut"]]
    begun = min(_time(job["StartTime"]) for job in jobs)
    searching = [job for job in jobs if "rule_search" in job["Comment"]] or jobs
    found = json.loads((folder / choice).read_text())
    storage = open_storage(JOURNAL, folder / Paths.of(config).journal("ucf101", "sleeping"))
    tried = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    states = [trial["state"] for trial in found["trials"]]
    return {
        "workers": config.sweep.workers,
        "trials": states.count("complete"),
        "trial_s": sum(found["run"]["trial_seconds"]) / len(states),
        "trials_s": (max(t.datetime_complete for t in tried) - min(t.datetime_start for t in tried)).total_seconds(),
        "jobs_s": max(_time(job["EndTime"]) for job in searching) - begun,
        "choice_s": max(_time(job["EndTime"]) for job in jobs) - begun,
        "snakemake_s": whole,
        "jobs": [{key: job[key] for key in ("Comment", "NodeList", "StartTime", "EndTime")} for job in jobs],
    }


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    if why := missing():
        sys.exit(f"no Slurm can be started here: {why}")
    about, root = machine(1, "wall"), Path(tempfile.mkdtemp(prefix="sweep-width-"))
    (root / "slurm").mkdir()
    os.environ |= install(root / "method", args.seconds)
    with running(root / "slurm") as slurm:
        prepared = [prepare(root / f"workers{number}", args.trials, number) for number in (args.workers, 1)]
        with ThreadPoolExecutor() as pool:
            several, one = pool.map(lambda found: measure(slurm, *found), prepared)
    found = {"machine": about, "sleep_s": args.seconds, "one": one, "several": several}
    write("sweep_width", found, table(found))
    shutil.rmtree(root)


def table(found: dict) -> str:
    """What was measured, in words."""
    about, one, several = found["machine"], found["one"], found["several"]
    keys = {
        "trials_s": "first trial begins to last trial ends",
        "jobs_s": "first job begins to last of the search ends",
        "choice_s": "first job begins to the one that chooses ends",
        "snakemake_s": "command given to command ends",
    }
    rows = [f"| {what} | {one[k]:.0f} | {several[k]:.0f} | {one[k] / several[k]:.2f} |" for k, what in keys.items()]
    nodes = [job["NodeList"] for job in several["jobs"] if "rule_search" in job["Comment"]]
    return f"""# A search by several workers

{one["trials"]} trials that sleep {found["sleep_s"]:.0f} s each (with all else {one["trial_s"]:.0f} s by one worker,
{several["trial_s"]:.0f} s by several), on two virtual nodes of one machine (the workers: {", ".join(sorted(nodes))}),
both searches at the same time. {about["processor"]}, {about["cores"]} cores shared with other work (load average
before: {about["load_before"]}).

| seconds from ... to ... | 1 worker | {several["workers"]} workers | quotient |
|---|---:|---:|---:|
{chr(10).join(rows)}

Until its first trial a job starts Python and imports. Several workers are followed by a job that chooses: it starts
when Snakemake has found that they are over, and imports, too.
"""


if __name__ == "__main__":
    main()
