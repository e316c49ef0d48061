"""What an error advises is a command that is one, as printed, and names the config that was given."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml

from ssp.cli import app
from ssp.config import load_config
from ssp.errors import RecordError
from ssp.jobs.seed import train_cell
from ssp.paths import Paths
from ssp.records.choice import load_choice
from ssp.records.costs import load_costs
from ssp.records.explained import load_explained
from ssp.records.record import load_record
from ssp.tables import write_tables
from ssp.tables.ablations import read_ablation
from ssp.tables.long import read_tables

GIVEN = "my configs/one.yaml"
SSP = typer.main.get_command(app)


@pytest.fixture
def config(made_results, tmp_path, monkeypatch):
    """The config as the user gave it, and a copy of its results."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made_results, "results/tried")
    Path(GIVEN).parent.mkdir()
    shutil.copy("results/tried/config.yaml", GIVEN)
    return load_config(GIVEN)


def remove(path):
    path.unlink()


def empty(path):
    path.write_text("")


def of_another_config(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config_hash": "0" * 16}))


RUN = ("ssv2", "linear", 0)


def choice_of(config):
    return load_choice(Paths.of(config).choice("ssv2", "linear"), config, "ssv2", "linear")


def explained_of(config):
    return load_explained(config, load_record(Paths.of(config).record("ssv2", "ssp", 0)))


CASES = [
    (lambda paths: paths.record(*RUN), (remove, empty, of_another_config), write_tables),
    (lambda paths: paths.predictions(*RUN), (remove, empty), write_tables),
    (lambda paths: paths.choice("ssv2", "linear"), (remove, empty, of_another_config), choice_of),
    (lambda paths: paths.choice("ssv2", "linear"), (remove,), lambda config: train_cell(config, *RUN)),
    (lambda paths: paths.costs, (remove, empty, of_another_config), load_costs),
    (lambda paths: paths.tables / "main.csv", (remove, empty), read_tables),
    (lambda paths: paths.ablation_tables("prompts")[0], (remove,), lambda config: read_ablation(config, "prompts")),
    (lambda paths: paths.explained("ssv2"), (remove, empty), explained_of),
    (lambda paths: paths.explained_picture("ssv2"), (remove, empty), explained_of),
]


@pytest.mark.parametrize(("file", "damage", "read"), [(f, d, r) for f, damages, r in CASES for d in damages])
def test_advice_is_a_command_that_names_the_config(config, file, damage, read):
    damage(file(Paths.of(config)))
    with pytest.raises(RecordError) as caught:
        read(config)
    command = re.search(r"python -m (ssp .*)$", str(caught.value))
    assert command, caught.value
    words = shlex.split(command[1])
    with SSP.make_context("ssp", words[1:]) as context:
        name, leaf, rest = context.command.resolve_command(context, words[1:])
        leaf.make_context(name, rest)
    assert words[words.index("--config") + 1] == GIVEN
    assert yaml.safe_load(Path(GIVEN).read_text())["name"] == "tried"
