"""Sweeps: the budget, the first trial, the space, failures, pruning, and going on after a kill to the same choice."""

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

import ssp.jobs.cell
import ssp.jobs.lease
import ssp.jobs.sweep
import ssp.jobs.training
import ssp.jobs.trial
from ssp.config import Range
from ssp.errors import ConfigError, RecordError, ServiceError
from ssp.jobs.cell import Cell
from ssp.jobs.seed import train_cell
from ssp.jobs.study import open_database, open_storage, open_study, reached
from ssp.jobs.sweep import run_sweep
from ssp.jobs.tracking import Tracking
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from ssp.paths import Paths
from ssp.records.choice import load_choice
from ssp.training.failure import TrainingFailed
from ssp.training.loop import EpochResult
from ssp.training.stopping import Interrupted


def essence(choice) -> dict:
    """All that must not depend on when and how often it ran."""
    return choice.model_dump(exclude={"run"})


def killed(monkeypatch, config, trial, epoch):
    """Run a sweep of the linear probe, killed at the end of an epoch (from 1) of a trial (from 0)."""
    real, seen = ssp.jobs.trial.train_epochs, []

    def training(*args, **kwargs):
        for result in real(*args, **kwargs):
            seen.append(result.epoch)
            if seen.count(1) == trial + 1 and result.epoch == epoch:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", training)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, "ucf101", "linear")
    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", real)


def scripted(monkeypatch, curves):
    """Replace training by curves of validation top-1, one per trial; None in a curve is a failure."""
    left = iter(curves)

    def fit(*_, epochs, **__):
        for epoch, top1 in enumerate(next(left), 1):
            if top1 is None:
                raise TrainingFailed("training loss is nan in epoch 1, step 1 of 1")
            loss = top1[1] if isinstance(top1, tuple) else 1.0
            yield EpochResult(epoch, 0.1, 1.0, loss, top1[0] if isinstance(top1, tuple) else top1, 0.0, 1e9)
            assert epoch <= epochs

    monkeypatch.setattr(ssp.jobs.training, "fit", fit)


def test_spends_the_budget_on_train_and_validation_and_takes_the_best(tiny, monkeypatch):
    config, splits = tiny(), set()
    load = ssp.jobs.cell.load_split
    monkeypatch.setattr(ssp.jobs.cell, "load_split", lambda c, d, split: splits.add(split) or load(c, d, split))
    choice = run_sweep(config, "ucf101", "ssp")
    assert splits == {"train", "val"}
    assert choice.status == "ok" and [t.number for t in choice.trials] == [0, 1, 2]
    assert all(len(t.epochs) == 2 for t in choice.trials if t.state == "complete")
    first = choice.trials[0]
    assert first.params == {"lr": 0.01}
    assert first.hyperparameters.model_dump() == {
        "lr": 0.01,
        "weight_decay": 0.05,
        "drop_path": 0.1,
        "options": {"entropy_norm": "fixed", "inner_dim": 8, "attn_dim": 8, "num_prompts": 1},
    }
    assert all(0.001 <= t.params["lr"] <= 0.1 for t in choice.trials)
    assert len({t.params["lr"] for t in choice.trials}) == 3
    best = max((t for t in choice.trials if t.state == "complete"), key=lambda t: t.value)
    assert choice.value == best.value == choice.trials[choice.trial].epochs[-1].val_top1
    assert choice.hyperparameters == choice.trials[choice.trial].hyperparameters
    assert load_choice(Cell(config, "ucf101", "ssp").paths.choice("ucf101", "ssp"), config, "ucf101", "ssp") == choice
    assert choice.summary().trials == 3


def test_rerun_repeats_and_other_methods_see_the_same_proposals(tiny):
    config = tiny(sweep__epochs=1)
    first = run_sweep(config, "ucf101", "linear")
    again = run_sweep(config, "ucf101", "linear")  # a finished study starts afresh
    assert essence(first) == essence(again) and first.run.sweep_run_id != again.run.sweep_run_id
    other = run_sweep(config, "ucf101", "vpt")
    assert [t.params["lr"] for t in other.trials[:2]] == [t.params["lr"] for t in first.trials[:2]]
    seeded = run_sweep(tiny(sweep__epochs=1, sweep__seed=1), "ucf101", "linear")
    assert seeded.trials[1].params != first.trials[1].params


