"""The process that jobs are forked from: the same command, the same end, and nobody is outlived."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssp.jobs.warm import ADDRESS
from ssp.records.usage import read_usage

ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / "config/demo.yaml")
LONG = ("costs", "--config", CONFIG)  # ten seconds, if nobody ends it
STARTER = """
import os, sys
from ssp.jobs import warm
warm.start(sys.argv[1])
print(os.environ[warm.ADDRESS], flush=True)
sys.stdin.read()
"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's"),
    pytest.mark.slow,
]


class Warm:
    """A process to fork from, the process that started it, and jobs."""

    def __init__(self, folder, ready=True, root=ROOT):
        self.folder, plain = folder, {name: value for name, value in os.environ.items() if name != ADDRESS}
        plain["PYTHONPATH"] = str(root)
        call, pipes = [sys.executable, "-c", STARTER, str(root)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.starter = subprocess.Popen(call, env=plain, cwd=folder, **pipes, text=True)
        self.address = Path(self.starter.stdout.readline().strip())
        self.environment = plain | {ADDRESS: str(self.address)}
        until((self.address.with_name("ready") if ready else self.address).exists)

    def job(self, *command, log="job.log", **more):
        run = [sys.executable, "-m", "ssp.jobs.run", log, *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(run, cwd=self.folder, env=self.environment | more, **pipes)

    def itself(self):
        (pid,) = (pid for pid in _having("cmdline", self.address) if _parent(pid) == self.starter.pid)
        return pid

    def forked(self):
        """Processes of jobs: they have the command line of the one that they were forked from."""
        return [pid for pid in _having("cmdline", self.address) if _parent(pid) != self.starter.pid]

    def started(self):
        """What jobs have started in turn."""
        return [pid for pid in _having("environ", self.address) if _parent(pid) != os.getpid()]


def _having(file, address):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(address).encode() in (process / file).read_bytes() and _parent(process.name) is not None:
                found.append(int(process.name))
    return found


def _parent(pid):
    """None of a process that has ended."""
    with contextlib.suppress(OSError):
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(parent)


def until(met, limit=180):
    end = time.monotonic() + limit
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """One for all tests, of a copy of the code, as one of them edits that."""
    folder = tmp_path_factory.mktemp("warm")
    for name in ("ssp", "baselines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    warm = Warm(folder, root=folder)
    yield warm
    warm.starter.kill()
    warm.starter.wait()


def test_a_job_is_the_same_command_and_does_not_import(warm):
    done = warm.job("params", "--config", CONFIG)
    out, err = done.communicate()
    used = read_usage(warm.folder / "job.tsv")
    cold = warm.job("params", "--config", CONFIG, **{ADDRESS: ""})
    assert (out, err, done.returncode) == (*cold.communicate(), 0) and "extra: what the method adds" in out
    alone = read_usage(warm.folder / "job.tsv")
    assert used.cpu_time < alone.cpu_time - 0.5  # importing torch alone takes longer than that
    assert used.max_rss > 100


def test_all_jobs_of_a_workflow_run_the_code_of_its_start(warm):
    code = warm.folder / "baselines/vpt.py"
    before = code.read_text()
    code.write_text("raise RuntimeError('edited meanwhile')")
    try:
        first, without = warm.job("params", "--config", CONFIG), warm.job("params", "--config", CONFIG, **{ADDRESS: ""})
        assert first.communicate()[0] and first.returncode == 0
        assert "edited meanwhile" in without.communicate()[1]
    finally:
        code.write_text(before)


@pytest.mark.parametrize("ended", [False, True])
def test_while_it_imports_large_jobs_alone_wait_for_it(tmp_path, ended):
    warm = Warm(tmp_path, ready=False)
    os.kill(warm.itself(), signal.SIGSTOP)
    try:
        waits, does_not = (
            warm.job(*command, "--config", "nothing.yaml", log=f"{command[0]}.log")
            for command in (("costs",), ("data", "fetch", "--dataset", "ssv2"))
        )
        assert does_not.wait(180) == 1 and "nothing.yaml: cannot be read" in does_not.stderr.read()
        assert waits.poll() is None and not (tmp_path / "costs.tsv").exists()
        os.kill(warm.itself(), signal.SIGKILL if ended else signal.SIGCONT)
        assert waits.wait(180) == 1 and waits.stderr.read().startswith("error: nothing.yaml: cannot be read")
    finally:
        warm.starter.kill()
        warm.starter.wait()


def test_a_job_fails_as_the_command_fails(warm):
    done = warm.job("params", "--config", "nothing.yaml", log="wrong.log")
    out, err = done.communicate()
    assert (out, done.returncode) == ("", 1)
    assert err.startswith("error: nothing.yaml: cannot be read") and err.count("\n") == 1


def test_folder_and_environment_are_those_of_the_job(warm):
    (warm.folder / "own.yaml").write_text("nonsense: 1\n")
    done = warm.job("check", "own.yaml", log="check.log", TMPDIR="/somewhere")
    assert "own.yaml: nonsense: " in done.communicate()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_ends_the_job_ends_the_forked_process(warm, number):
    job = warm.job(*LONG)
    until(warm.started)  # it measures memory in processes of their own
    job.send_signal(number)
    assert job.wait(60) == -number
    until(lambda: not warm.forked() and not warm.started())


def test_all_end_with_the_workflow_even_when_it_is_killed(warm):
    job = warm.job(*LONG)
    until(warm.forked)
    warm.starter.kill()
    warm.starter.wait()
    assert job.wait(60) == 1
    assert job.stderr.read() == "error: the process that this job was forked from has ended; run the workflow again\n"
    until(lambda: not warm.forked() and not warm.address.parent.exists())
    alone = warm.job("params", "--config", CONFIG)  # of a new start, say
    assert alone.wait(180) == 0
