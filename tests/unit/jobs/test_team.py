"""Several processes of one job: the results of one, and one end for all of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ssp.config import slice_hash
from ssp.errors import ConfigError
from ssp.jobs.check import check_training
from ssp.jobs.inference import evaluate_saved
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from ssp.records.choice import Choice
from ssp.records.predictions import read_predictions
from ssp.training.parallel import current

ROUNDS = """
import os, time
from ssp.jobs.team import obey, team
from ssp.training.parallel import current
from ssp.training.stopping import stop_if_asked, stoppable

def rounds():
    for number in range(100_000):
        current().gather("round", lambda: time.sleep(0.01) or (current().rank == 0 and stop_if_asked()))
        if number == 0:
            os.write(1, b"at it %d\\n" % current().rank)  # whole: the two share a pipe, and print writes in pieces

def serve():
    obey(lambda _: rounds())

if __name__ == "__main__":
    with team(2, False, serve, ()) as others, stoppable():
        others.order("rounds")
        rounds()
"""


class Running:
    """Two processes at work, in a process group of their own."""

    def __init__(self, script: Path) -> None:
        self.first = subprocess.Popen(
            *([sys.executable, str(script)],),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True},
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.out = ""

    def begun(self) -> None:
        """Wait until both are at it."""
        assert sorted(self.first.stdout.readline() for _ in range(2)) == ["at it 0\n", "at it 1\n"]
        (self.other,) = (pid for pid in children(self.first.pid) if b"spawn_main" in command(pid))

    def end(self, seconds: float) -> tuple[int, str]:
        """Exit code and standard error of the first, once both are gone."""
        error = self.first.communicate(timeout=seconds)[1]
        until = time.monotonic() + seconds
        while command(self.other):
            assert time.monotonic() < until, "the other process goes on"
            time.sleep(0.05)
        return self.first.returncode, error


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_whatever_ends_one_process_ends_both(tmp_path):
    script = tmp_path / "rounds.py"
    script.write_text(ROUNDS)
    ways = ("the other is killed", "the first is killed", "all are asked to stop")
    running = {way: Running(script) for way in ways}
    for one in running.values():
        one.begun()
    os.kill(running["the other is killed"].other, signal.SIGKILL)
    running["the first is killed"].first.kill()
    os.killpg(running["all are asked to stop"].first.pid, signal.SIGTERM)  # as a batch system does
    code, said = running["the other is killed"].end(60)
    assert code == 1 and "process 2 of the 2 that train together was killed (SIGKILL)" in said
    assert "ProcessLost" in said
    assert running["the first is killed"].end(60)[0] == -signal.SIGKILL
    code, said = running["all are asked to stop"].end(60)
    assert code == 1 and said.strip().endswith("Interrupted: interrupted (SIGTERM); run the same command again")


def cut(processes, **more):
    """Changes of a config: so many processes for each training, of micro-batches that two can share."""
    plain = {"threads": processes, "processes": processes}
    return {"compute": {"train": plain}, "datasets__ucf101__recipe__micro_batch": 2, **more}


def essence(choice: Choice) -> dict:
    return choice.model_dump(exclude={"run"})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ssp", "linear"])
def test_search_training_and_test_are_those_of_one_process(tiny, method):
    """Of the linear probe, trials share features, and folds and pruning are the first process's to decide."""
    records, predictions, choices = [], [], []
    for processes in (1, 2):
        config = tiny(**cut(processes, name=f"by{processes}", sweep__trials=3, sweep__epochs=2))
        choices.append(run_sweep(config, "ucf101", method))
        records.append(train_cell(config, "ucf101", method, 0))
        predictions.append(read_predictions(Paths.of(config).predictions("ucf101", method, 0)))
        assert current().size == 1
    one, two = records
    assert [record.run.processes for record in records] == [1, 2]
    assert one.config_hash == two.config_hash == slice_hash(two.config)
    assert one.hyperparameters == two.hyperparameters and one.metrics.correct == two.metrics.correct
    for a, b in zip(one.curves, two.curves, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
    states = [[(trial.state, trial.params) for trial in choice.trials] for choice in choices]
    assert states[0] == states[1]
    assert list(predictions[0]["id"]) == list(predictions[1]["id"])
    logits = [np.stack(list(table["logits"])) for table in predictions]
    assert np.allclose(*logits, atol=1e-3) and not list(Paths.of(config).results.rglob("*.pt"))
    assert "equal to the record" in evaluate_saved(config, "ucf101", method, 0)  # read again by one process


def test_fewer_micro_batches_than_processes_are_refused_before_anything_is_trained(tiny):
    config = tiny(compute={"train": {"threads": 5, "processes": 5}}, datasets__ucf101__recipe__micro_batch=2)
    with pytest.raises(ConfigError, match=r"datasets\.ucf101\.recipe\.micro_batch: fewer micro-batches than the 5"):
        check_training(config, "tiny.yaml")
    check_training(tiny(**cut(4)), "tiny.yaml")
    nodes = {"train": {"threads": 2, "processes": 2, "nodes": 3}}
    with pytest.raises(ConfigError, match=r"fewer micro-batches than the 6 processes of a training .*nodes\)"):
        check_training(tiny(compute=nodes, datasets__ucf101__recipe__micro_batch=2), "tiny.yaml")
