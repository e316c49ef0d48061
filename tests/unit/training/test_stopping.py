"""Asked to stop at any step, or ended without a word after one, a training goes on to the very same bytes."""

import os
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
import torch

import ssp.training.loop
from ssp.config import Recipe
from ssp.records.record import Chosen
from ssp.training.features import Features
from ssp.training.loop import TrainingState, fit, trained_tensors
from ssp.training.stopping import Interrupted, asked_to_stop, stop_if_asked, stoppable
from tests.unit.toy import CPU, Clips, small_model

CHOSEN = Chosen(lr=0.02, weight_decay=0.01, drop_path=0.0)
STEPS = 3  # an epoch


def training(method="ssp", path=None, **more):
    """A model and its epochs, with drop path, mixing and micro-batches."""
    model = small_model(method, drop_path=0.2)
    plain = {"epochs": 3, "warmup_epochs": 1, "batch_size": 4, "micro_batch": 2, "augmentation": {"mixup": 0.8}}
    state = path and TrainingState(path, "identity")
    if method == "linear":
        more["features"] = Features(model)
    arguments = {"recipe": Recipe.model_validate(plain), "chosen": CHOSEN, "seed": 3, "execution": CPU, "state": state}
    return model, fit(model, Clips(4 * STEPS), Clips(9, "val"), **arguments | more)


def told(epochs):
    return [(e.epoch, e.lr, e.train_loss, e.val_loss, e.val_top1) for e in epochs]


@cache
def uninterrupted(method):
    """The model and its epochs; nobody trains it further."""
    model, epochs = training(method)
    return model, told(epochs)


def same(a, b):
    a, b = trained_tensors(a), trained_tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def at(step, act):
    """Calls back when a step is over."""
    return lambda done, _: act() if done == step else None


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("method", ["ssp", "linear"])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 9])
def test_asked_to_stop_after_any_step_goes_on_from_there(tmp_path, method, step):
    whole, expected = uninterrupted(method)
    path, counted = tmp_path / "seed3.pt", []
    _, epochs = training(method, path, on_step=at(step, terminate))
    with stoppable(), pytest.raises(Interrupted, match=r"interrupted \(SIGTERM\); run the same command again"):
        list(epochs)
    model, epochs = training(method, path, on_step=lambda done, _: counted.append(done))
    assert told(epochs) == expected and same(model, whole)
    assert counted == list(range(step + 1, 3 * STEPS + 1))  # no step is taken twice


def test_asked_to_stop_while_it_validates_no_step_is_lost(tmp_path, monkeypatch):
    whole, expected = uninterrupted("ssp")
    path, counted, validate = tmp_path / "seed3.pt", [], ssp.training.loop.validate

    def asked(*arguments, **more):
        terminate()
        return validate(*arguments, **more)

    monkeypatch.setattr(ssp.training.loop, "validate", asked)
    with stoppable(), pytest.raises(Interrupted):
        list(training(path=path)[1])
    monkeypatch.setattr(ssp.training.loop, "validate", validate)
    model, epochs = training(path=path, on_step=lambda done, _: counted.append(done))
    assert told(epochs) == expected and same(model, whole)
    assert counted == list(range(STEPS + 1, 3 * STEPS + 1))


def test_killed_without_a_word_it_goes_on_from_what_it_has_saved_within_the_epoch(tmp_path):
    whole, expected = uninterrupted("ssp")
    path, counted = tmp_path / "seed3.pt", []

    def dies():
        raise KeyboardInterrupt

    for limit, first in ((0.0, 5), (1e9, 4)):  # saved after each step, and after each epoch alone
        with pytest.raises(KeyboardInterrupt):
            list(training(path=path, save_every_s=limit, on_step=at(5, dies))[1])
        counted.clear()
        model, epochs = training(path=path, on_step=lambda done, _: counted.append(done))
        assert told(epochs) == expected and same(model, whole)
        assert counted[0] == first
        path.unlink()


def test_seconds_of_earlier_processes_count(tmp_path):
    path = tmp_path / "seed3.pt"
    with stoppable(), pytest.raises(Interrupted):
        list(training(path=path, on_step=at(5, lambda: time.sleep(0.3) or terminate()))[1])
    first, second, third = training(path=path)[1]
    assert first.restored and first.seconds_before == first.seconds > 0
    assert second.seconds > second.seconds_before > 0.3 and not second.restored
    assert third.seconds_before == 0


def test_signals_ask_once_within_the_block_alone():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert not asked_to_stop()
        stop_if_asked()
        terminate()
        assert asked_to_stop() and signal.getsignal(signal.SIGTERM) == before  # the second ends the process
        with pytest.raises(Interrupted):
            stop_if_asked()
    assert not asked_to_stop() and signal.getsignal(signal.SIGTERM) == before


LOADER = """
import os, signal, sys, time
import torch
from ssp.training.execution import Execution
from tests.unit.toy import Clips

loader = iter(Execution(torch.device("cpu"), loader_workers=1).loader(Clips(40, "val"), [[i] for i in range(40)]))
next(loader)
print(*loader._workers_status and [worker.pid for worker in loader._workers], flush=True)
sys.stdin.readline()
print(sum(1 for _ in loader))
"""


@pytest.mark.slow
def test_a_signal_to_all_processes_leaves_those_that_prepare_clips_at_work():
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline())
    time.sleep(0.2)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker, number)
    out, err = process.communicate("\n", timeout=60)
    assert out.strip() == "39", err
