"""Kill the workflow anywhere, start it again, and compare with a run that nobody killed.

- tests/workflow/killing.py says how it is killed and what must hold.
- Each rule is a stage, and so are a trial, an epoch and an evaluation; a kill comes at a seeded random moment within
  its stage. When each stage had one, the others go where most work is at stake.
- A history is one folder, killed once for each stage that comes up; those that were left are met in the next folder.

Usage: python benchmarks/kill_anywhere.py [--kills 20] [--seed 0] [--cores 2] [--stages S ...] [--quick] [--keep FOLDER]
Writes benchmarks/results/kill_anywhere.md and .json, where neither --stages nor --quick is given; exit code 1 when
something did not hold.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scan import machine, write

from tests.workflow.killing import MOMENTS, History, essence, run_killed, run_whole, verdict, write_config

EPOCHS, STEPS = 12, 240
MISSES = 3  # histories without a kill, each moment later than its stage's end, before a stage counts as never met
AGAIN = ("epoch", "evaluation", "trial", "sweep", "train", "pretrain")


def plan(kills: int, stages: list[str]) -> list[str]:
    """Where to kill."""
    return list(itertools.islice(itertools.chain(stages, itertools.cycle(AGAIN)), kills))


def table(histories: list[History]) -> str:
    """A row a stage."""
    lines = [
        "| stage | kills | jobs that died (seconds after the stage was met) | finished before |",
        "|---|---|---|---|",
    ]
    stages: dict[str, list] = {}
    for kill in (kill for history in histories for kill in history.kills):
        stages.setdefault(kill.stage, []).append(kill)
    for stage, kills in stages.items():
        died = "; ".join(f"{', '.join(kill.jobs) or 'none: between two jobs'} ({kill.after_s})" for kill in kills)
        lines.append(f"| {stage} | {len(kills)} | {died} | {', '.join(str(kill.finished) for kill in kills)} |")
    return "\n".join(lines)


def main() -> None:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one data set, two methods")
    parser.add_argument("--stages", nargs="+", help="rules and moments; default: all")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    args = parser.parse_args()
    rng, about = random.Random(args.seed), machine(args.cores, "wall")
    root = (args.keep or Path(tempfile.mkdtemp(prefix="kill-anywhere-"))).resolve()
    root.mkdir(exist_ok=True)

    clock, whole = time.monotonic(), root / "whole"
    write_config(whole, epochs=EPOCHS, steps=STEPS, quick=args.quick)
    typical = run_whole(whole, args.cores)
    seconds, compared = time.monotonic() - clock, len(essence(whole))
    print(f"unkilled: {seconds:.0f} s, {compared} files to compare", flush=True)

    left = plan(args.kills, args.stages or [*typical, *MOMENTS])
    histories: list[History] = []
    clock = time.monotonic()
    while left:
        folder = root / f"killed-{len(histories)}"
        write_config(folder, epochs=EPOCHS, steps=STEPS, quick=args.quick)
        history = run_killed(folder, left, typical, rng, args.cores)
        history.problems += verdict(whole, folder)
        histories.append(history)
        print(f"{folder.name}: {len(history.kills)} kills: {history.problems or 'all held'}", flush=True)
        if sum(not earlier.kills for earlier in histories) == MISSES:
            history.problems.append(f"never met: {', '.join(left)}")
            break
        for kill in history.kills:
            left.remove(kill.stage)
    killed_seconds = time.monotonic() - clock

    problems = [problem for history in histories for problem in history.problems]
    resumed = [f"{cell} after {epochs}" for history in histories for cell, epochs in history.resumed.items()]
    starts, kills = sum(h.starts for h in histories), sum(len(h.kills) for h in histories)
    text = f"""# Killed anywhere, started again

{kills} kills (SIGKILL to Snakemake and all its children) in {len(histories)} histories, {starts} starts,
{killed_seconds:.0f} s; unkilled {seconds:.0f} s. {about["processor"]}, {args.cores} cores shared with other work (load
average before: {about["load_before"]}).

Did not hold: {"; ".join(problems) or "nothing"}.

Compared: {compared} files of each history with those of the unkilled run, byte by byte; jobs that were finished and ran
again; what was left; after which of {EPOCHS} epochs killed trainings went on ({", ".join(resumed) or "none met"}).

{table(histories)}
"""
    found = {"machine": about, "seed": args.seed, "unkilled_s": round(seconds, 1), "killed_s": round(killed_seconds, 1)}
    found |= {"files_compared": compared, "typical_s": typical, "histories": [asdict(h) for h in histories]}
    if args.quick or args.stages:
        print(text)
    else:
        write("kill_anywhere", found, text)
    if args.keep is None and not problems:
        shutil.rmtree(root)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