@pytest.mark.slow
@pytest.mark.parametrize("at", [(0, 1), (1, 2), (2, 1)])
def test_killed_sweep_goes_on_to_the_same_choice(tiny, monkeypatch, at):
    config = tiny(sweep__trials=4)
    whole = run_sweep(tiny(name="whole", sweep__trials=4), "ucf101", "linear")
    killed(monkeypatch, config, *at)
    cell = Cell(config, "ucf101", "linear")
    assert not cell.paths.choice("ucf101", "linear").exists()
    journal = cell.paths.journal("ucf101", "linear")
    with journal.open("ab") as file:  # what a kill in the middle of a write leaves
        file.write(b'{"op_code":6,"worker')
    os.symlink(journal, f"{journal}.lock")
    resumed = run_sweep(config, "ucf101", "linear")
    assert essence(resumed) == essence(whole)
    assert (whole.run.interrupted, resumed.run.interrupted) == (0, 1)
    states = [t.state for t in open_study(cell).get_trials()]
    assert TrialState.RUNNING not in states and len(states) == 5


def test_the_lock_of_a_killed_worker_is_seen_by_the_others(tmp_path, monkeypatch):
    """Optuna releases a lock that got old; it must find the file that the lock, a link, leads to."""
    monkeypatch.chdir(tmp_path)
    journal = Path("results/sweeps/linear.journal")
    locks, link = [], os.symlink

    def watched(target, lock):
        link(target, lock)
        locks.append((lock, Path(lock).exists()))

    monkeypatch.setattr(os, "symlink", watched)
    optuna.create_study(storage=open_storage("journal", journal))
    assert set(locks) == {(str(journal.absolute()) + ".lock", True)}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["save_choice", "tracked_params"])
def test_a_sweep_killed_at_its_very_end_goes_on_in_the_same_tracked_runs(tiny, monkeypatch, step):
    config = tiny(sweep__trials=1, sweep__epochs=1)
    client = Tracking(config).client
    place = [json.loads(Paths.of(config).mlflow.joinpath("ready.json").read_text())["experiment_id"]]
    before = {run.info.run_id for run in client.search_runs(place, "tags.`ssp.kind` != 'trial'")}
    real, calls = getattr(ssp.jobs.sweep, step), []

    def kill(*arguments, **named):
        calls.append(arguments)
        if step == "save_choice" or ("trial" in named and len(calls) > 1):
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(ssp.jobs.sweep, step, kill)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, "ucf101", "linear")
    monkeypatch.setattr(ssp.jobs.sweep, step, real)
    choice = run_sweep(config, "ucf101", "linear")
    runs = {run.info.run_id: run.info.status for run in client.search_runs(place, "tags.`ssp.kind` != 'trial'")}
    new = {run_id: status for run_id, status in runs.items() if run_id not in before}
    assert new == {choice.run.sweep_run_id: "FINISHED", choice.run.cell_run_id: "FINISHED"}


@pytest.mark.slow
def test_a_sweep_killed_before_its_choice_appears_tries_nothing_again(tiny, monkeypatch):
    config = tiny(sweep__trials=2, sweep__epochs=1)
    cell = Cell(config, "ucf101", "linear")

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ssp.jobs.lease, "write_text", kill)  # between the draft and its place
        with pytest.raises(KeyboardInterrupt):
            run_sweep(config, "ucf101", "linear")
    assert not cell.paths.choice("ucf101", "linear").exists()
    tried = [trial.datetime_complete for trial in open_study(cell).get_trials()]
    choice = run_sweep(config, "ucf101", "linear")
    assert [trial.datetime_complete for trial in open_study(cell).get_trials()] == tried
    assert len(tried) == len(choice.trials) == 2
    run_sweep(config, "ucf101", "linear")  # asked for once more, all anew
    assert {trial.datetime_complete for trial in open_study(cell).get_trials()}.isdisjoint(tried)


def test_trials_of_another_space_of_the_method_are_not_gone_on_with(tiny, monkeypatch):
    """The space of a method is in its code, which its author may change before he starts a killed sweep again."""
    cell = Cell(tiny(), "ucf101", "vpt")
    before = open_study(cell).study_name
    assert open_study(cell).study_name == before
    narrow = {"position": Range(choices=["suffix"])}
    monkeypatch.setattr(load_method("vpt"), "sweep_space", lambda self: narrow)
    assert open_study(cell).study_name != before


def test_start_outside_the_space_is_tried_as_it_stands(tiny):
    config = tiny(sweep__space={"lr": {"low": 0.1, "high": 0.2}}, sweep__trials=2, sweep__epochs=1)
    choice = run_sweep(config, "ucf101", "linear")
    assert choice.trials[0].params == {"lr": 0.01}
    assert 0.1 <= choice.trials[1].params["lr"] <= 0.2


