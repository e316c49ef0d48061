"""How much longer a small run takes through Slurm than on one machine with as many slots: trainings that sleep.

- Sleeping stands for work, as both virtual nodes are this machine: a method that does what the linear probe does, after
  a sleep. All else is real: data, searches, trainings, tests, tables.
- The same run by plain Snakemake and through profiles/slurm, both at the same time, with as many jobs at once; the
  data stages share a job of Slurm, as docs/cluster.md has it for small jobs.
- Two jobs at once, for a machine of two cores or more: a job of a cluster has its own, and to start one takes it up.

Usage, as root: python benchmarks/cluster_overhead.py [--seconds 240] [--rows 2] [--seeds 3]
Writes benchmarks/results/cluster_overhead.md and .json; exit code 1 where it takes more than 10 % longer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scan import machine, write
from sweep_width import install, through, write_config

from tests.cluster.slurm import NODES, REQUESTS, missing, running
from tests.workflow.running import snakemake

MARGIN = 0.1
TRIALS = 2
SLOTS = NODES["n1"]
# As the profile has it, and with the data stages in one job.
OPTIONS = ("--slurm-init-seconds-before-status-checks", "20", "--resources", "mem_mb=4000")
OPTIONS += ("--groups", "unpack=data", "manifest=data", "frames=data")


def here(folder: Path, file: Path) -> float:
    """Seconds of the run by plain Snakemake."""
    clock = time.monotonic()
    done = snakemake(folder, "tables", "--cores", str(SLOTS), "--configfile", file)
    if done.code:
        raise RuntimeError(done.err[-3000:])
    return time.monotonic() - clock


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if why := missing():
        sys.exit(f"no Slurm can be started here: {why}")
    about, root = machine(1, "wall"), Path(tempfile.mkdtemp(prefix="cluster-overhead-"))
    (root / "slurm").mkdir()
    os.environ |= install(root / "method", args.seconds)
    rows = {f"row{number}": {"method": "sleeping", "published": False} for number in range(args.rows)}
    space = {"lr": {"low": 0.001, "high": 0.1}}
    changes = {
        "methods": rows,
        "reference": "row0",
        "seeds": list(range(args.seeds)),
        "sweep": {"trials": TRIALS, "epochs": 1, "space": space},
        "compute": REQUESTS,
    }
    with running(root / "slurm") as slurm:
        local, cluster = (root / name for name in ("local", "cluster"))
        files = [write_config(folder, **changes)[1] for folder in (local, cluster)]
        with ThreadPoolExecutor() as pool:
            first = pool.submit(here, local, files[0])
            second = pool.submit(through, slurm, files[1], "tables", *OPTIONS, partition="one")
            alone, together = first.result(), second.result()
        submitted = len([job for job in slurm.jobs() if str(cluster) in job["StdOut"]])
    longer = together / alone - 1
    found = {"machine": about, "sleep_s": args.seconds, "rows": args.rows, "seeds": args.seeds}
    found |= {"local_s": alone, "slurm_s": together, "jobs": submitted, "longer": longer}
    write("cluster_overhead", found, table(found))
    shutil.rmtree(root)
    sys.exit(longer > MARGIN)


def table(found: dict) -> str:
    """What was measured, in words."""
    about, sleep = found["machine"], found["sleep_s"]
    trainings = found["rows"] * found["seeds"]
    return f"""# A small run through Slurm and without it

{found["rows"]} searches of {TRIALS} trials and {trainings} trainings, each of which sleeps {sleep:.0f} s, from archives
to tables; at most {SLOTS} jobs at once. A virtual node of this machine, both runs at the same time.
{about["processor"]}, {about["cores"]} cores shared with other work (load average before: {about["load_before"]}).

| | seconds |
|---|---:|
| plain Snakemake | {found["local_s"]:.0f} |
| through profiles/slurm, {found["jobs"]} jobs | {found["slurm_s"]:.0f} |

Through Slurm it took {found["longer"]:+.1%}; {MARGIN:.0%} is allowed.
"""


if __name__ == "__main__":
    main()
