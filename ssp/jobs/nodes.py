"""A training on several nodes: what Slurm is asked for, how its processes are started, and what each is told.

Design choices
- `srun` starts all processes of the training, as no command reaches another node. Without torchrun in between, signals
  come to them and exit codes from them; one that fails ends all (`--kill-on-bad-exit`).
- Each is told what torchrun would tell it, which is all that the library knows of launchers (`ssp.training.parallel`).
  That the step is one training is said by a variable of ours: a shell that `srun -n 8` gave has Slurm's variables, too.
- The job has one task a node, so that each node gives the same, however many of its CPUs are free. `mpi` keeps the
  executor from starting the command as a single task itself. `tasks_per_gpu: 0` keeps it from counting tasks by GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ssp.config import Config

ONE_TRAINING = "SSP_SRUN"  # environment variable: what srun starts trains together
PORTS = range(15000, 25000)  # below those that Linux gives to connections


def resources(config: Config) -> dict[str, int | str]:
    """Resources of Snakemake's rule beside what it has on one node, for Slurm's executor; none where one is enough."""
    train = config.compute.train
    if train.nodes == 1:
        return {}
    asked: dict[str, int | str] = {"nodes": train.nodes, "tasks": train.nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    # Those of all nodes together may be shared out unevenly; `gres` is for each.
    return asked | ({"gpu": 0, "gres": f"gpu:{train.gpus}"} if train.gpus else {})


def launcher(config: Config) -> str:
    """What stands before the command of a training; nothing where one node is enough."""
    train, processes = config.compute.train, config.processes("train")
    if train.nodes == 1:
        return ""
    # The executor leaves nothing of the job's environment but its number.
    return (
        f"{ONE_TRAINING}=1 srun --nodes={train.nodes} --ntasks={train.nodes * processes} --ntasks-per-node={processes} "
        f"--cpus-per-task={max(1, train.threads // processes)} --kill-on-bad-exit=1 "
    )


def told_by_srun(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would tell a process that `launcher` has started; nothing to any other.

    Args:
        environment: of the process.
    """
    if ONE_TRAINING not in environment:
        return {}
    size = int(environment["SLURM_STEP_NUM_TASKS"])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(size // int(environment["SLURM_STEP_NUM_NODES"])),
        # srun runs on the job's first node, which has rank 0; no other job has the number, as long as it runs.
        "MASTER_ADDR": environment["SLURM_LAUNCH_NODE_IPADDR"],
        "MASTER_PORT": str(PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]),
    }
