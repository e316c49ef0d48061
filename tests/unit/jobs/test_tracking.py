"""MLflow: the database is made once, runs nest, points are kept once, and trouble is one line or a warning."""

import contextlib
import json
import logging
import re
import shutil
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from ssp.errors import ConfigError, ServiceError, SSPError
from ssp.jobs.tracking import TrackedRun, Tracking, init_tracking, tracking_uri
from ssp.paths import Paths
from tests import copies


@pytest.mark.slow
def test_database_of_its_own(tiny):
    config = tiny(name="own", tracking={})
    Path("results/own/mlflow/ready.json").unlink()
    first = json.loads(init_tracking(config).read_text())
    assert json.loads(init_tracking(config).read_text()) == first  # again: nothing changes
    assert first["uri"] == tracking_uri(config) == f"sqlite:///{Path.cwd()}/results/own/mlflow/mlflow.db"
    assert first["experiment"] == "own"
    tracking = Tracking(config)
    run = tracking.start("own/a", "seed", tags={"ssp.dataset": "x"})
    Path("weights").write_text("1")
    run.log_artifact(Path("weights"))
    assert list(Path("results/own/mlflow/artifacts").rglob("weights"))
    assert not Path("mlruns").exists() and not Path("mlflow.db").exists()


@pytest.mark.slow
def test_a_copy_never_writes_into_the_original(tiny, tmp_path, monkeypatch, caplog):
    config = tiny(name="own", tracking={})
    Path("results/own/mlflow/ready.json").unlink()
    first = Tracking(config).start("own/a", "seed", tags={})
    Path("weights").write_text("1")
    first.log_artifact(Path("weights"))
    first.finish()
    copy = Path(shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-copy")))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(copy)
    with caplog.at_level(logging.INFO, "ssp.jobs.tracking"):
        tracking = Tracking(config)
    assert caplog.text.count("artifacts of earlier runs were written to") == 1
    run = tracking.start("own/b", "seed", tags={})
    run.log_artifact(Path("weights"))
    run.finish()
    assert sorted(tmp_path.rglob("*")) == before
    assert len(list((copy / "results/own/mlflow/artifacts").rglob("weights"))) == 2
    assert tracking.client.get_run(first.id).info.artifact_uri.startswith(
        f"{copy.as_uri()}/results/own/mlflow/artifacts/"
    )
    caplog.clear()
    Tracking(config)
    assert not caplog.text


@pytest.mark.slow
def test_killed_while_the_database_is_made(tiny, tmp_path):
    """Half a database never has its name, and the next process makes a whole one."""
    config = tiny(name="own", tracking={})
    folder = Paths.of(config).mlflow
    (folder / "ready.json").unlink()
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    process = copies.start_ssp(["tracking", "init", "--config", "own.yaml"], tmp_path, tmp_path / "said")
    while not any(path.stat().st_size > 50_000 for path in folder.glob(".mlflow.db.*.tmp")):
        assert process.is_alive() and not (folder / "mlflow.db").exists(), "it was not met while it was made"
    process.kill()
    process.join()
    assert not (folder / "mlflow.db").exists()
    tracking = Tracking(config)
    tracking.start("own/a", "seed", tags={}).finish()
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "ready.json"]


@pytest.fixture
def tracking(tiny):
    return Tracking(tiny())


def test_runs_nest_and_open_ones_are_taken_up_or_closed(tracking, request):
    key = request.node.name
    parent = tracking.start(key, "cell", tags={"ssp.dataset": "x"})
    run = tracking.start(f"{key}/seed0", "seed", tags={}, parent=parent.id)
    assert tracking.client.get_run(run.id).data.tags["mlflow.parentRunId"] == parent.id
    assert tracking.start(f"{key}/seed0", "seed", tags={}, resume=True).id == run.id
    assert tracking.start(f"{key}/seed1", "seed", tags={}, resume=True).id != run.id
    fresh = tracking.start(f"{key}/seed0", "seed", tags={})
    assert fresh.id != run.id and tracking.client.get_run(run.id).info.status == "KILLED"
    fresh.finish()
    assert tracking.start(f"{key}/seed0", "seed", tags={}, resume=True).id not in (run.id, fresh.id)


def test_points_are_kept_once_params_in_any_number(tracking, request):
    run = tracking.start(request.node.name, "seed", tags={})
    for _ in range(2):
        run.log_metrics({"loss": 1.0, "top1": 50}, 1, at=1e9)
    run.log_metrics({"loss": 0.5}, 2, at=1e9 + 1)
    run.log_params({f"p{i}": i for i in range(250)})
    run.finish("FAILED", "because")
    history = tracking.client.get_metric_history(run.id, "loss")
    assert [(p.step, p.value, p.timestamp) for p in history] == [(1, 1.0, 10**12), (2, 0.5, 10**12 + 1000)]
    stored = tracking.client.get_run(run.id)
    assert len(stored.data.params) == 250
    assert (stored.info.status, stored.data.tags["ssp.reason"]) == ("FAILED", "because")


