"""Workers on Slurm that share a study in PostgreSQL and write to an MLflow server: one is killed, nothing is lost.

The addresses of both are in environment variables, which Slurm hands to the jobs; no file of the run has them.
"""

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from tests import services
from tests.cluster.conftest import CONFIG, copy_inputs, finished
from tests.cluster.slurm import Slurm, wait_for
from tests.workflow.killing import RESULTS, essence

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(3600)]
WORKER = "rule_search_wildcards_breakfast_ssp_"
HOLDERS = RESULTS / "state/leases/sweeps/breakfast/ssp.json/slots"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory):
    """Of a database for studies, and of a server with another behind it; both with a password."""
    if why := services.without_postgresql():
        pytest.skip(why)
    with ExitStack() as started:
        cluster = started.enter_context(services.postgresql()).address
        store, folder = services.database(cluster, "runs"), tmp_path_factory.mktemp("mlflow") / "server"
        server = started.enter_context(services.mlflow_server(store, folder)).address
        yield services.database(cluster, "studies"), server.replace("//", "//me:a-secret-of-mlflow@")


def _study(address: str) -> list[optuna.trial.FrozenTrial]:
    """All trials there, or none."""
    with suppress(KeyError, ValueError):
        storage = optuna.storages.RDBStorage(address)
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    return []


def _kill_one(folder: Path, address: str) -> int:
    """SIGKILL to a worker that is in the middle of a trial; its slot of the budget."""

    def holders() -> list[Path]:
        return [path for path in (folder / HOLDERS).glob("*/holder") if path.read_text()]

    while True:
        wait_for(holders, "a trial")
        for holder in holders():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                slot, pid = int(holder.parent.name), int(holder.read_text().split()[1])
                os.kill(pid, signal.SIGSTOP)
                trials = [trial for trial in _study(address) if trial.user_attrs["slot"] == slot]
                if any(trial.state == TrialState.RUNNING for trial in trials):
                    os.kill(pid, signal.SIGKILL)
                    return slot
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.3)


def test_a_worker_is_killed_and_nothing_is_lost(slurm: Slurm, local: Path, addresses, tmp_path: Path, monkeypatch):
    studies, server = addresses
    copy_inputs(local, tmp_path, RESULTS / "costs.json")
    plain = yaml.safe_load((tmp_path / CONFIG).read_text())
    plain["sweep"] |= {"workers": 2, "storage": "env:SSP_STUDIES"}
    (tmp_path / CONFIG).write_text(yaml.safe_dump(plain | {"tracking": {"uri": "env:SSP_TRACKING"}}, sort_keys=False))
    for place in (slurm.environment, os.environ):
        monkeypatch.setitem(place, "SSP_STUDIES", studies)
        monkeypatch.setitem(place, "SSP_TRACKING", server)
    before = len(slurm.jobs())
    start = slurm.start_snakemake(
        tmp_path, "tables", "--configfile", CONFIG, "--default-resources", "slurm_partition=both"
    )
    slot = _kill_one(tmp_path, studies)
    finished(tmp_path, start.wait())

    jobs = Counter(job["Comment"] for job in slurm.jobs()[before:])
    assert jobs[f"{WORKER}0"] + jobs[f"{WORKER}1"] == 3 and jobs["rule_sweep_wildcards_breakfast_ssp"] == 1
    trials = _study(studies)
    assert sorted(t.user_attrs["slot"] for t in trials if t.state == TrialState.COMPLETE) == [0, 1]
    assert [t.user_attrs["slot"] for t in trials if t.state != TrialState.COMPLETE] == [slot]
    client = MlflowClient(server, registry_uri=server)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    kinds = Counter((run.data.tags["ssp.kind"], run.info.status) for run in runs)
    assert kinds.pop(("trial", "KILLED"), 0) <= 1  # it was killed after its trial had begun, perhaps before its run had
    assert kinds == {
        ("sweep", "FINISHED"): 1,
        ("cell", "FINISHED"): 1,
        ("seed", "FINISHED"): 1,
        ("trial", "FINISHED"): 2,
    }

    ours, theirs = (
        {name: of for name, of in essence(folder).items() if name.startswith((f"{RESULTS}/tables/", f"{RESULTS}/pred"))}
        for folder in (tmp_path, local)
    )
    assert ours == theirs and len(ours) > 5
    secrets = (studies.rpartition("@")[0].rpartition(":")[2], "a-secret-of-mlflow", studies.rpartition("@")[2])
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    assert "env:SSP_TRACKING" in (tmp_path / RESULTS / "records/breakfast/ssp/seed0.json").read_text()
