"""How attempts ended, and what the next one asks for; Slurm is a stand-in here, the real one is in tests/cluster."""

import json
import os
import subprocess
import sys
import time

import pytest

from ssp.errors import ConfigError, ServiceError, StorageError
from ssp.jobs.attempts import MEMORY, TIME, begin, end, growth
from ssp.training.stopping import ProcessLost


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A workflow that has just started, and the log of one of its jobs."""
    (tmp_path / "config.yaml").touch()
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return tmp_path / "job.log", tmp_path / "config.yaml"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Say how Slurm's job of this process ends."""
    program = tmp_path / "bin/scontrol"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    def tell(job, state, *others):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        lines = "\n".join([*others, f"JobId={job} JobState={state} Reason=x"])
        with program.open("a") as script:
            script.write(f'[ "$*" = "show job --oneliner {job}" ] && echo "{lines}"\n')
            script.write("true\n")

    return tell


def leaving(error):
    """What ends the command line for an error that it has told."""
    try:
        try:
            raise error
        except type(error):
            sys.exit(1)
    except SystemExit as leaves:
        return leaves


def attempt(log, config, said):
    """As Snakemake and the job do it."""
    log.unlink(missing_ok=True)
    log.write_text(said)
    return begin(log, config)


def test_a_first_attempt_grows_nothing(job):
    log, config = job
    assert growth(log) == {MEMORY: 1, TIME: 1}
    assert attempt(log, config, "first\n") is None


def test_each_attempt_has_a_log_until_one_succeeds(job, monkeypatch):
    log, config = job
    for number in ("12", "13", "14"):
        monkeypatch.setenv("SLURM_JOB_ID", number)
        attempt(log, config, f"{number}\n")
        if number == "13":
            end(log, RuntimeError("no luck"))
    logs = {path.name: path.read_text() for path in log.parent.glob("*.log")}
    assert logs == {"job.log": "14\n"} | {f"job.attempt-{number}.log": f"{number}\n" for number in (12, 13, 14)}
    end(log, None)
    assert [path.name for path in log.parent.glob("*.log")] == ["job.log"]


@pytest.mark.parametrize(
    ("state", "memory", "runtime"),
    [
        ("OUT_OF_MEMORY", 2, 1),
        ("FAILED", 2, 1),  # killed by Slurm where there are no control groups
        ("TIMEOUT", 1, 2),
        ("CANCELLED", 1, 1),
        ("NODE_FAIL", 1, 1),
        ("PREEMPTED", 1, 1),
    ],
)
def test_a_killed_attempt_grows_what_it_was_short_of(job, slurm, state, memory, runtime):
    log, config = job
    slurm("12", state)
    begin(log, config)
    assert growth(log) == {MEMORY: memory, TIME: runtime}


def test_a_task_of_an_array_is_not_taken_for_another(job, slurm):
    """Of the task that has the array's own number Slurm shows all."""
    log, config = job
    slurm("12", "CANCELLED", "JobId=13 ArrayJobId=12 JobState=TIMEOUT", "JobId=121 ArrayJobId=12 JobState=FAILED")
    begin(log, config)
    assert growth(log) == {MEMORY: 1, TIME: 1}


def test_a_killed_attempt_of_which_nothing_is_known_grows_both(job, slurm, monkeypatch):
    log, config = job
    begin(log, config)
    assert growth(log) == {MEMORY: 2, TIME: 2}
    slurm("12", "TIMEOUT")
    monkeypatch.setenv("SLURM_JOB_ID", "13")  # Slurm has forgotten it
    begin(log, config)
    assert growth(log) == {MEMORY: 3, TIME: 3}


@pytest.mark.parametrize(
    "error",
    [leaving(ConfigError("a: b")), leaving(StorageError("full")), ValueError("a defect"), SystemExit(2), None],
)
def test_an_attempt_that_ends_by_itself_grows_nothing(job, slurm, error):
    log, config = job
    slurm("12", "FAILED")
    begin(log, config)
    end(log, error)
    assert growth(log) == {MEMORY: 1, TIME: 1}


def test_too_little_memory_that_the_job_meets_itself(job):
    log, config = job
    begin(log, config)
    end(log, MemoryError())
    assert growth(log) == {MEMORY: 2, TIME: 1}


def test_each_attempt_counts_for_what_it_was(job, slurm):
    log, config = job
    for number, state in enumerate(("OUT_OF_MEMORY", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")):
        slurm(f"{number}", state)
        begin(log, config)
    assert growth(log) == {MEMORY: 3, TIME: 2}


def test_only_a_mistake_fails_again_at_once_and_only_until_the_workflow_starts_again(job):
    log, config = job
    others = leaving(StorageError("full")), leaving(ServiceError("away")), ValueError("a defect"), SystemExit(2), None
    for error in others:
        begin(log, config)
        end(log, error)
    assert begin(log, config) is None
    end(log, leaving(ConfigError("compute.train.gpus: none here")))
    assert begin(log, config) == "compute.train.gpus: none here"
    later = time.time() + 5
    os.utime(config, (later, later))
    assert begin(log, config) is None
    assert growth(log) == {MEMORY: 2, TIME: 2}  # this one alone, which has not ended


def test_an_attempt_that_lost_one_of_its_processes_was_killed(job, slurm):
    log, config = job
    for number, state in enumerate(("OUT_OF_MEMORY", "CANCELLED")):
        slurm(f"{number}", state)
        begin(log, config)
        end(log, leaving(ProcessLost("a process of 2 that train together has ended")))
    assert growth(log) == {MEMORY: 2, TIME: 1}


@pytest.mark.slow
def test_a_command_that_made_a_mistake_is_not_run_again(tmp_path):
    (tmp_path / "config.yaml").write_text("name: 7\nnonsense: 1\n")
    command = [sys.executable, "-m", "ssp.jobs.run", "job.log", "params", "--config", "config.yaml"]
    first, second = (subprocess.run(command, cwd=tmp_path, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == second.returncode == 1
    (said,) = first.stderr.splitlines()
    assert "nonsense: unknown key" in said
    assert second.stderr == f"{said} (as before; not tried again)\n"
    ends = [json.loads(line) for line in (tmp_path / "job.attempts").read_text().splitlines()]
    assert [line.get("end") for line in ends] == [None, "mistake", None, "error"]