def test_a_tracker_that_breaks_warns_once_and_stops_nothing(tracking, caplog):
    run = TrackedRun(tracking.client, "no-such-run")
    with caplog.at_level(logging.WARNING, "ssp.tracking"):
        for step in range(3):
            run.log_metrics({"loss": 1.0}, step)
        run.log_artifact(Path("nothing"))
        run.finish()
    assert len(caplog.records) == 1 and "tracking stopped for run no-such-run" in caplog.text


def test_no_server_is_one_line(tiny):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServiceError) as caught:
        init_tracking(tiny(tracking={"uri": uri}))
    line = str(caught.value)
    assert line.startswith(f"tracking.uri: no MLflow server answers at {uri} (") and "\n" not in line


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 500 \r\n\r\n"])
def test_what_is_no_mlflow_server_is_one_line(tiny, said):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ServiceError) as caught:
            init_tracking(tiny(tracking={"uri": uri}))
    line = str(caught.value)
    assert line.startswith(f"tracking.uri: no MLflow server answers at {uri} (") and "()" not in line
    assert "\n" not in line


def test_a_host_that_is_none_is_one_line(tiny):
    with pytest.raises(ServiceError, match=r"no MLflow server answers at http://my host:80 \(.+\); start it") as caught:
        init_tracking(tiny(tracking={"uri": "http://my host:80"}))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_silent_is_one_line(tiny, monkeypatch):
    """A timeout has no words of its own."""

    def silent(*_, **__):
        raise TimeoutError

    tracking = Tracking(tiny())
    monkeypatch.setattr(MlflowClient, "search_runs", silent)
    with pytest.raises(ServiceError, match=r"takes no runs \(TimeoutError\); mend or restart it"):
        tracking.start("tiny/a", "seed", tags={})


@pytest.mark.slow
def test_a_database_of_a_newer_mlflow_is_one_line(tiny):
    config = tiny(name="own", tracking={})
    Path("results/own/mlflow/ready.json").unlink()
    init_tracking(config)
    with contextlib.closing(sqlite3.connect("results/own/mlflow/mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
        database.commit()
    with pytest.raises(ConfigError) as caught:
        init_tracking(config)
    assert re.search(r"mlflow\.db cannot be upgraded \(.*fedcba987654.*\); install the newer", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "folder"])
def test_database_that_is_none_is_one_line(tiny, tmp_path, damage):
    path = tmp_path / "broken.db"
    path.write_text("this is no database, " * 100) if damage == "text" else path.mkdir()
    with pytest.raises(SSPError) as caught:
        init_tracking(tiny(tracking={"uri": f"sqlite:///{path}"}))
    line = str(caught.value)
    assert line.startswith(f"tracking.uri: sqlite:///{path} cannot be opened (") and "\n" not in line


def test_passwords_stay_out_of_files_and_messages(tiny):
    config = tiny(tracking={"uri": "postgresql+psycopg2://me:secret@127.0.0.1:1/db"})
    with pytest.raises(ServiceError) as caught:
        init_tracking(config)
    assert "me:***@127.0.0.1:1/db" in str(caught.value) and "secret" not in str(caught.value)


def test_an_address_from_the_environment_is_nowhere_written(tiny, tiny_data, monkeypatch):
    """Another one in the same variable is another place."""
    address = f"sqlite:///{tiny_data}/mlflow.db"
    monkeypatch.setenv("SSP_TRACKING", address)
    config = tiny(tracking={"uri": "env:SSP_TRACKING", "experiment": "tests"})
    tracking = Tracking(config)
    assert (tracking.uri, tracking.public_uri) == (address, "env:SSP_TRACKING")
    ready = Paths.of(config).mlflow / "ready.json"
    assert "env:SSP_TRACKING" in ready.read_text() and str(tiny_data) not in ready.read_text()
    assert Tracking(config).experiment_id == tracking.experiment_id
    monkeypatch.setenv("SSP_TRACKING", "http://me:secret@127.0.0.1:1")
    with pytest.raises(ServiceError, match=r"no MLflow server answers at env:SSP_TRACKING \(.*refused") as caught:
        Tracking(config)
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("SSP_TRACKING")
    with pytest.raises(ConfigError, match=r"tracking\.uri: the environment variable SSP_TRACKING is not set here"):
        Tracking(config)


def test_a_server_that_goes_away_does_not_have_its_password_told(tiny, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient("http://me:s%40cret@127.0.0.1:1")
    TrackedRun(client, "17").log_metrics({"a": 1.0})
    assert "tracking stopped for run 17" in caplog.text and "127.0.0.1" in caplog.text
    assert "cret" not in caplog.text
