"""Jobs that search together: one budget, one study, one parent run; whoever is killed, nothing is lost or run twice."""

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

import ssp.jobs.study
import ssp.jobs.sweep
import ssp.jobs.training
from ssp.errors import ConfigError
from ssp.jobs.cell import Cell
from ssp.jobs.lease import LOOK_S, held
from ssp.jobs.study import begin_trial, open_study, take_up
from ssp.jobs.sweep import run_sweep, run_worker
from ssp.jobs.tracking import Tracking
from ssp.records.choice import load_choice
from ssp.training.stopping import Interrupted
from tests import copies
from tests.unit.jobs.searching import search, told
from tests.unit.jobs.test_sweep import essence, killed, scripted

SPACE = {"lr": {"low": 0.001, "high": 0.1, "log": True}}
RUNGS = [{"trials": 4, "epochs": 0.3}, {"trials": 2, "epochs": 0.6}]


def searching(tiny, **changes):
    """A config of two workers and one rung; `changes` as of `tiny`."""
    return tiny(**{"sweep": {"trials": 4, "epochs": 2, "space": SPACE, "workers": 2}} | changes)


def start(config, worker, seconds=0.0, method="linear"):
    log = Path(f"worker-{worker}-{time.monotonic_ns()}.log").absolute()
    return copies.start(search, config, method, worker, seconds, folder=Path.cwd(), out=log), log


def ended(*processes):
    for process, _ in processes:
        process.join(300)
    assert [process.exitcode for process, _ in processes] == [0] * len(processes), [p[1].read_text() for p in processes]


def until(met):
    end = time.monotonic() + 180
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def cell_of(config, method="linear"):
    return Cell(config, "ucf101", method)


def states(config, rung=0, method="linear"):
    found = open_study(cell_of(config, method), rung).get_trials(deepcopy=False)
    return Counter(trial.state.name for trial in found)


