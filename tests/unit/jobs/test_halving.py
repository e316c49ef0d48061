"""Successive halving: what a rung trains, what it learns from, what is chosen, and that a kill changes nothing."""

import optuna
import pytest
from optuna.trial import TrialState

import ssp.jobs.sweep
import ssp.jobs.training
import ssp.jobs.trial
from ssp.jobs.cell import Cell
from ssp.jobs.study import open_study
from ssp.jobs.sweep import run_sweep
from ssp.records.choice import load_choice
from tests.unit.jobs.test_sweep import killed, scripted

RUNGS = [{"trials": 4, "epochs": 0.3}, {"trials": 2}]
SPACE = {"lr": {"low": 0.001, "high": 0.1, "log": True}}


def halving(tiny, *, rungs=RUNGS, **changes):
    """Sweeps of two rungs; `changes` as of `tiny`."""
    return tiny(**{"sweep": {"fidelity": rungs, "space": SPACE}} | changes)


def told(choice):
    return [(trial.number, trial.rung, trial.of, trial.state, len(trial.epochs)) for trial in choice.trials]


def test_the_best_of_a_rung_are_trained_anew_and_the_best_of_the_last_is_chosen(tiny, monkeypatch):
    scripted(monkeypatch, [[60], [90], [50], [80], [1, 1, 40], [1, 1, 45]])
    config = halving(tiny)
    choice = run_sweep(config, "ucf101", "linear")
    assert told(choice) == [
        *((number, 0, None, "complete", 1) for number in range(4)),
        (4, 1, 1, "complete", 3),
        (5, 1, 3, "complete", 3),
    ]
    assert [t.params for t in choice.trials[4:]] == [choice.trials[1].params, choice.trials[3].params]
    assert (choice.trial, choice.value) == (5, 45)  # not the 90 of the first rung
    assert choice.hyperparameters == choice.trials[3].hyperparameters
    assert [b.model_dump() for b in choice.budget] == [
        {"trials": 4, "epochs": 1, "videos": 1.0},
        {"trials": 2, "epochs": 3, "videos": 1.0},
    ]
    path = Cell(config, "ucf101", "linear").paths.choice("ucf101", "linear")
    assert load_choice(path, config, "ucf101", "linear") == choice


@pytest.mark.slow
def test_each_rung_learns_and_prunes_from_itself_alone(tiny, monkeypatch):
    """Two epochs each; what is best in the second rung is far below all of the first, and would be pruned beside it."""
    rungs = [{"trials": 4, "epochs": 0.6}, {"trials": 3}, {"trials": 1}]
    scripted(monkeypatch, [[90, 90]] * 2 + [[91, 92], [80, 80]] + [[20, 20, 20], [21, 21, 21], [5, 5, 5], [9, 9, 9]])
    cell = Cell(halving(tiny, rungs=rungs), "ucf101", "linear")
    choice = run_sweep(cell.config, "ucf101", "linear")
    states = [(trial.rung, trial.state) for trial in choice.trials]
    first = [(0, "complete")] * 3 + [(0, "pruned")]
    assert states == [*first, (1, "complete"), (1, "complete"), (1, "pruned"), (2, "complete")]
    assert [trial.of for trial in choice.trials[4:]] == [2, 0, 1, 5]  # the pruned trial is not among the best
    assert [len(open_study(cell, rung).trials) for rung in range(3)] == [4, 3, 1]


@pytest.mark.slow
def test_the_first_rung_proposes_what_a_sweep_without_halving_does(tiny):
    rungs = run_sweep(halving(tiny), "ucf101", "linear")
    alone = run_sweep(tiny(name="alone", sweep={"trials": 4, "epochs": 1, "space": SPACE}), "ucf101", "linear")
    assert rungs.trials[:4] == alone.trials


def test_one_rung_is_what_trials_and_epochs_say(tiny, monkeypatch):
    scripted(monkeypatch, [[60], [90], [50]] * 2)
    one = run_sweep(halving(tiny, rungs=[{"trials": 3, "epochs": 0.3}]), "ucf101", "linear")
    same = run_sweep(tiny(name="same", sweep={"trials": 3, "epochs": 1, "space": SPACE}), "ucf101", "linear")
    assert (one.trials, one.budget, one.trial) == (same.trials, same.budget, same.trial)


