"""The same job twice: one process works, both succeed, and test is read once. Nothing is lost to the second."""

import json
from pathlib import Path

import pytest
import yaml

import ssp.jobs.seed
import ssp.jobs.sweep
from ssp.jobs.cell import Cell
from ssp.jobs.lease import BEGAN
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.jobs.tracking import Tracking
from ssp.records.choice import load_choice
from ssp.records.record import load_record
from tests import copies

CELL = ("ucf101", "linear")


@pytest.fixture
def config(tiny):
    return tiny(sweep__trials=2, sweep__epochs=1)


def twice(config, *command):
    """Two processes of a command at once; what each says."""
    Path("config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    said = [(Path(f"{command[0]}-{n}.out").absolute(), Path(f"{command[0]}-{n}.err").absolute()) for n in range(2)]
    call = [*command, "--config", "config.yaml"]
    both = [copies.start_ssp(call, Path.cwd(), *files) for files in said]
    for copy in both:
        copy.join(300)
    outcomes = [(out.read_text(), err.read_text(), copy.exitcode) for (out, err), copy in zip(said, both, strict=True)]
    assert [code for *_, code in outcomes] == [0, 0], outcomes
    waited = [err for _, err, _ in outcomes if "another process has made it meanwhile" in err]
    assert len(waited) == 1 and "which is at it" in waited[0]
    return [out for out, *_ in outcomes]


def runs(config, kind):
    tracking = Tracking(config)
    found = tracking.client.search_runs([tracking.experiment_id], f"tags.`ssp.kind` = '{kind}'")
    return {run.info.run_id: run.info.status for run in found}


def new_runs(config, kind, earlier):
    """States of the runs that have begun since."""
    return [state for run, state in runs(config, kind).items() if run not in earlier[kind]]


@pytest.mark.slow
def test_of_two_sweeps_and_two_trainings_at_once_one_works(config):
    earlier = {kind: runs(config, kind) for kind in ("sweep", "cell", "trial", "seed")}  # of other tests
    first, second = twice(config, "sweep", "--dataset", CELL[0], "--method", CELL[1])
    assert first == second and "chosen: trial " in first
    for kind, more in (("sweep", 1), ("cell", 1), ("trial", 2)):
        assert new_runs(config, kind, earlier) == ["FINISHED"] * more

    first, second = twice(config, "train", "--dataset", CELL[0], "--method", CELL[1], "--seed", "0")
    assert first == second and "test top-1 " in first
    assert new_runs(config, "seed", earlier) == ["FINISHED"]
    readings = Cell(config, *CELL).paths.readings(*CELL, 0).read_text().splitlines()
    assert [json.loads(line)["by"] for line in readings] == ["train"]


def test_outputs_that_a_failed_duplicate_removed_come_back_without_training(config, monkeypatch):
    run_sweep(config, *CELL)
    record = train_cell(config, *CELL, 0)
    paths = Cell(config, *CELL).paths
    outputs = [paths.record(*CELL, 0), paths.predictions(*CELL, 0), paths.choice(*CELL)]
    before = [path.read_bytes() for path in outputs], runs(config, "sweep"), runs(config, "seed")
    for path in outputs:
        path.unlink()  # as Snakemake does
    monkeypatch.setenv(BEGAN, "1000")

    def removed_before(load):
        """Snakemake may see just then that another attempt of the job was cancelled."""

        def loads(*arguments):
            for output in outputs:
                output.unlink(missing_ok=True)
            return load(*arguments)

        return loads

    with monkeypatch.context() as patch:
        patch.setattr(ssp.jobs.sweep, "load_choice", removed_before(load_choice))
        assert run_sweep(config, *CELL).trial is not None and not outputs[2].exists()
    run_sweep(config, *CELL)
    with monkeypatch.context() as patch:
        patch.setattr(ssp.jobs.seed, "load_record", removed_before(load_record))
        assert train_cell(config, *CELL, 0) == record and not outputs[0].exists()
    run_sweep(config, *CELL)
    assert train_cell(config, *CELL, 0) == record == load_record(outputs[0])
    assert ([path.read_bytes() for path in outputs], runs(config, "sweep"), runs(config, "seed")) == before
