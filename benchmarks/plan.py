"""Does the plan that a rehearsal makes hold? The demo's own hours beside those planned from a rehearsal of it.

- The demo must be there (`make demo`), run on this machine as it is now: nothing else beside it, then or now.
- It is rehearsed in a folder that is removed. Hours are those of jobs, as they measured themselves, so that what
  Snakemake does between them is in neither number.

Usage: python benchmarks/plan.py [--cores 2]
Writes benchmarks/results/plan.md and .json; about five minutes. Exit code 1 where the plan is off by more than 30 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from scan import machine, write

from ssp.config import load_config
from ssp.paths import Paths
from ssp.plan.estimate import STAGES, estimate
from ssp.plan.measured import find_speeds
from ssp.records.usage import jobs, read_usage

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config/demo.yaml"
RESULTS = ROOT / "results/demo"
MARGIN = 0.3


def measured(folder: Path) -> dict[str, float]:
    """Hours of wall and of processor time that the jobs of finished results took together."""
    config = load_config(folder / "config.yaml")
    files = [Paths.of(config).usage(rule, *job) for rule, found in jobs(config).items() for job in found]
    taken = [read_usage(ROOT / file) for file in files if (ROOT / file).is_file()]
    return {"jobs": len(taken), "hours": sum(t.s for t in taken) / 3600, "cpu": sum(t.cpu_time for t in taken) / 3600}


def main() -> None:
    """Rehearse, plan, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    if not (RESULTS / "tables/main.csv").is_file():
        sys.exit("Error: results/demo: no finished demo; run `make demo` first")
    about, config = machine(args.cores, "wall"), load_config(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        words = ["rehearse", str(CONFIG), "--folder", folder, "--cores", str(args.cores)]
        subprocess.run([sys.executable, "-m", "ssp", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        plan = estimate(config, find_speeds(config, Path(folder) / "results/demo")[0])
    own, taken = estimate(config, find_speeds(config, RESULTS)[0]), measured(RESULTS)
    lines = []
    for stage in (*STAGES, None):
        of = {"stage": stage} if stage else {}
        planned, found = plan.hours(**of), own.hours(**of)
        span = f"{planned.value:.3f} ({planned.low:.3f} to {planned.high:.3f})"
        lines.append(f"| {stage or 'all'} | {span} | {found.value:.3f} |")
    off = plan.hours().value / taken["hours"] - 1
    text = f"""# The demo planned from a rehearsal, and measured

Hours of jobs on {args.cores} cores of {about["processor"]} (load before: {about["load_before"]}).
Measured: {taken["jobs"]} jobs, {taken["hours"]:.3f} hours, {taken["cpu"]:.3f} of processor time; by stage as the demo's
own records tell it.

| stage | planned | measured |
| --- | --- | ---: |
{chr(10).join(lines)}

The plan is off by {off:+.0%}; {MARGIN:.0%} is allowed.
"""
    write("plan", {"machine": about, "planned": plan.hours()._asdict(), "measured": taken, "off": off}, text)
    sys.exit(abs(off) > MARGIN)


if __name__ == "__main__":
    main()
