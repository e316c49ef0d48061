"""A private Slurm on this machine: two virtual nodes on loopback, each a partition, with stand-ins for GPUs.

As root alone: the daemons run as root, and device files are made. What they keep lies in one folder, and no setting of
the machine is touched. Two nodes share the machine's host name, so a lease's holder is always on "this" host.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.services import free_port
from tests.workflow.running import ROOT, Done, command_line

NODES = {"n1": 2, "n2": 3}  # CPUs: those of the machine, whatever Slurm is told
REQUESTS = {  # of the small config's jobs, as `compute`: two of a kind find room on a node
    "data": {"mem_mb": 1500, "runtime": 20},
    "train": {"mem_mb": 3000, "runtime": 40},
    "sweep": {"mem_mb": 2500},
}
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
LIMIT_S = 1200  # for anything that is waited for; on a busy machine all of it takes many times as long


def missing() -> str:
    """Why there can be no Slurm here, or nothing."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)} (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "its daemons are started as root"


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass
class Slurm:
    """The running cluster; its commands need `environment`."""

    folder: Path
    environment: dict[str, str]
    started: list["Snakemake"] = field(default_factory=list)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs as `scontrol show job` has them, finished ones too; in the order of their submission."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        found = [dict(re.findall(r"(\S+?)=(.*?) *(?= \S+?=|$)", line)) for line in lines if "JobId=" in line]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def of(self, cell: str) -> list[dict[str, str]]:
        """Jobs of one cell, named as in their comment."""
        return [job for job in self.jobs() if job["Comment"] == cell]

    def start_snakemake(self, folder: Path, *args: str | Path) -> "Snakemake":
        """The Snakefile with profiles/slurm, in a folder which is its working directory."""
        self.started.append(Snakemake(self, folder, args))
        return self.started[-1]

    def snakemake(self, folder: Path, *args: str | Path) -> Done:
        """The same, until it has ended."""
        return self.start_snakemake(folder, *args).wait()


class Snakemake:
    """A workflow that runs."""

    def __init__(self, slurm: Slurm, folder: Path, args: tuple[str | Path, ...]) -> None:
        command = command_line(folder, "--workflow-profile", ROOT / "profiles/slurm")
        # Looked at early and often, on a file system that is nobody's but ours.
        command += ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "3"]
        self._said = folder / f"snakemake-{time.time_ns()}.log"
        with self._said.open("w") as said:
            streams = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
            self.process = subprocess.Popen(
                list(map(str, [*command, *args])), cwd=folder, env=slurm.environment, start_new_session=True, **streams
            )

    def wait(self, limit_s: float = LIMIT_S) -> Done:
        """Until it has ended."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        return Done(code, "", self._said.read_text())

    def kill(self) -> None:
        """SIGKILL to Snakemake alone: what it has submitted is Slurm's."""
        self.process.kill()
        self.process.wait()


def wait_for(met: Callable[[], object], what: str) -> None:
    """Look again and again until something is true; an error after a while."""
    limit = time.monotonic() + LIMIT_S
    while not met():
        if time.monotonic() > limit:
            raise TimeoutError(what)
        time.sleep(0.1)


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Start the daemons, and stop them with all jobs at the end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))}
    environment |= {"PATH": f"{_srun(folder)}:{_path()}", "SLURM_CONF": str(_configure(folder))}
    slurm, munge = Slurm(folder, environment), [f"--{key}={folder}/munge.{key}" for key in ("socket", "pid-file")]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed", f"--key-file={folder}/munge.key"]
    pid_files = [folder / name for name in ("munge.pid-file", "ctld.pid", *(f"{node}.pid" for node in NODES))]
    try:
        slurm.ask("munged", "--force", *munge)
        slurm.ask("slurmctld")
        for node in NODES:
            slurm.ask("slurmd", "-N", node)
        wait_for(lambda: set(slurm.ask("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, "idle nodes")
        yield slurm
    finally:
        for start in slurm.started:
            start.kill()
        subprocess.run(["scancel", "--user", "root"], env=environment, check=False)
        wait_for(lambda: not slurm.ask("squeue", "-h"), "no jobs")
        for file in reversed(pid_files):
            _stop(file)


def _stop(pid_file: Path) -> None:
    if pid_file.exists():
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), f"the end of {pid_file.stem}")


def _srun(folder: Path) -> Path:
    """A folder for PATH: the executor's own `srun` runs without SLURM_* variables, and would look in /etc."""
    place, real = folder / "bin", shutil.which("srun")
    place.mkdir()
    (place / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {real} "$@"\n')
    (place / "srun").chmod(0o755)
    return place


def _configure(folder: Path) -> Path:
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    for number in range(2):
        subprocess.run(["mknod", "-m", "666", folder / f"gpu{number}", "c", "1", "3"], check=True)
    (folder / "gres.conf").write_text(
        f"AutoDetect=off\nName=gpu Type=fake File={folder}/gpu[0-1] Flags=nvidia_gpu_env\n"
    )
    ports = [free_port() for _ in range(3)]
    host = socket.gethostname().split(".")[0]
    nodes = "".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=9000 "
        "Gres=gpu:fake:2\n"
        for (node, cpus), port in zip(NODES.items(), ports[1:], strict=True)
    )
    path = folder / "slurm.conf"
    path.write_text(
        f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
MinJobAge=3600
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/ctld.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
{nodes}PartitionName=one Nodes=n1 MaxTime=120 Default=YES
PartitionName=other Nodes=n2 MaxTime=120
PartitionName=both Nodes={",".join(NODES)} MaxTime=120
PartitionName=closed Nodes={",".join(NODES)} State=DOWN
"""
    )
    return path
