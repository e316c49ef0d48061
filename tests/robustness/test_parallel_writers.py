"""Processes that write MLflow runs and Optuna trials at the same moment on fresh storage: nothing is lost.

Real processes through `ssp.jobs.tracking` and `ssp.jobs.study`, as jobs use them: SQLite and journal files, which
are the default, and a private PostgreSQL cluster with an MLflow server in front of it where these are installed.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssp.config import Config, load_config
from tests import copies, services
from tests.robustness.bench import CELL, CONFIG, Bench, call
from tests.robustness.writers import LIMIT_S, RUNS, TRIALS, WRITERS, write
from tests.services import database, mlflow_server, without_postgresql

pytestmark = pytest.mark.slow
SWEEP = f"sweep {CELL}"


def _write_at_once(folder: Path) -> None:
    """All writers, runs and then trials; each must end well."""
    logs = [folder / f"writer{number}.log" for number in range(WRITERS)]
    writers = [copies.start(write, number, folder=folder, out=log) for number, log in enumerate(logs)]
    try:
        for writer in writers:
            writer.join(LIMIT_S)
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    for mark in folder.glob("here-*"):
        mark.unlink()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS, [log.read_text() for log in logs]


def _all_runs_are_there(folder: Path) -> None:
    """Every run with every param and every point, nested as it was started."""
    from ssp.jobs.tracking import Tracking

    tracking = Tracking(load_config(folder / CONFIG))
    runs = tracking.client.search_runs([tracking.experiment_id], max_results=1000)
    kinds = Counter(run.data.tags["ssp.kind"] for run in runs)
    assert kinds == {"sweep": WRITERS, "trial": WRITERS * RUNS}
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {run.info.run_id: run.data.tags["ssp.writer"] for run in runs if run.data.tags["ssp.kind"] == "sweep"}
    assert len(set(parents.values())) == WRITERS
    for run in runs:
        if run.data.tags["ssp.kind"] == "sweep":
            continue
        number, trial = int(run.data.params["number"]), int(run.data.params["lr"])
        assert parents[run.data.tags["mlflow.parentRunId"]] == run.data.tags["ssp.writer"] == str(number)
        points = tracking.client.get_metric_history(run.info.run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(step, number + trial + step) for step in range(3)]


def _all_trials_are_there(folder: Path, storage: str) -> None:
    from optuna import load_study
    from optuna.trial import TrialState

    from ssp.jobs.cell import Cell
    from ssp.jobs.study import open_storage

    cell = Cell(load_config(folder / CONFIG), "ucf101", "linear")
    opened = open_storage(storage, folder / cell.paths.journal("ucf101", "linear"))
    (study,) = opened.get_all_studies()
    trials = load_study(study_name=study.study_name, storage=opened).trials
    assert [trial.number for trial in trials] == list(range(WRITERS * TRIALS))
    assert sorted(trial.user_attrs["slot"] for trial in trials) == list(range(WRITERS * TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.value == trial.params["x"] == trial.intermediate_values[1] for trial in trials)


def _fresh(bench: Bench, tracking: dict | None = None, storage: str = "journal") -> None:
    """No studies, no choice, no runs; the two addresses in the config."""
    for path in ("results/tiny/state", "results/tiny/mlflow"):
        shutil.rmtree(bench / path)
    (bench / "results/tiny/sweeps/ucf101/linear.json").unlink()
    bench.configure("tracking", tracking or {})
    bench.configure("sweep.storage", storage)
    bench.configure("sweep.trials", 2)


# -- SQLite and journal ----------------------------------------------------------------------------------------------


def test_sqlite_loses_no_run_and_the_journal_no_trial(bench, capfd):
    _fresh(bench)
    assert call("tracking init", capfd).code == 0
    _write_at_once(bench.folder)
    _all_runs_are_there(bench.folder)
    _all_trials_are_there(bench.folder, "journal")


def _states(bench: Bench) -> Counter:
    from ssp.jobs.cell import Cell
    from ssp.jobs.study import open_study

    study = open_study(Cell(load_config(bench / CONFIG), "ucf101", "linear"))
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def _kill_a_sweep(bench: Bench) -> None:
    """SIGKILL to a sweep in the middle of its first trial, which is made long."""
    recipe = "datasets.ucf101.recipe.epochs"
    bench.configure(recipe, 100_000)
    bench.configure("sweep.epochs", 100_000)
    log = bench / "sweep.log"
    sweep = copies.start_ssp([*SWEEP.split(), "--config", CONFIG], bench.folder, log)
    while not log.exists() or "epoch 2/" not in log.read_text():
        assert sweep.is_alive(), log.read_text()
        time.sleep(0.05)
    sweep.kill()
    sweep.join()


@pytest.mark.parametrize("database", [False, True], ids=["journal", "sqlite"])
def test_a_killed_trial_does_not_stay_running(database, bench, capfd, monkeypatch):
    """The next sweep of the same study closes it, spends no budget on it, and closes its MLflow run."""
    _fresh(bench, storage=f"sqlite:///{bench.folder}/studies.db" if database else "journal")
    assert call("tracking init", capfd).code == 0
    _kill_a_sweep(bench)
    assert _states(bench) == {"RUNNING": 1}
    # The same study, and trials that end: a study is named by its config, so the length is cut in the code.
    whole = Config.rungs
    shorter = {"epochs": 1}
    monkeypatch.setattr(Config, "rungs", lambda *of: [rung.model_copy(update=shorter) for rung in whole(*of)])
    answer = call(SWEEP, capfd)
    assert answer.code == 0, answer
    choice = json.loads((bench / "results/tiny/sweeps/ucf101/linear.json").read_text())
    assert [trial["state"] for trial in choice["trials"]] == ["complete", "complete"]
    assert choice["run"]["interrupted"] == 1
    from ssp.jobs.tracking import Tracking

    tracking = Tracking(load_config(bench / CONFIG))
    runs = tracking.client.search_runs([tracking.experiment_id])
    states = Counter((run.data.tags["ssp.kind"], run.info.status) for run in runs)
    assert states == {
        ("sweep", "FINISHED"): 1,
        ("trial", "KILLED"): 1,
        ("trial", "FINISHED"): 2,
        ("cell", "FINISHED"): 1,
    }
    assert _states(bench) == {"FAIL": 1, "COMPLETE": 2}


# -- PostgreSQL and an MLflow server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Address of a private cluster, without the database's name."""
    if why := without_postgresql():
        pytest.skip(why)
    with services.postgresql() as server:
        yield server.address


