"""Killed twice and started again, the workflow ends as one that nobody killed; its lock is removed when stale.

The long version, 20 kills over all stages of a larger config, is benchmarks/kill_anywhere.py.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workflow.killing import LIMIT_S, Start, run_killed, run_whole, verdict, write_config
from tests.workflow.running import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.workflow, pytest.mark.timeout(1800)]


def test_a_killed_workflow_ends_as_one_that_nobody_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_config(folder, epochs=40, steps=20, quick=True)
    typical = run_whole(whole, 2)
    assert {"generate", "frames", "pretrain", "sweep", "train", "tables", "report"} <= typical.keys()
    history = run_killed(killed, ["trial", "epoch"], typical, random.Random(0), 2)
    assert [kill.stage for kill in history.kills] == ["trial", "epoch"]
    assert history.starts == 3 and history.resumed
    assert history.problems == []
    assert verdict(whole, killed) == []


def _clear(folder: Path) -> subprocess.CompletedProcess:
    script = ROOT / "workflow/scripts/clear_stale_lock.py"
    return subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True)


def test_the_lock_of_a_run_is_kept_while_it_lives_and_removed_when_it_was_killed(tmp_path):
    folder = tmp_path / "run"
    write_config(folder, epochs=1, steps=100_000, quick=True)
    # A job that imports for itself lives on; forked ones end with the workflow (tests/unit/jobs/test_warm.py).
    locks, start, limit = folder / ".snakemake/locks", Start(folder, 1, 1), time.monotonic() + LIMIT_S
    try:
        while "pretrain/f4" not in start.going_on():  # long enough
            assert start.process.poll() is None and time.monotonic() < limit, start.log.read_text()
            time.sleep(0.05)
        refused = _clear(folder)
        assert refused.returncode == 1 and refused.stderr.startswith("Error: a run is going on in this folder: ")
        assert f"{start.process.pid} (" in refused.stderr and list(locks.glob("*.lock"))
        start.process.kill()  # its job lives on
        start.process.wait()
        orphaned = _clear(folder)
        assert orphaned.returncode == 1 and " -m ssp" in orphaned.stderr and list(locks.glob("*.lock"))
    finally:
        start.kill()
    cleared = _clear(folder)
    assert (cleared.returncode, cleared.stderr) == (0, "") and "Removed the lock" in cleared.stdout
    assert not list(locks.glob("*.lock"))
