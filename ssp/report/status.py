"""How far a workflow is: what is done, what runs where and for how long still, what failed and why.

Reads small files of the results folder and asks no scheduler, so it says the same on any machine that sees the folder,
and disturbs no run. `ssp status` shows it; `follow` shows it beside a workflow that it runs, as `make demo` does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ssp.config import Config, load_config
from ssp.paths import Paths
from ssp.records.signs import SIGN, Sign, read_sign
from ssp.records.usage import jobs
from ssp.report.stages import duration

INTERRUPTED = 130  # exit code of what Ctrl-C has ended
RESULTS = ("sweep", "train")  # rules whose failures are results
UNMEASURED = ("build_scan", "keep_manifest")  # rules whose jobs are over in no time, and leave no word


class Stage(NamedTuple):
    """The jobs of a rule."""

    rule: str
    done: int
    of: int


class Running(NamedTuple):
    """A job at work."""

    name: str
    sign: Sign


class Status(NamedTuple):
    """All stages in the order of work, the jobs at work, and what went wrong: names with reasons."""

    stages: list[Stage]
    running: list[Running]
    failed: list[tuple[str, str]]

    @property
    def done(self) -> int:
        """Jobs that are over."""
        return sum(stage.done for stage in self.stages)

    @property
    def of(self) -> int:
        """All jobs."""
        return sum(stage.of for stage in self.stages)


def read_status(config: Config) -> Status:
    """How far the workflow of a config is."""
    paths, stages, running, failed = Paths.of(config), [], [], []
    for rule, all_jobs in jobs(config).items():
        if rule in UNMEASURED:
            continue
        done = 0
        for job in all_jobs:
            log, name = paths.log(rule, *job), " ".join((rule, *job))
            if sign := read_sign(log.with_suffix(SIGN)):
                running.append(Running(name, sign))
            elif (result := _output(paths, rule, job)).exists():
                done += 1
                if rule in RESULTS and (reason := _reason(result)):
                    failed.append((name, reason))
            elif last := _last_line(log):
                failed.append((name, f"stopped; {log} ends with: {last}"))
        stages.append(Stage(rule, done, len(all_jobs)))
    return Status(stages, running, failed)


def _output(paths: Paths, rule: str, job: tuple[str, ...]) -> Path:
    """What is there when a job is over: its result, or of the other rules what it has written down of itself."""
    if rule == "search" and not (choice := paths.choice(*job[:-1])).exists():  # with which workers' files are gone
        return paths.worker(*job[:2], job[-1].removeprefix("worker"), *job[2:-1])
    if rule == "search":
        return choice
    if rule == "sweep":
        return paths.choice(*job)
    if rule == "train":
        return paths.record(*job[:2], job[2].removeprefix("seed"))
    return paths.usage(rule, *job)


def _reason(result: Path) -> str | None:
    """Why a search or a training failed whose failure is a result."""
    with suppress(OSError, ValueError):
        return json.loads(result.read_bytes()).get("reason")
    return None


def _last_line(log: Path) -> str:
    """What a log ends with; nothing where there is none, or Snakemake has just removed it as it starts the job anew."""
    lines = []
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def status_lines(status: Status, width: int) -> list[str]:
    """The status for a terminal, none of its lines longer than that."""
    lines = [f"{status.done} of {status.of} jobs are done"]
    lines += [f"  {stage.rule:14} {stage.done:>5} of {stage.of}" for stage in status.stages]
    if status.running:
        lines.append("Running:")
        lines += [f"  {_told(job)}" for job in status.running]
    if status.failed:
        lines.append("Failed:")
        lines += [f"  {name}: {reason}" for name, reason in status.failed]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def show(config: Config, over: Callable[[Status], bool]) -> Status:
    """Show the status on a terminal, again and again until it is over; returns the last."""
    console = Console(stderr=True)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while not over(status := read_status(config)):
            lines = status_lines(status, console.width)
            live.update(Text("\n".join(lines[-max(4, console.height - 1) :])), refresh=True)
            time.sleep(1)
    return status


def follow(config: Config, command: list[str]) -> int:
    """Run a workflow and show its status in place of what it says, which goes to a file; its exit code.

    Where standard error is no terminal, the workflow speaks for itself.
    """
    if not sys.stderr.isatty():
        return subprocess.call(command)
    said = Paths.of(config).results / "logs" / "workflow.log"
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("w", encoding="utf-8") as file:
        workflow = subprocess.Popen(command, stderr=file)
        try:
            show(config, lambda _: workflow.poll() is not None)
        except KeyboardInterrupt:  # which the workflow has got, too
            print("Interrupted; jobs save how far they are ...", file=sys.stderr)
            workflow.wait()
            print("Run the same command again: it goes on from here.", file=sys.stderr)
            return INTERRUPTED
        code = workflow.wait()
    if code:
        print("\n".join(_errors(said)), file=sys.stderr)
        print(
            f"Ended with {code}; all that the workflow said: {said}. The same command goes on from here.",
            file=sys.stderr,
        )
    return code


def _errors(said: Path) -> list[str]:
    """What a workflow said of its failures, without the rest."""
    lines, found = said.read_text(encoding="utf-8", errors="replace").splitlines(), []
    for i, line in enumerate(lines):
        if line.startswith("Error"):
            end = next((k for k in range(i + 1, len(lines)) if not lines[k].strip()), len(lines))
            found += lines[i:end]
    return found[:40] or lines[-20:]


def _told(job: Running) -> str:
    """Name, how far, time left, since when, where."""
    sign, step = job.sign, job.sign.step
    parts = [job.name]
    if step and step.total:
        parts.append(f"{100 * step.done // step.total} %")
        if step.seconds_left is not None:
            parts.append(f"{duration(step.seconds_left)} left")
    parts.append(f"for {duration(time.time() - sign.began)}")
    parts.append(f"on {sign.host}" + (f", batch job {sign.job}" if sign.job else ""))
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(follow(load_config(sys.argv[1]), sys.argv[2:]))