def test_postgresql_loses_nothing(postgresql, bench, capfd):
    """Runs and trials in one fresh database each, made by `tracking init`."""
    runs, trials = database(postgresql, "runs"), database(postgresql, "trials")
    _fresh(bench, {"uri": runs}, trials)
    answer = call("tracking init", capfd)
    assert answer.code == 0, answer
    _write_at_once(bench.folder)
    _all_runs_are_there(bench.folder)
    _all_trials_are_there(bench.folder, trials)


def test_a_sweep_and_a_training_with_a_server(postgresql, bench, capfd):
    """`tracking.uri` of an MLflow server and `sweep.storage` of PostgreSQL, through the commands alone."""
    folder = bench / "server"
    with mlflow_server(database(postgresql, "server"), folder) as server:
        uri = server.address
        _fresh(bench, {"uri": uri}, database(postgresql, "studies"))
        cell = "--dataset ucf101 --method linear"
        for words in ("tracking init", f"sweep {cell}", f"train {cell} --seed 0", "costs", "tables"):
            if words == "costs":
                plain = yaml.safe_load((bench / CONFIG).read_text())
                plain["methods"] = {"linear": plain["methods"]["linear"]}
                for key in ("reference", "explained", "ablations"):
                    plain.pop(key, None)
                (bench / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
            answer = call(words, capfd)
            assert answer.code == 0, answer
        record = json.loads((bench / "results/tiny/records/ucf101/linear/seed0.json").read_text())
        from mlflow import MlflowClient

        client = MlflowClient(uri, registry_uri=uri)
        run = client.get_run(record["run"]["mlflow_run_id"])
        assert record["run"]["tracking_uri"] == uri
        assert run.info.status == "FINISHED" and run.data.metrics["test_top1"] == record["metrics"]["top1"]
        artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert artifacts == {"seed0.parquet", "seed0.safetensors"}
        assert list(folder.rglob("seed0.parquet"))  # the server's own folder, not the job's
        kinds = Counter(run.data.tags["ssp.kind"] for run in client.search_runs([run.info.experiment_id]))
        assert kinds == {"sweep": 1, "trial": 2, "cell": 1, "seed": 1}
