"""A training on several nodes: what Slurm is asked for, and one result of all processes that it starts."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssp.config import config_text
from ssp.errors import ConfigError
from ssp.jobs.nodes import PORTS, launcher, resources, told_by_srun
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from ssp.records.record import load_record
from ssp.training.parallel import Group, launched
from tests.unit.made_records import make_config

TWO = {"train": {"threads": 2, "processes": 2}}


def of_srun(rank: int, *, nodes: int, on_each: int, job: int) -> dict[str, str]:
    """What a task of srun has in its environment, of what is asked about."""
    return {
        "SSP_SRUN": "1",
        "SLURM_JOB_ID": str(job),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % on_each),
        "SLURM_STEP_NUM_TASKS": str(nodes * on_each),
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    }


class Resources(dict):
    """As Snakemake has them, by key or attribute."""

    __getattr__ = dict.__getitem__


def asked_of_slurm(config) -> list[str]:
    """Options of sbatch, as Snakemake's executor makes them of the resources of the rule."""
    plugin = pytest.importorskip("snakemake_executor_plugin_slurm")
    compute = config.compute.train
    rule = {"mem_mb": compute.mem_mb, "runtime": compute.runtime, "gpu": compute.gpus} | resources(config)
    job = SimpleNamespace(resources=Resources(rule), threads=compute.threads)
    about = dict.fromkeys(("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir"), "")
    return (plugin.get_submit_command(job, about) + plugin.set_gres_string(job)).split()


def test_slurm_gives_each_node_what_the_config_says():
    config = make_config(compute={"train": {"threads": 8, "mem_mb": 9000, "gpus": 4, "nodes": 2}})
    asked = asked_of_slurm(config)
    assert {"--nodes=2", "--ntasks=2", "--cpus-per-task=8", "--gres=gpu:4"} <= set(asked)
    assert asked[asked.index("--mem") + 1] == "9000"
    assert not [option for option in asked if "gpus" in option or "per-gpu" in option]
    said = launcher(config).split()
    assert said[:2] == ["SSP_SRUN=1", "srun"]
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=2", "--kill-on-bad-exit=1"} <= set(said)
    on_cpus = make_config(compute={"train": {"threads": 3, "processes": 3, "nodes": 2}})
    assert not [option for option in asked_of_slurm(on_cpus) if "gpu" in option]
    assert {"--ntasks=6", "--ntasks-per-node=3", "--cpus-per-task=1"} <= set(launcher(on_cpus).split())


def test_on_one_node_nothing_is_asked_for_and_nothing_stands_before_the_command():
    config = make_config(compute={"train": {"gpus": 4}})
    assert resources(config) == {} and launcher(config) == ""


def test_a_task_of_srun_is_told_its_place(monkeypatch):
    groups = []
    for rank in range(8):
        told = told_by_srun(of_srun(rank, nodes=2, on_each=4, job=123_456))
        assert told["MASTER_ADDR"] == "127.0.0.1" and int(told["MASTER_PORT"]) in PORTS
        assert (told["LOCAL_RANK"], told["LOCAL_WORLD_SIZE"]) == (str(rank % 4), "4")
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        groups.append(launched())
    assert groups == [Group(rank, 8) for rank in range(8)]
    ports = {told_by_srun(of_srun(0, nodes=2, on_each=1, job=job))["MASTER_PORT"] for job in range(70_000, 70_100)}
    assert len(ports) == 100  # jobs that share a node do not meet


def test_who_else_is_in_a_step_of_slurm_is_told_nothing():
    """Jobs of one node, whom `srun -n1` starts, and the shell of who works on a node by `srun -n 8 --pty bash`."""
    for on_each in (1, 8):
        task = of_srun(0, nodes=1, on_each=on_each, job=7)
        del task["SSP_SRUN"]
        assert told_by_srun(task) == {}


def test_a_command_that_nothing_has_started_on_other_nodes_is_one_line(tiny):
    config = tiny(compute={"train": {"nodes": 2}}, datasets__ucf101__recipe__micro_batch=2)
    with pytest.raises(ConfigError, match=r"^compute\.train\.nodes: 2 asked for, but .* set it to 1"):
        train_cell(config, "ucf101", "ssp", 0)
    run_sweep(config.model_copy(update={"sweep": config.sweep.model_copy(update={"trials": 0})}), "ucf101", "ssp")


@pytest.mark.slow
def test_what_srun_starts_twice_is_written_once_and_is_what_two_processes_of_one_node_make(tiny, tmp_path):
    found = {}
    for name in ("one", "two"):
        compute = TWO if name == "one" else {"train": {"nodes": 2}}
        config = tiny(name=name, compute=compute, datasets__ucf101__recipe__micro_batch=2, sweep__trials=0)
        paths, copy, log = Paths.of(config), tmp_path / f"{name}.yaml", tmp_path / f"{name}/seed0.log"
        copy.write_text(config_text(config))
        run_sweep(config, "ucf101", "ssp")
        if name == "one":
            train_cell(config, "ucf101", "ssp", 0)
        else:
            _as_srun_does(log, "train", "--dataset", "ucf101", "--method", "ssp", "--seed", "0", "--config", copy)
            begun, ended = map(json.loads, log.with_suffix(".attempts").read_text().splitlines())
            assert (begun["begin"], ended["end"]) == (ended["of"], "success")
            assert len(log.with_suffix(".tsv").read_text().splitlines()) == 2  # a head, and what the job took
        record = load_record(paths.record("ucf101", "ssp", 0))
        assert record.run.processes == 2
        found[name] = paths.predictions("ucf101", "ssp", 0).read_bytes(), record.test_readings
    assert found["one"] == found["two"]


def _free(port: int) -> bool:
    with socket.socket() as place:
        return place.connect_ex(("127.0.0.1", port)) != 0


def _as_srun_does(log: Path, *command: str | Path) -> None:
    job = next(number for number, port in enumerate(PORTS, len(PORTS)) if _free(port))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "ssp.jobs.run", *map(str, [log, *command])]
    started = [
        subprocess.Popen(words, env=environment | of_srun(rank, nodes=2, on_each=1, job=job), stderr=subprocess.PIPE)
        for rank in (1, 0)
    ]
    for process in started:
        said = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0, said