def tracked(config, choice):
    """Runs below the sweep's own: name and status of each."""
    tracking = Tracking(config)
    below = f"tags.`mlflow.parentRunId` = '{choice.run.sweep_run_id}'"
    runs = tracking.client.search_runs([tracking.experiment_id], below)
    assert tracking.client.get_run(choice.run.sweep_run_id).info.status == "FINISHED"
    return Counter((run.info.run_name.rpartition("/")[2], run.info.status) for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_workers_climb_together_and_the_sweep_only_chooses(tiny, tmp_path, storage):
    where = "journal" if storage == "journal" else f"sqlite:///{tmp_path}/studies.db"
    config = searching(tiny, sweep={"fidelity": RUNGS, "space": SPACE, "workers": 3, "storage": where})
    ended(*[start(config, worker, 0.5) for worker in range(3)])
    trained = told()
    assert len({process for process, *_ in trained}) == 3
    ended(start(config, None))
    assert told() == trained  # nothing was left to it
    choice = load_choice(cell_of(config).paths.choice("ucf101", "linear"), config, "ucf101", "linear")
    assert [(trial.number, trial.rung) for trial in choice.trials] == [*((n, 0) for n in range(4)), (4, 1), (5, 1)]
    assert [sum(states(config, rung).values()) for rung in range(2)] == [4, 2]
    first = [trial for trial in choice.trials if trial.rung == 0 and trial.state == "complete"]
    best = sorted(first, key=lambda t: (-t.value, t.epochs[-1].val_loss, t.number))[:2]
    assert [trial.of for trial in choice.trials[4:]] == [trial.number for trial in best]
    assert [trial.params for trial in choice.trials[4:]] == [trial.params for trial in best]
    assert {"lr": 0.01} in [trial.params for trial in first]
    assert tracked(config, choice) == {(f"trial{number}", "FINISHED"): 1 for number in range(6)}
    assert not (cell_of(config).paths.lease(cell_of(config).choice_file) / "slots").exists()


@pytest.mark.slow
def test_a_killed_worker_is_gone_on_with_at_its_epoch_by_another(tiny):
    """Trials that finish meanwhile would have its trial proposed anew, which it must not be."""
    config = searching(tiny, sweep__trials=5)
    slots = cell_of(config, "vpt").paths.lease(cell_of(config, "vpt").choice_file) / "slots"
    with held(slots / "0"):  # the start; what comes next is proposed by what has finished
        dying = start(config, 0, 600.0, "vpt")
        until(told)
    other = start(config, 1, 0.0, "vpt")
    until(lambda: states(config, method="vpt")["COMPLETE"] + states(config, method="vpt")["PRUNED"] >= 3)
    begun = [line for line in told() if line[0] == str(dying[0].pid)]
    (lr,) = {lr for _, lr, *_ in begun}
    assert [line[2:] for line in begun] == [["1", "trained"]]
    os.kill(dying[0].pid, signal.SIGKILL)
    dying[0].join()
    ended(other, start(config, 0, 0.0, "vpt"))
    ended(start(config, None, 0.0, "vpt"))
    again = [line[2:] for line in told() if line[1] == lr and line[0] != str(dying[0].pid)]
    assert again == [["1", "restored"], ["2", "trained"]]
    found = states(config, method="vpt")
    assert (found["FAIL"], sum(found.values())) == (1, 6)
    choice = load_choice(cell_of(config).paths.choice("ucf101", "vpt"), config, "ucf101", "vpt")
    assert choice.run.interrupted == 1 and len(choice.trials) == 5
    runs = tracked(config, choice)
    assert {status for _, status in runs} == {"FINISHED", "KILLED"} and sum(runs.values()) == 6
    assert all(runs[f"trial{number}", "FINISHED"] == 1 for number in range(5))


@pytest.mark.slow
def test_a_slot_that_another_fills_between_the_look_and_the_lease_is_not_run_again(tiny, monkeypatch):
    config, real = searching(tiny, sweep__trials=2), ssp.jobs.sweep.held

    def late(place, **how):
        if place.parent.name == "slots" and not told():
            ended(start(config, 1))
        return real(place, **how)

    monkeypatch.setattr(ssp.jobs.sweep, "held", late)
    run_worker(config, "ucf101", "linear", 0)
    assert sum(states(config).values()) == 2


def test_what_was_queued_and_never_asked_for_is_closed(tiny):
    """By a process that was killed in between: it does not stay RUNNING, and no other slot has its trial."""
    cell = cell_of(searching(tiny))
    (study,) = take_up(cell)
    study.enqueue_trial({"lr": 0.05}, user_attrs={"slot": 0})
    trial = begin_trial(study, 1, {"lr": 0.02})
    assert (trial.user_attrs["slot"], trial.suggest_float("lr", 0.001, 0.1, log=True)) == (1, 0.02)
    assert states(cell.config) == {"FAIL": 1, "RUNNING": 1}


@pytest.mark.slow
def test_only_one_at_a_time_takes_up_a_study(tiny):
    cell = cell_of(searching(tiny, sweep__trials=2))
    with held(cell.paths.lease(cell.choice_file) / "study"):
        worker = start(cell.config, 0)
        until(lambda: worker[1].exists() and "scan backend" in worker[1].read_text())  # then it comes to that
        time.sleep(1.0)
        assert not cell.paths.journal("ucf101", "linear").exists()
    ended(worker)
    assert sum(states(cell.config).values()) == 2


@pytest.mark.slow
def test_the_same_worker_twice_waits_and_has_the_first_ones_mark(tiny):
    config = searching(tiny, sweep__trials=2)
    ended(*[start(config, 0, 1.0) for _ in range(2)])
    assert len({process for process, *_ in told()}) == 1 and len(told()) == 4
    assert states(config) == {"COMPLETE": 2}
    assert cell_of(config).paths.worker("ucf101", "linear", 0).exists()


@pytest.mark.slow
def test_what_lacks_the_sweep_fills_and_who_asks_again_has_all_search_anew(tiny, monkeypatch):
    config = searching(tiny)
    scripted(monkeypatch, [[50, 60], [50, 61], [50, 59], [50, 70]])
    run_worker(config, "ucf101", "linear", 1)
    for trial in open_study(cell_of(config)).get_trials(deepcopy=False)[3:]:
        assert trial.state == TrialState.COMPLETE
    run_worker(config, "ucf101", "linear", 0)  # nothing is left, and no curve
    choice = run_sweep(config, "ucf101", "linear")
    assert (choice.trial, choice.value) == (3, 70)
    scripted(monkeypatch, [[50, 80], [50, 61]] + [[50, 50]] * 2)
    killed_after_two(monkeypatch, config)
    assert states(config) == {"COMPLETE": 2, "RUNNING": 1}
    again = run_sweep(config, "ucf101", "linear")
    assert (again.trial, again.value, again.run.interrupted) == (0, 80, 1)


def killed_after_two(monkeypatch, config):
    real, calls = ssp.jobs.sweep.train_trial, []

    def train(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ssp.jobs.sweep, "train_trial", train)
        with pytest.raises(KeyboardInterrupt):
            run_worker(config, "ucf101", "linear", 0)


def test_the_same_finished_trials_make_the_same_choice(tiny, monkeypatch):
    """Whoever has run them, and whoever chooses."""
    curves = [[50, 60], [50, 75], [50, 59], [50, 70]]
    scripted(monkeypatch, curves)
    run_worker(config := searching(tiny), "ucf101", "linear", 1)
    first = run_sweep(config, "ucf101", "linear")
    scripted(monkeypatch, curves)
    second = run_sweep(searching(tiny, name="second"), "ucf101", "linear")
    assert essence(first)["trials"] == essence(second)["trials"]
    assert (first.trial, first.hyperparameters) == (second.trial, second.hyperparameters) == (1, first.hyperparameters)


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_goes_on_with_its_next_step(tiny, monkeypatch):
    config, real, calls = searching(tiny, sweep__trials=2), ssp.jobs.training.fit, []

    def fit(*arguments, **more):
        calls.append([])

        def on_step(done, of):
            calls[-1].append(done)
            if len(calls) == 1 and done == of - 1:
                os.kill(os.getpid(), signal.SIGTERM)

        return real(*arguments, **more | {"on_step": on_step})

    monkeypatch.setattr(ssp.jobs.training, "fit", fit)
    with pytest.raises(Interrupted):
        run_worker(config, "ucf101", "vpt", 0)
    assert not cell_of(config).paths.worker("ucf101", "vpt", 0).exists()
    run_worker(config, "ucf101", "vpt", 1)  # another one, which is free
    assert calls[1] == [calls[0][-1] + 1] and len(calls) == 3


def holder_of(config, slot, whose):
    place = cell_of(config).paths.lease(cell_of(config).choice_file) / "slots" / str(slot)
    place.mkdir(parents=True)
    (place / "holder").write_text(whose)
    return place / "holder"


def test_a_worker_leaves_the_rest_to_others_if_they_are_enough_for_what_follows(tiny, monkeypatch):
    """They: the process that has started this one."""
    other = f"process {os.getppid()} on {socket.gethostname()}"
    config = searching(tiny, sweep={"fidelity": RUNGS, "space": SPACE, "workers": 3})
    waits, sleep = [], time.sleep

    def wait(seconds):  # for as long as one of the two is done
        if seconds != LOOK_S:  # others sleep, too
            return sleep(seconds)
        waits.append(states(config))
        (cell_of(config).paths.lease(cell_of(config).choice_file) / "slots/2/holder").unlink()

    monkeypatch.setattr(ssp.jobs.sweep.time, "sleep", wait)
    scripted(monkeypatch, [[60], [61], [62], [63], [64], [65], [66]])
    holder = holder_of(config, 1, other)
    holder_of(config, 2, other)
    run_worker(config, "ucf101", "linear", 0)  # two at work, two trials in the next rung
    assert states(config) == {"COMPLETE": 2} and not waits
    holder.unlink()
    run_worker(config, "ucf101", "linear", 1)  # one at work
    assert waits == [{"COMPLETE": 3}]
    assert states(config) == {"COMPLETE": 4} and states(config, 1) == {"COMPLETE": 2}


def test_who_comes_clears_nothing_that_others_may_hold(tiny):
    cell = cell_of(searching(tiny))
    (study,) = take_up(cell)
    running = begin_trial(study, 0, {"lr": 0.01})
    lock = Path(f"{cell.paths.journal('ucf101', 'linear')}.lock").absolute()
    os.symlink(lock.with_suffix(""), lock)
    read = ssp.jobs.study.open_study
    try:
        ssp.jobs.study.open_study = lambda cell, rung: study  # that would wait for the lock
        take_up(cell)
        assert os.path.lexists(lock)
        take_up(cell_of(tiny()))  # alone, whoever had it was killed
        assert not os.path.lexists(lock)
    finally:
        ssp.jobs.study.open_study = read
    assert [trial.state for trial in open_study(cell).get_trials()] == [TrialState.RUNNING]
    other = begin_trial(open_study(cell), 1, {})
    assert (running.number, other.number) == (0, 1)
    again = begin_trial(open_study(cell), 1, {})
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "FAIL", "RUNNING"]
    assert again.user_attrs["slot"] == 1


