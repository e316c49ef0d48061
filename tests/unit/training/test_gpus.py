"""Jobs side by side share out a machine's GPUs: real processes and locks, with names of GPUs that are not there."""

import importlib
import logging
import multiprocessing
import os
import tempfile

import pytest
import torch

import ssp.training.gpus
from ssp.training.gpus import VISIBLE


class Said(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def job(pipe, numbers):
    said = Said()
    logging.getLogger("ssp").addHandler(said)
    gpus = importlib.reload(ssp.training.gpus)  # as in a process that has not asked yet
    for number in numbers:
        gpus.take_gpus(number)
    pipe.send((os.environ.get(VISIBLE), said.lines))
    pipe.recv()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a job that asks for GPUs and lives on; what it sees then, what it said, and its process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    started = []

    def begin(*numbers):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=job, args=(theirs, numbers))
        process.start()
        started.append(process)
        assert ours.poll(30)
        return *ours.recv(), process

    yield begin
    for process in started:
        process.kill()
        process.join()


def test_each_has_its_own_and_one_that_was_killed_leaves_its_gpu(start, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0, 2,3,5")
    assert start(1)[:2] == ("0", [])
    seen, said, two = start(2)
    assert (seen, said) == ("2,3", [])
    assert start(1)[:2] == ("5", [])
    two.kill()
    two.join()
    assert start(1)[:2] == ("2", [])


def test_more_jobs_than_gpus_share_and_say_so(start, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1,2")
    assert start(2)[:2] == ("0,1", [])
    seen, said, _ = start(2)
    assert seen == "2,0" and len(said) == 1
    assert "other jobs use 0, too; lower --resources gpu=N" in said[0]


@pytest.mark.parametrize(
    ("visible", "number"), [("3", 1), ("GPU-8f,GPU-a1", 2), ("", 1), ("-1", 1), ("0,-1,1", 1), ("0,1", 4)]
)
def test_where_there_is_nothing_to_choose_nothing_is_touched(start, monkeypatch, tmp_path, visible, number):
    monkeypatch.setenv(VISIBLE, visible)
    assert start(number)[:2] == (visible, [])
    assert not any(tmp_path.iterdir())


def test_names_of_every_kind(start, monkeypatch):
    monkeypatch.setenv(VISIBLE, "MIG-GPU-8f/1/0,GPU-a1")
    assert [start(1)[0], start(1)[0]] == ["MIG-GPU-8f/1/0", "GPU-a1"]


def test_all_that_torch_sees_where_nobody_has_chosen(start, monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [start(1)[0], start(1)[0]] == ["0", "1"]


def test_the_first_call_decides(start, monkeypatch):
    """Of a training by several processes, the team's; the executions that it makes ask for one."""
    monkeypatch.setenv(VISIBLE, "0,1,2")
    assert start(2, 1)[0] == "0,1"
    monkeypatch.setenv(VISIBLE, "0,1")
    assert start(2, 1)[0] == "0,1"


def test_allocations_number_their_own(start, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    assert start(1)[0] == "0"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert start(1)[0] == "0"


def test_where_locks_cannot_be_it_says_what_to_do(start, monkeypatch, tmp_path):
    monkeypatch.setenv(VISIBLE, "0,1")
    (tmp_path / f"ssp-gpus-{os.getuid()}").write_text("a file")
    seen, said, _ = start(1)
    assert seen == "0,1" and "set CUDA_VISIBLE_DEVICES for each" in said[0]
