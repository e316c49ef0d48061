"""The workflow on a real Slurm: same bytes, requests as configured, nothing twice and nothing lost.

Two virtual nodes on one machine (tests/cluster/slurm.py): they share a disk, a host name and its processes, so network
file systems and leases between hosts are not tested here.
"""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.cluster.conftest import CONFIG, finished
from tests.cluster.slurm import Slurm, wait_for
from tests.workflow.killing import RESULTS, essence
from tests.workflow.running import snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(3600)]


def _record(folder: Path, seed: int) -> Path:
    return folder / RESULTS / f"records/breakfast/ssp/seed{seed}.json"


def _comment(seed: int) -> str:
    return f"rule_train_wildcards_breakfast_ssp_{seed}"


def _log(folder: Path, seed: int) -> str:
    """Of the latest attempt; Snakemake removes it before each."""
    with suppress(FileNotFoundError):
        return (folder / RESULTS / f"logs/train/breakfast/ssp/seed{seed}.log").read_text()
    return ""


def _holder(folder: Path, seed: int) -> int | None:
    """Process that holds the lease of a training."""
    found = list((folder / RESULTS / "state/leases").glob(f"**/ssp/seed{seed}*/holder"))
    return int(found[0].read_text().split()[1]) if found and found[0].read_text() else None