def test_half_a_line_of_a_killed_process_costs_the_others_nothing(tiny):
    cell = cell_of(searching(tiny))
    (study,) = take_up(cell)
    begin_trial(study, 0, {"lr": 0.01})
    journal = cell.paths.journal("ucf101", "linear")
    with journal.open("ab") as file:
        file.write(b'{"op_code":6,"worker')
    begin_trial(study, 1, {})  # of a process that was there before
    (other,) = take_up(cell)
    assert [trial.user_attrs["slot"] for trial in other.get_trials()] == [0, 1]
    assert b'"worker{' not in journal.read_bytes()


def test_killed_between_queueing_and_asking(tiny):
    """What waits is nobody's, and is not taken for another slot's."""
    (study,) = take_up(cell_of(searching(tiny)))
    study.enqueue_trial({"lr": 0.02}, user_attrs={"slot": 3})
    assert begin_trial(study, 1, {}).user_attrs == {"slot": 1}
    assert begin_trial(study, 3, {"lr": 0.05}).suggest_float("lr", 0.01, 0.1) == 0.05
    assert [trial.state.name for trial in study.get_trials()] == ["FAIL", "RUNNING", "RUNNING"]


def test_numbers_of_workers(tiny):
    assert searching(tiny, sweep__workers=8).workers("ucf101") == range(4)  # as many as there are trials
    assert tiny(sweep__workers=1).workers("ucf101") == tiny(sweep={"trials": 0, "workers": 3}).workers("ucf101")
    with pytest.raises(ConfigError, match=r"--worker: 2 search together on ucf101 \(sweep\.workers\), counted from 0"):
        run_worker(searching(tiny), "ucf101", "linear", 2)


def test_a_worker_killed_at_its_end_is_followed(tiny, monkeypatch):
    """By the one of the same number, started again."""
    config = searching(tiny, sweep__trials=2)
    with monkeypatch.context() as patched:
        killed(patched, config, 1, 2)
    run_worker(config, "ucf101", "linear", 0)
    assert states(config) == {"COMPLETE": 2, "FAIL": 1}
