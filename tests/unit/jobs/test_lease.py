"""One process at a time, a dead one is followed, and what one has finished another gets instead of making it twice."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ssp.files import SILENT_S
from ssp.jobs.lease import BEGAN, begin, held, lease
from ssp.training.stopping import Interrupted, stoppable

WORKER = """
import sys, time
from pathlib import Path
from ssp.jobs import lease

lease.LOOK_S, lease.HEARTBEAT_S = 0.05, 0.1
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with lease.lease(folder / "lease", [folder / "out.txt"], "settings") as wanted:
    if wanted:
        with (folder / "made.txt").open("a") as log:
            log.write("once\\n")
        time.sleep(seconds)
        (wanted / "out.txt").write_text("result")
print("made" if wanted else "given")
"""
ELSEWHERE = "process 1 on elsewhere, batch job 7"


def start(folder, seconds=0.3, **more):
    environment = {name: value for name, value in os.environ.items() if name != BEGAN} | more
    command = [sys.executable, "-c", WORKER, str(folder), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def until(met):
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def quick(monkeypatch):
    """The lease in this process, which neither knows of a workflow nor waits long."""
    monkeypatch.delenv(BEGAN, raising=False)
    monkeypatch.setattr("ssp.jobs.lease.LOOK_S", 0.05)


def make(folder, content="result", made_with="settings", tidy=lambda: None):
    with lease(folder / "lease", [folder / "a.txt", folder / "b.txt"], made_with, tidy) as wanted:
        if wanted:
            for name in ("a.txt", "b.txt"):
                (wanted / name).write_text(content)
                (folder / name).unlink(missing_ok=True)  # as a failing duplicate does meanwhile
    return bool(wanted)


@pytest.mark.slow
def test_of_many_at_once_one_works_and_all_have_its_result(tmp_path):
    outcomes = sorted(map(ended, [start(tmp_path, 2.0) for _ in range(6)]))
    assert outcomes == ["given"] * 5 + ["made"]
    assert (tmp_path / "made.txt").read_text() == "once\n"
    assert not (tmp_path / "lease" / "holder").exists()


def test_a_killed_holder_is_followed_at_once(tmp_path):
    first = start(tmp_path, 60)
    until((tmp_path / "made.txt").exists)
    waiting = [start(tmp_path) for _ in range(3)]
    time.sleep(0.5)
    assert (tmp_path / "made.txt").read_text() == "once\n"  # they do wait
    first.kill()
    first.wait()
    assert sorted(map(ended, waiting)) == ["given", "given", "made"]
    assert (tmp_path / "made.txt").read_text() == "once\n" * 2


def test_who_does_not_wait_gets_a_place_of_the_dead_alone(tmp_path):
    first = start(tmp_path, 60)
    until((tmp_path / "made.txt").exists)
    with held(tmp_path / "lease", wait=False) as mine:
        assert not mine
    with held(tmp_path / "other", wait=False) as mine, held(tmp_path / "other", wait=False) as again:
        assert (mine, again) == (True, False)
    first.kill()
    first.wait()
    with held(tmp_path / "lease", wait=False) as mine:
        assert mine and f"process {os.getpid()} " in (tmp_path / "lease" / "holder").read_text()
    assert not (tmp_path / "lease" / "holder").exists()


def test_who_was_killed_before_it_could_sign_is_followed_in_the_end(tmp_path):
    holder = tmp_path / "lease" / "holder"
    holder.parent.mkdir()
    holder.touch()
    with held(holder.parent, wait=False) as mine:
        assert not mine  # it may be about to
    os.utime(holder, (0, time.time() - SILENT_S - 1))
    with held(holder.parent, wait=False) as mine:
        assert mine


@pytest.mark.slow
def test_a_holder_on_another_host_is_followed_when_it_is_silent(tmp_path):
    holder = tmp_path / "lease" / "holder"
    holder.parent.mkdir()
    holder.write_text(ELSEWHERE)
    waiting = start(tmp_path)
    for _ in range(10):  # as it does while it lives
        os.utime(holder)
        time.sleep(0.1)
    assert waiting.poll() is None and holder.read_text() == ELSEWHERE
    os.utime(holder, (0, time.time() - SILENT_S - 1))
    assert ended(waiting) == "made"


def test_the_clearing_of_a_killed_process_stops_nobody_for_ever(tmp_path):
    holder = tmp_path / "lease" / "holder"
    (tmp_path / "lease" / "clearing").mkdir(parents=True)
    holder.write_text(f"process 999999999 on {socket.gethostname()}")
    os.utime(tmp_path / "lease" / "clearing", (0, time.time() - SILENT_S - 1))
    assert ended(start(tmp_path)) == "made"


def test_a_holder_lives_as_long_as_it_works(tmp_path):
    first = start(tmp_path, 1.5)
    holder = tmp_path / "lease" / "holder"
    until((tmp_path / "made.txt").exists)
    os.utime(holder, (0, time.time() - SILENT_S - 1))
    until(lambda: time.time() - holder.stat().st_mtime < 10)
    assert ended(first) == "made"


def test_who_lost_its_lease_stops_before_it_writes(tmp_path):
    first = start(tmp_path, 60)
    until((tmp_path / "made.txt").exists)
    (tmp_path / "lease" / "holder").write_text(ELSEWHERE)
    assert first.wait(30) == 1 and not (tmp_path / "out.txt").exists()
    assert (tmp_path / "lease" / "holder").read_text() == ELSEWHERE


def test_what_a_duplicate_removed_is_given_back(tmp_path, quick, monkeypatch):
    begin(tmp_path / "began", anew=False)
    monkeypatch.setenv(BEGAN, str((tmp_path / "began").stat().st_mtime))
    assert make(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()
    assert not make(tmp_path, "other")
    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")] == ["result", "result"]


def test_what_was_made_before_the_workflow_is_made_anew(tmp_path, quick, monkeypatch):
    assert make(tmp_path)
    for kept in (tmp_path / "lease").iterdir():
        os.utime(kept, (0, time.time() - 60))
    assert make(tmp_path, "by hand") and (tmp_path / "b.txt").read_text() == "by hand"
    monkeypatch.setenv(BEGAN, str(time.time() + 60))
    assert make(tmp_path, "anew") and (tmp_path / "b.txt").read_text() == "anew"


def test_what_was_made_with_other_settings_is_made_anew(tmp_path, quick, monkeypatch):
    """A config is edited before a killed workflow is started again, which goes on with its time."""
    monkeypatch.setenv(BEGAN, str(time.time() - 60))
    assert make(tmp_path)
    assert make(tmp_path, "edited", "other settings") and (tmp_path / "b.txt").read_text() == "edited"
    assert not make(tmp_path, "never", "other settings")


def test_killed_between_two_outputs_nothing_is_given_back(tmp_path, quick, monkeypatch):
    monkeypatch.setenv(BEGAN, str(time.time() - 60))
    assert make(tmp_path)
    real, moved = os.replace, []

    def killed(source, target):
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("ssp.jobs.lease.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, "new", "other settings")
    assert make(tmp_path, "as at first")  # of what is kept one file is already that of the other settings
    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")] == ["as at first"] * 2


def test_what_it_would_go_on_from_is_removed_when_the_outputs_are_there(tmp_path, quick, monkeypatch):
    monkeypatch.setenv(BEGAN, str(time.time() - 60))
    seen = []

    def tidy():
        seen.append([(tmp_path / name).read_text() for name in ("a.txt", "b.txt")])

    with monkeypatch.context() as patch:
        patch.setattr("ssp.jobs.lease.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, tidy=tidy)
    assert not seen
    assert make(tmp_path, tidy=tidy) and not make(tmp_path, tidy=tidy)  # who was killed at it leaves it to the next
    assert seen == [["result", "result"]] * 2


def killed(*_):
    raise KeyboardInterrupt


def test_who_waits_can_be_asked_to_stop(tmp_path):
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "holder").write_text(ELSEWHERE)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Interrupted), stoppable(), held(tmp_path / "lease"):
        pytest.fail("another has it")


@pytest.mark.slow
def test_a_disk_that_fails_for_a_moment_ends_no_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("ssp.jobs.lease.HEARTBEAT_S", 0.05)
    real, failures = os.utime, []

    def fails_first(path):
        if len(failures) < 3:
            failures.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        real(path)

    holder = tmp_path / "lease" / "holder"
    with held(holder.parent):
        os.utime(holder, (0, 0))
        monkeypatch.setattr("ssp.jobs.lease.os.utime", fails_first)
        until(lambda: holder.stat().st_mtime > 0)
    assert len(failures) == 3 and not holder.exists()


def test_a_killed_workflow_goes_on_with_its_time(tmp_path):
    mark = tmp_path / "state" / "began"
    begin(mark, anew=False)
    os.utime(mark, (0, 1000))
    begin(mark, anew=False)
    assert mark.stat().st_mtime == 1000
    begin(mark, anew=True)
    assert mark.stat().st_mtime > 1000


def test_a_failure_releases_and_keeps_nothing(tmp_path, quick):
    with pytest.raises(RuntimeError), lease(tmp_path / "lease", [tmp_path / "b.txt"], "settings") as draft:
        (draft / "b.txt").write_text("half")
        raise RuntimeError
    assert not list((tmp_path / "lease").iterdir())
    assert make(tmp_path)