def test_method_options_are_searched_beside_the_shared_space(tiny):
    own = {"num_prompts": {"low": 1, "high": 3}, "inner_dim": {"choices": [4, 16]}, "drop_path": {"choices": [0.0]}}
    config = tiny(methods__ssp__space=own, sweep__epochs=1)
    choice = run_sweep(config, "ucf101", "ssp")
    assert choice.space.keys() == {"lr", *own}
    first, *rest = choice.trials
    assert first.params["num_prompts"] == 1 and first.params["inner_dim"] in (4, 16)  # 8 is not among the choices
    for trial in rest:
        options = trial.hyperparameters.options
        assert isinstance(options["num_prompts"], int) and 1 <= options["num_prompts"] <= 3
        assert options["inner_dim"] in (4, 16) and options["attn_dim"] == 8
        assert trial.hyperparameters.drop_path == 0.0
    with pytest.raises(ConfigError, match=r"methods\.linear\.space\.width: no such hyper-parameter or option"):
        search_space(tiny(methods__linear__space={"width": {"choices": [1]}}), "linear")


def test_protocol_sets_the_methods_quirk(tiny):
    assert Cell(tiny(protocol="published"), "ucf101", "ssp").options({})["entropy_norm"] == "published"
    assert Cell(tiny(protocol="published", quirks={"entropy_norm": "fixed"}), "ucf101", "ssp").options({})[
        "entropy_norm"
    ] == ("fixed")
    assert "entropy_norm" not in Cell(tiny(protocol="published"), "ucf101", "vpt").options({})


def test_bad_trials_are_pruned_and_failed_ones_spend_budget(tiny, monkeypatch):
    scripted(monkeypatch, [[50, 60, 70], [None], [50, 60, 60], [10, 20, 99], [55, 61, 61], [80, 80, 10]])
    choice = run_sweep(tiny(sweep__trials=6, sweep__epochs=3), "ucf101", "linear")
    assert [t.state for t in choice.trials] == ["complete", "failed", "complete", "pruned", "complete", "complete"]
    assert [len(t.epochs) for t in choice.trials] == [3, 0, 3, 1, 3, 3]  # the last epoch prunes no one
    assert (choice.trial, choice.value) == (0, 70)
    assert choice.trials[1].reason == "training loss is nan in epoch 1, step 1 of 1"
    assert choice.summary().model_dump() == {
        "trials": 6,
        "completed": 4,
        "pruned": 1,
        "failed": 1,
        "best_value": 70.0,
    }


def test_ties_go_to_the_lower_validation_loss(tiny, monkeypatch):
    scripted(monkeypatch, [[(70, 0.9)], [(70, 0.5)], [(70, 0.5)]])
    assert run_sweep(tiny(sweep__epochs=1), "ucf101", "linear").trial == 1


def test_a_sweep_without_a_single_success_is_a_result(tiny):
    config = tiny(sweep__space={"lr": {"choices": [1e30]}}, datasets__ucf101__start={"lr": 1e30})
    choice = run_sweep(config, "ucf101", "full")
    assert (choice.status, choice.hyperparameters, choice.trial) == ("failed", None, None)
    assert choice.reason.startswith("all 3 trials failed (training loss is nan in epoch 1")
    assert choice.summary().failed == 3


def test_choice_of_another_config_is_not_used(tiny):
    config = tiny(sweep__epochs=1, sweep__trials=1)
    run_sweep(config, "ucf101", "linear")
    path = Cell(config, "ucf101", "linear").paths.choice("ucf101", "linear")
    other = tiny(sweep__epochs=1, sweep__trials=1, datasets__ucf101__start={"lr": 0.02})
    with pytest.raises(RecordError, match=r"linear\.json: was chosen under another config.*ssp sweep"):
        load_choice(path, other, "ucf101", "linear")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best": 1}))
    with pytest.raises(RecordError, match=r"linear\.json: not a valid sweep choice: best: unknown key"):
        load_choice(path, config, "ucf101", "linear")


def test_damaged_journal_is_one_line(tiny):
    config = tiny()
    journal = Cell(config, "ucf101", "linear").paths.journal("ucf101", "linear")
    journal.parent.mkdir(parents=True)
    journal.write_text("this is\nno journal\n")
    with pytest.raises(RecordError, match=r"linear\.journal: damaged journal .*delete it"):
        run_sweep(config, "ucf101", "linear")


def test_relational_storage(tiny, tmp_path, monkeypatch):
    """Its address is the environment's."""
    address = f"sqlite:///{tmp_path}/studies.db"
    monkeypatch.setenv("SSP_STUDIES", address)
    config = tiny(sweep__storage="env:SSP_STUDIES", sweep__trials=2, sweep__epochs=1)
    choice = run_sweep(config, "ucf101", "linear")
    assert (
        essence(choice)["trials"]
        == essence(run_sweep(tiny(sweep__trials=2, sweep__epochs=1), "ucf101", "linear"))["trials"]
    )
    (summary,) = optuna.get_all_study_summaries(address)
    assert summary.study_name.startswith("tiny/ucf101/linear/") and summary.n_trials == 2
    with pytest.raises(ServiceError, match=r"sweep\.storage: cannot be opened \(unable to open database file\)"):
        run_sweep(tiny(sweep__storage="sqlite:////no/such/folder/x.db"), "ucf101", "linear")


