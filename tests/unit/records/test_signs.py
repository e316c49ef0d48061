"""A job that runs says where and how far it is; one that was killed is not taken for one that runs."""

import os
import socket
import subprocess
import sys
import time

import pytest

from ssp.progress import progress
from ssp.records import signs
from ssp.records.signs import SILENT_S, read_sign, telling

JOB = """
import sys, time
from pathlib import Path
from ssp.progress import progress
from ssp.records.signs import telling

with telling(Path(sys.argv[1]), 1000.0), progress("tiny/ssv2/ssp seed 0") as update:
    update(40, 100)
    time.sleep(0.5)
    update(60, 100)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(signs, "EVERY_S", 0.05)


def until(answer):
    end = time.monotonic() + 30
    while not (found := answer()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def test_a_job_tells_until_it_is_over(tmp_path):
    path = tmp_path / "logs" / "seed0.now"
    with telling(path, 1000.0), progress("training") as update:
        sign = until(lambda: read_sign(path))
        assert (sign.host, sign.pid, sign.began) == (socket.gethostname(), os.getpid(), 1000.0)
        update(30, 100)  # done before it was killed
        update(40, 100)
        sign = until(lambda: (now := read_sign(path)) and now.step and now.step.done == 40 and now)
        assert (sign.step.title, sign.step.total) == ("training", 100)
        assert 0 < sign.step.seconds_left < 60  # ten in no time: sixty more take six times as long
    assert not path.exists() and read_sign(path) is None


@pytest.mark.slow
def test_a_job_that_was_killed_does_not_run(tmp_path):
    path = tmp_path / "seed0.now"
    job = subprocess.Popen([sys.executable, "-c", JOB, str(path)])
    sign = until(lambda: (now := read_sign(path)) and now.step and now.step.done == 60 and now)
    assert sign.pid == job.pid and 0.5 < sign.step.seconds_left < 10
    job.kill()
    job.wait()
    assert path.exists() and read_sign(path) is None


def test_on_another_host_only_time_tells(tmp_path):
    path = tmp_path / "seed0.now"
    path.write_text('{"host": "node7", "pid": 1, "job": "4711", "began": 5.0, "step": null}')
    assert read_sign(path).job == "4711"
    os.utime(path, (0, time.time() - SILENT_S - 1))
    assert read_sign(path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}'])
def test_half_a_sign_is_none(tmp_path, content):
    (tmp_path / "seed0.now").write_text(content)
    assert read_sign(tmp_path / "seed0.now") is None
