"""Processes that write MLflow runs and Optuna trials at the same moment on fresh storage: nothing is lost.

Real processes through `ssp.jobs.tracking` and `ssp.jobs.study`, as jobs use them: SQLite and journal files, which
are the default, and a private PostgreSQL cluster with an MLflow server in front of it where these are installed.
"""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ssp.config import Config, load_config
from tests import copies
from tests.robustness.bench import CELL, CONFIG, Bench, call
from tests.robustness.writers import LIMIT_S, RUNS, TRIALS, WRITERS, write

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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Address of a private cluster, without the database's name."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg2")
    root = getpass.getuser() == "root"
    as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []
    folder, binaries, port = Path(tempfile.mkdtemp(prefix="ssp-pg-")), programs[-1].parent, _free_port()
    if root:
        shutil.chown(folder, "postgres", "postgres")
    data, log = folder / "data", folder / "log"
    control = [*as_owner, binaries / "pg_ctl", "-D", data, "-w", "-l", log]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    make = [*as_owner, programs[-1], "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
    for command in (make, [*control, "-o", options, "start"]):
        done = subprocess.run(list(map(str, command)), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr
    yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}"
    subprocess.run(list(map(str, [*control, "-m", "immediate", "stop"])), cwd="/", stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)


def _database(server: str, name: str) -> str:
    import psycopg2

    connection = psycopg2.connect(server.replace("+psycopg2", "") + "/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"create database {name}")
    connection.close()
    return f"{server}/{name}"


def test_postgresql_loses_nothing(postgresql, bench, capfd):
    """Runs and trials in one fresh database each, made by `tracking init`."""
    runs, trials = _database(postgresql, "runs"), _database(postgresql, "trials")
    _fresh(bench, {"uri": runs}, trials)
    answer = call("tracking init", capfd)
    assert answer.code == 0, answer
    _write_at_once(bench.folder)
    _all_runs_are_there(bench.folder)
    _all_trials_are_there(bench.folder, trials)


def test_a_sweep_and_a_training_with_a_server(postgresql, bench, capfd):
    """`tracking.uri` of an MLflow server and `sweep.storage` of PostgreSQL, through the commands alone."""
    port, folder = _free_port(), bench / "server"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", _database(postgresql, "server")]
    command += ["--artifacts-destination", str(folder), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + LIMIT_S
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
        _fresh(bench, {"uri": uri}, _database(postgresql, "studies"))
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
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