def test_failed_trials_do_not_climb_and_a_rung_that_fails_fails_the_sweep(tiny, monkeypatch):
    scripted(monkeypatch, [[None], [None], [None], [50], [None]])
    choice = run_sweep(halving(tiny), "ucf101", "linear")
    assert told(choice)[-1][:4] == (4, 1, 3, "failed") and len(choice.trials) == 5
    assert choice.reason.startswith("all 1 trials of rung 1 failed (training loss is nan")


KILLS = {"first epoch": (0, 1), "in the first rung": (2, 1), "in the last rung": (4, 2), "last trial": (5, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
@pytest.mark.parametrize("at", KILLS)
def test_a_killed_sweep_fills_what_is_missing_and_no_more(tiny, monkeypatch, tmp_path, at, storage):
    curves = [[60], [90], [50], [80], [1, 1, 40], [1, 1, 45]]
    scripted(monkeypatch, curves)
    where = "journal" if storage == "journal" else f"sqlite:///{tmp_path}/studies.db"
    whole = run_sweep(halving(tiny, name="whole"), "ucf101", "linear")
    config = halving(tiny, sweep={"fidelity": RUNGS, "space": SPACE, "storage": where})
    trial, epoch = KILLS[at]
    scripted(monkeypatch, curves)
    killed(monkeypatch, config, trial, epoch)
    scripted(monkeypatch, curves[trial:])
    resumed = run_sweep(config, "ucf101", "linear")
    assert resumed.trials == whole.trials and resumed.run.interrupted == 1
    cell = Cell(config, "ucf101", "linear")
    counts = [len(open_study(cell, rung).trials) for rung in (0, 1)]
    assert counts == ([5, 2] if trial < 4 else [4, 3])  # the budget, and the one that was killed


def test_killed_between_queueing_and_training(tiny, monkeypatch):
    scripted(monkeypatch, [[60], [90], [50], [80], [1, 1, 40], [1, 1, 45]])
    config, real = halving(tiny), optuna.Study.ask
    calls = []

    def ask(self, *arguments):
        calls.append(self.study_name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(optuna.Study, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, "ucf101", "linear")
    choice = run_sweep(config, "ucf101", "linear")
    assert [trial.of for trial in choice.trials[4:]] == [1, 3]
    states = [trial.state for trial in open_study(Cell(config, "ucf101", "linear"), 1).trials]
    assert states == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_a_finished_sweep_that_is_asked_for_again_starts_afresh_in_all_rungs(tiny, monkeypatch):
    config = halving(tiny)
    scripted(monkeypatch, [[60], [90], [50], [80], [1, 1, 40], [1, 1, 45]])
    run_sweep(config, "ucf101", "linear")
    scripted(monkeypatch, [[61], [60], [59], [58], [1, 1, 30], [1, 1, 29]])
    again = run_sweep(config, "ucf101", "linear")
    assert [trial.of for trial in again.trials[4:]] == [0, 1] and again.value == 30


def test_a_part_of_the_videos(tiny, monkeypatch):
    rungs = [{"trials": 3, "videos": 0.5}, {"trials": 1}]
    sizes, real = [], ssp.jobs.training.fit

    def fit(model, train_set, val_set, **named):
        sizes.append((len(train_set), len(val_set)))
        yield from real(model, train_set, val_set, **named)

    monkeypatch.setattr(ssp.jobs.training, "fit", fit)
    config = halving(tiny, rungs=rungs)
    run_sweep(config, "ucf101", "linear")
    cell = Cell(config, "ucf101", "linear")
    part, whole = (cell.view(0, share).rows("train") for share in (0.5, 1.0))
    assert sizes == [(len(part), len(cell.rows("val")))] * 3 + [(len(whole), len(cell.rows("val")))]
    assert set(part["row"]) < set(whole["row"]) and set(part["label"]) == set(whole["label"])