def _second_process(seed: int) -> int | None:
    """The process of a training that srun has started on the second of its nodes."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words, told = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if b"ssp.jobs.run" in words and str(seed).encode() in words and b"SLURM_PROCID=1" in told:
                return int(process.name)
    return None


def _begun(folder: Path, seed: int) -> list[dict]:
    """Processes that have begun a training since the workflow started."""
    path = folder / RESULTS / f"logs/train/breakfast/ssp/seed{seed}.attempts"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [line for line in lines if "begin" in line]


def _targets(folder: Path, seeds: list[int]) -> list[str]:
    """Options for these trainings alone."""
    records = [str(_record(folder, seed).relative_to(folder)) for seed in seeds]
    return [*records, "--configfile", CONFIG, "--config", f"seeds={[0, *seeds]}".replace(" ", "")]


def _assert_trained_once(folder: Path, seeds: list[int]) -> None:
    client = MlflowClient(f"sqlite:///{folder}/{RESULTS}/mlflow/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    for seed in seeds:
        record = json.loads(_record(folder, seed).read_text())
        assert record["status"] == "ok"
        assert (folder / record["predictions"]["path"]).exists()
        named = [run for run in runs if run.info.run_id == record["run"]["mlflow_run_id"]]
        same = {run.info.run_id: run.info.status for run in runs if run.info.run_name == named[0].info.run_name}
        assert same.pop(record["run"]["mlflow_run_id"]) == "FINISHED"
        assert set(same.values()) <= {"KILLED"}  # of a process that ended before its first epoch was safe
        readings = (folder / RESULTS / f"readings/breakfast/ssp/seed{seed}.jsonl").read_text().splitlines()
        assert [json.loads(line)["by"] for line in readings] == ["train"]


def test_a_run_through_slurm_has_the_bytes_of_a_local_one(local, through_slurm):
    assert essence(through_slurm) == essence(local)


def test_each_job_asks_for_what_the_config_says(slurm, through_slurm):
    """As Slurm has it; GPUs in `test_a_mistake_...`."""
    expected = {
        "rule_frames_wildcards_breakfast_0": ("1500M", "00:20:00", "1", "one"),  # the default partition
        "rule_costs": ("3000M", "00:40:00", "1", "one"),
        "rule_sweep_wildcards_breakfast_ssp": ("2500M", "00:40:00", "1", "one"),
        "rule_train_wildcards_breakfast_ssp_0": ("3000M", "00:40:00", "1", "one"),
    }
    keys = ("MinMemoryNode", "TimeLimit", "NumCPUs", "Partition")
    jobs = [job for job in slurm.jobs() if job["Comment"] in expected]
    assert {job["Comment"]: tuple(job[key] for key in keys) for job in jobs} == expected
    assert all(job["JobName"].startswith("ssp_") for job in slurm.jobs())


def test_each_worker_of_a_sweep_asks_for_what_the_config_says_and_is_tried_as_often_as_its_time_may_be_up(
    slurm: Slurm, through_slurm: Path, tmp_path: Path
):
    """In a partition where nothing starts; without the retries that other jobs have."""
    folder = shutil.copytree(through_slurm, tmp_path / "copy", ignore=shutil.ignore_patterns(".snakemake"))
    start = slurm.start_snakemake(
        *(folder, "--force", RESULTS / "sweeps/breakfast/ssp.json", "--configfile", CONFIG, "--retries", "0"),
        *("--config", "sweep={workers: 2}", "compute={sweep: {runtime: 5, gpus: 1}}"),
        *("--default-resources", "slurm_partition=closed"),
    )

    def queued() -> list[dict[str, str]]:
        jobs = [job for job in slurm.jobs() if job["Partition"] == "closed"]
        return [job for job in jobs if job["JobState"] == "PENDING"]

    wait_for(lambda: len(queued()) == 2, "two jobs in the queue")
    jobs = queued()
    slurm.ask("scancel", *(job["JobId"] for job in jobs))
    wait_for(lambda: len(queued()) == 2, "both once more")
    start.kill()
    slurm.ask("scancel", *(job["JobId"] for job in queued()))
    assert {job["Comment"] for job in jobs} == {f"rule_search_wildcards_breakfast_ssp_{k}" for k in (0, 1)}
    keys = ("NumCPUs", "MinMemoryNode", "TimeLimit", "TresPerJob")
    for job in jobs:
        assert tuple(job[key] for key in keys) == ("1", "2500M", "00:05:00", "gres:gpu:1")


def test_a_workflow_that_is_killed_and_started_again_trains_nothing_twice(slurm: Slurm, through_slurm: Path):
    """Two trainings run and one is queued; duplicates wait, and one of these is cancelled when the first is done."""
    folder, seeds = through_slurm, [1, 2, 3]
    first = slurm.start_snakemake(folder, *_targets(folder, seeds))
    wait_for(lambda: sum(map(bool, (_holder(folder, seed) for seed in seeds))) == 2, "two trainings")
    holders = {seed: pid for seed in seeds if (pid := _holder(folder, seed))}
    (queued,) = set(seeds) - set(holders)
    assert slurm.of(_comment(queued))[0]["JobState"] == "PENDING"
    for pid in holders.values():
        os.kill(pid, signal.SIGSTOP)
    first.kill()

    assert slurm.snakemake(folder, "--unlock", *_targets(folder, seeds)).code == 0
    # In another partition there is room for the duplicates at once.
    again = slurm.start_snakemake(folder, *_targets(folder, seeds), "--default-resources", "slurm_partition=other")

    def duplicates_wait() -> bool:
        for holder in (folder / RESULTS / "state/leases/records").rglob("holder"):
            os.utime(holder)  # stopped processes give no sign of life, and would be followed after a while
        return all("waiting for process" in _log(folder, seed) for seed in holders)

    wait_for(duplicates_wait, "duplicates that wait")
    failing, other = holders
    (duplicate,) = _begun(folder, failing)
    os.kill(duplicate["begin"], signal.SIGSTOP)
    for pid in holders.values():
        os.kill(pid, signal.SIGCONT)
    wait_for(_record(folder, failing).exists, "the first one's record")
    trained = _record(folder, failing).read_bytes()
    slurm.ask("scancel", duplicate["job"])
    done = again.wait()
    assert done.code == 0, done.err[-3000:]

    assert _record(folder, failing).read_bytes() == trained
    assert len(_begun(folder, failing)) == 2
    assert "another process has made it meanwhile" in _log(folder, failing)
    assert "another process has made it meanwhile" in _log(folder, other)
    _assert_trained_once(folder, seeds)
    for job in slurm.jobs():  # more partitions than the profile's take nothing from what the rules say
        if job["Partition"] == "other":
            assert (job["MinMemoryNode"], job["TimeLimit"]) == ("3000M", "00:40:00")


def test_a_cancelled_and_a_requeued_training_go_on_after_their_last_epoch(slurm: Slurm, through_slurm: Path):
    folder, seeds = through_slurm, [4, 5]
    start = slurm.start_snakemake(folder, *_targets(folder, seeds))
    for seed, command in zip(seeds, (["scancel"], ["scontrol", "requeue"]), strict=True):
        state = folder / RESULTS / f"state/training/breakfast/ssp/seed{seed}.pt"
        wait_for(state.exists, "an epoch that is safe")
        slurm.ask(*command, slurm.of(_comment(seed))[-1]["JobId"])
    done = start.wait()
    assert done.code == 0, done.err[-3000:]
    cancelled, again = slurm.of(_comment(4))
    assert (cancelled["JobState"], again["JobState"]) == ("CANCELLED", "COMPLETED")
    assert again["MinMemoryNode"] == "3000M"  # more memory is no cure for that
    (requeued,) = slurm.of(_comment(5))
    assert (requeued["JobState"], requeued["Restarts"]) == ("COMPLETED", "1")
    for seed in seeds:
        assert json.loads(_record(folder, seed).read_text())["run"]["resumed_after_epoch"] >= 1
    _assert_trained_once(folder, seeds)


def test_a_training_on_two_nodes_is_that_of_two_processes_on_one(slurm: Slurm, through_slurm: Path, tmp_path: Path):
    """Also where the process on the second node is killed, and where the batch system asks all to stop."""
    folder, seeds = through_slurm, [8, 9]
    one = shutil.copytree(folder, tmp_path / "one", ignore=shutil.ignore_patterns(".snakemake"))
    start = slurm.start_snakemake(
        folder, *_targets(folder, seeds), "compute={train: {nodes: 2}}", "--default-resources", "slurm_partition=both"
    )
    second = {}
    for seed in seeds:  # held, or one training would be over while the other is looked at
        wait_for(lambda seed=seed: _second_process(seed), "a process on the second node")
        second[seed] = _second_process(seed)
        os.kill(second[seed], signal.SIGSTOP)
    for seed in seeds:
        os.kill(second[seed], signal.SIGCONT)
        wait_for((folder / RESULTS / f"state/training/breakfast/ssp/seed{seed}.pt").exists, "an epoch that is safe")
        if seed == seeds[0]:
            os.kill(second[seed], signal.SIGKILL)
        else:
            slurm.ask("scancel", "--signal=TERM", slurm.of(_comment(seed))[-1]["JobId"])
    done = start.wait()
    assert done.code == 0, done.err[-3000:]
    for seed in seeds:
        jobs = slurm.of(_comment(seed))
        assert [job["JobState"] for job in jobs] == ["FAILED", "COMPLETED"]
        assert {(job["NumNodes"], job["NumTasks"], job["NumCPUs"]) for job in jobs} == {("2", "2", "2")}
        assert [line["job"] for line in _begun(folder, seed)] == [job["JobId"] for job in jobs]  # by one process each
        run = json.loads(_record(folder, seed).read_text())["run"]
        assert run["processes"] == 2 and run["resumed_after_epoch"] >= 1
    # Who was asked to stop has ended by itself, for want of nothing.
    assert [job["MinMemoryNode"] for job in slurm.of(_comment(9))] == ["3000M", "3000M"]
    _assert_trained_once(folder, seeds)

    on_one = "compute={train: {threads: 2, processes: 2}}"
    finished(one, snakemake(one, *_targets(one, seeds), on_one, "--cores", "2"))
    for seed in seeds:
        predictions = RESULTS / f"predictions/breakfast/ssp/seed{seed}.parquet"
        assert (folder / predictions).read_bytes() == (one / predictions).read_bytes()


def test_a_mistake_is_not_tried_again_and_gpus_are_asked_for_by_model(slurm: Slurm, through_slurm: Path):
    """The mistake: there is no GPU behind the stand-in."""
    folder = through_slurm
    resources = ["train:slurm_partition=other", "train:gpu_model=fake"]
    done = slurm.snakemake(
        folder, *_targets(folder, [6]), "compute={train: {gpus: 1}}", "--set-resources", *resources, "--retries", "1"
    )
    assert done.code != 0
    jobs = slurm.of(_comment(6))
    asked = [(job["Partition"], job["MinMemoryNode"], job["TresPerJob"]) for job in jobs]
    assert asked == [("other", "3000M", "gres:gpu:fake:1")] * 2
    said = [
        (folder / RESULTS / f"logs/train/breakfast/ssp/seed6.attempt-{job['JobId']}.log").read_text().splitlines()[-1]
        for job in jobs
    ]
    assert said[1] == f"{said[0]} (as before; not tried again)"
    assert said[0].startswith("error: compute.train.gpus: 1 asked for, but torch sees no GPU here")


def test_a_training_that_is_killed_for_memory_gets_more_up_to_the_cap(slurm: Slurm, through_slurm: Path):
    done = slurm.snakemake(
        through_slurm, *_targets(through_slurm, [7]), "compute={train: {mem_mb: 1000}, max_mem_mb: 1900}"
    )
    assert done.code == 0, done.err[-3000:]
    killed, again = slurm.of(_comment(7))
    assert (killed["JobState"], killed["MinMemoryNode"], again["MinMemoryNode"]) == ("FAILED", "1000M", "1900M")
    assert (killed["TimeLimit"], again["TimeLimit"]) == ("00:40:00", "00:40:00")
    _assert_trained_once(through_slurm, [7])