def test_a_database_of_another_optuna_is_one_line(tmp_path):
    address = f"sqlite:///{tmp_path}/studies.db"
    open_database(address)
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        database.commit()
    with pytest.raises(ConfigError, match=r"^sweep\.storage: cannot be opened \(.+optuna.+\); give a reach.+\Z"):
        open_database(address)


def test_a_database_that_says_nothing_is_one_line(tiny):
    cell = Cell(tiny(sweep__storage="sqlite:///studies.db"), "ucf101", "linear")
    with pytest.raises(ServiceError, match=r"studies\.db fails \(TimeoutError\); run again when"), reached(cell):
        raise StorageInternalError from TimeoutError()


@pytest.mark.slow
def test_a_database_that_goes_away_is_one_line_and_the_next_try_goes_on(tiny, tmp_path, monkeypatch):
    """A file that is moved away in the second trial, as a server that is stopped; then it is there again."""
    database, aside, curves = tmp_path / "studies.db", tmp_path / "aside.db", [[60], [90], [50]]
    scripted(monkeypatch, curves)
    whole = run_sweep(tiny(name="whole", sweep__trials=3, sweep__epochs=1), "ucf101", "linear")
    scripted(monkeypatch, curves)
    fit, trials = ssp.jobs.training.fit, []

    def training(*args, **kwargs):
        trials.append(kwargs)
        if len(trials) == 2:
            database.rename(aside)
        yield from fit(*args, **kwargs)

    monkeypatch.setattr(ssp.jobs.training, "fit", training)
    config = tiny(sweep__storage=f"sqlite:///{database}", sweep__trials=3, sweep__epochs=1)
    with pytest.raises(ServiceError, match=rf"^sweep\.storage: sqlite:///{database} fails \(.+\); run again .+kept$"):
        run_sweep(config, "ucf101", "linear")
    aside.replace(database)
    scripted(monkeypatch, curves[1:])
    resumed = run_sweep(config, "ucf101", "linear")
    assert resumed.trials == whole.trials and resumed.run.interrupted == 1


@pytest.mark.slow
def test_a_trial_that_is_asked_to_stop_goes_on_with_its_next_step(tiny, monkeypatch):
    whole = run_sweep(tiny(name="whole", sweep__trials=2, sweep__epochs=2), "ucf101", "vpt")
    config, real, calls = tiny(sweep__trials=2, sweep__epochs=2), ssp.jobs.training.fit, []

    def fit(*arguments, **more):
        calls.append([])

        def on_step(done, of):
            calls[-1].append(done)
            if len(calls) == 2 and done == of - 1:  # in the last epoch of the second trial
                os.kill(os.getpid(), signal.SIGTERM)

        return real(*arguments, **more | {"on_step": on_step})

    monkeypatch.setattr(ssp.jobs.training, "fit", fit)
    with pytest.raises(Interrupted):
        run_sweep(config, "ucf101", "vpt")
    stopped = calls[-1][-1]
    resumed = run_sweep(config, "ucf101", "vpt")
    assert calls[2:] == [[stopped + 1]]  # of that trial the one step that was left, and nothing else
    assert essence(resumed) == essence(whole)
    states = Paths.of(config).trial_states("ucf101", "vpt")
    assert not states.exists()


@pytest.mark.slow
def test_a_sweep_saves_as_often_as_compute_sweep_says_and_a_training_as_train_says(tiny, monkeypatch):
    config, real, said = tiny(compute__sweep__save_minutes=2, sweep__trials=1), ssp.jobs.training.fit, []

    def fit(*args, **kwargs):
        said.append(kwargs["save_every_s"])
        return real(*args, **kwargs)

    monkeypatch.setattr(ssp.jobs.training, "fit", fit)
    run_sweep(config, "ucf101", "linear")
    train_cell(config, "ucf101", "linear", 0)
    assert said == [120, 600]


def test_a_sweep_has_what_compute_sweep_says_and_a_training_what_train_says(tiny, monkeypatch):
    """Told by GPUs, of which there is none here: they are missed where they are asked for."""
    gpu_less = {"compute__train__gpus": 1, "compute__sweep__gpus": 0}
    config = tiny(**gpu_less, sweep__trials=1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_sweep(config, "ucf101", "linear").status == "ok"
    with pytest.raises(ConfigError, match="sees no GPU"):
        _ = Cell(config, "ucf101", "linear").execution
    with pytest.raises(ConfigError, match="sees no GPU"):
        run_sweep(tiny(compute__train__gpus=1), "ucf101", "linear")
