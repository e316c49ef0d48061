"""What a finished run says of MLflow: an address that shows its trainings, whatever holds them."""

import re
from urllib.parse import parse_qs

import pytest

from ssp.files import write_json
from ssp.jobs.summary import print_summary
from ssp.paths import Paths
from tests.unit.made_records import make_config


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(config, capsys):
    print_summary(config)
    return capsys.readouterr().out.partition("MLflow pages:\n")[2]


def test_the_address_is_that_of_the_trainings_and_their_metrics(capsys):
    config = make_config()
    write_json(Paths.of(config).mlflow / "ready.json", {"experiment_id": "7"})
    command, address = said(config, capsys).strip().splitlines()
    assert command == "mlflow ui --backend-store-uri sqlite:///results/tried/mlflow/mlflow.db"
    place, _, query = re.fullmatch(r" *open (\S+)", address)[1].partition("?")
    assert place == "http://127.0.0.1:5000/#/experiments/7/runs"
    assert parse_qs(query) == {
        "compareRunsMode": ["CHART"],
        "searchFilter": ["tags.`ssp.kind` = 'seed'"],
        "orderByKey": ["metrics.`test_top1`"],
        "orderByAsc": ["false"],
    }


def test_a_servers_address_is_its_own_and_a_password_is_not_shown(capsys):
    config = make_config(tracking={"uri": "http://tracker:80/"})
    assert said(config, capsys).strip() == "open http://tracker:80"  # no run was noted there yet
    write_json(Paths.of(config).mlflow / "ready.json", {"experiment_id": "7"})
    assert "open http://tracker:80/#/experiments/7/runs?" in said(config, capsys)
    secret = make_config(tracking={"uri": "postgresql://me:secret@host/db"})
    assert "secret" not in said(secret, capsys)
