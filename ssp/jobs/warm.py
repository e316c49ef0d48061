"""A process that has imported what jobs need, and forks each of them from itself: imports are most of a short job.

Design choices
- Nothing rests on it. A job that finds no such process imports for itself: same command, same output, same bytes.
- While it imports, jobs that would import most of that themselves (`LARGE`) wait for it; others do not.
- The workflow's main process starts it for jobs on the same machine and holds its standard input: it ends with the
  workflow, however that ends, and its jobs with it.
- A job's own process hands over its arguments, environment, folder and three standard files, waits, and ends as the
  forked one ends. It passes on the signals that ask for an end; where it is killed, so is the forked one.
- Forking is safe because there is one thread: those of OpenMP, autograd and MLflow start with the first work.
- Linux only (parent-death signals); elsewhere every job imports for itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ADDRESS = "SSP_WARM"  # environment variable: the socket of the process
PRELOADED = (
    "ssp.cli",
    "ssp.jobs.sweep",
    "ssp.jobs.seed",
    "ssp.jobs.explain",
    "optuna",
    "mlflow.store.tracking.sqlalchemy_store",
    "torch._dynamo",  # which the first optimizer step imports
)
LARGE = ("tracking", "pretrain", "costs", "sweep", "train", "explain")  # commands
_LENGTH = struct.Struct("!Q")
_NUMBER = struct.Struct("!q")  # first the forked process's, then how it ended
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl.h
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


# The workflow's side.


def start(root: str) -> None:
    """Start the process, and have all jobs that are started from here find it; it ends with this one.

    Args:
        root: folder of the package `ssp`.
    """
    if sys.platform != "linux" or ADDRESS in os.environ:  # there is one, or, set to nothing, none is wanted
        return
    held, _ = os.pipe()  # nothing is ever written: it ends when this process ends, and the other end is closed with it
    address = Path(tempfile.mkdtemp(prefix="ssp-")) / "warm"  # short: an address has at most 107 bytes
    # OpenBLAS would start threads when it is loaded; how many threads a job has, it says itself.
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    subprocess.Popen(
        [sys.executable, "-m", "ssp.jobs.warm", str(address)],
        stdin=held,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | threads | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )
    os.close(held)
    os.environ[ADDRESS] = str(address)


# A job's side.


def hand_over(log: str, command: list[str], began: float) -> None:
    """Have the process run a job (`ssp.jobs.run.run`), and end as that ends; returns where there is no such process."""
    address = os.environ.get(ADDRESS)
    if not address or (command[0] not in LARGE and not _ready(Path(address)).exists()):
        return
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        request = {"job": [log, command, began], "environment": dict(os.environ), "folder": str(Path.cwd())}
        content = json.dumps(request).encode()
        socket.send_fds(connection, [_LENGTH.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
        (pid,) = _NUMBER.unpack(connection.recv(_NUMBER.size, socket.MSG_WAITALL))
    except (OSError, struct.error):  # it has ended meanwhile, or it is on another machine
        return
    # Ctrl-C reaches all processes of the terminal: the forked one itself, too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    try:
        (code,) = _NUMBER.unpack(connection.recv(_NUMBER.size, socket.MSG_WAITALL))
    except (OSError, struct.error):
        sys.exit("error: the process that this job was forked from has ended; run the workflow again")
    if code < 0:  # ended by a signal: so does this one
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


# The process itself.


def _ready(address: Path) -> Path:
    """File that is there once all is imported."""
    return address.with_name("ready")


def serve(listener: socket.socket) -> None:
    """Fork jobs as they are asked for, until standard input ends: until the workflow is over."""
    with selectors.DefaultSelector() as selector:
        for source in (0, listener):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == 0:
                    return
                if key.fileobj is listener:
                    _fork(listener, selector)
                else:
                    _follow(key, selector)


def _fork(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    """Take a request and fork its job, which has nothing open that belongs to others."""
    waiting, _ = listener.accept()
    try:
        length, files, *_ = socket.recv_fds(waiting, _LENGTH.size, 3)
        request = json.loads(waiting.recv(*_LENGTH.unpack(length), socket.MSG_WAITALL))
    except (OSError, ValueError, struct.error):  # who asked is gone
        waiting.close()
        return
    others = [key.fileobj for key in selector.get_map().values() if key.fileobj != 0]
    job = multiprocessing.get_context("fork").Process(
        target=_run, args=(os.getpid(), request, files, [waiting, *others])
    )
    job.start()
    for file in files:
        os.close(file)
    for source in (waiting, job.sentinel):
        selector.register(source, selectors.EVENT_READ, (job, waiting))
    _tell(waiting, job.pid)


def _follow(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    """One of both is over: the job, or who waits for it."""
    job, waiting = key.data
    if key.fileobj == job.sentinel:
        job.join()
        _tell(waiting, job.exitcode)
        selector.unregister(job.sentinel)
    elif waiting.fileno() >= 0:  # killed
        job.kill()
    if waiting.fileno() >= 0:
        selector.unregister(waiting)
        waiting.close()


def _tell(waiting: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # who waited is gone
        waiting.sendall(_NUMBER.pack(number))


def _run(parent: int, request: dict[str, Any], files: list[int], others: list[socket.socket | int]) -> None:
    """In a forked process: become that of the job, and run it."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for other in others:
        os.close(other) if isinstance(other, int) else other.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])  # beside what libraries have set when they were imported

    import torch

    from ssp.jobs.run import run

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0)))
    run(*request["job"])


def _load_code() -> None:
    """Have all jobs of a workflow run the same code, and record it as theirs, whatever is edited meanwhile."""
    from ssp.methods.registry import load_method, method_names
    from ssp.records.record import running_code

    running_code()
    for name in method_names():
        with contextlib.suppress(Exception):  # one that cannot be loaded is for the jobs to meet that train it
            load_method(name)


def main(address: Path) -> None:
    """Import, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workflow decides when it is over
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `ssp.cli` has it; read once, when OpenMP is loaded
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        for name in PRELOADED:
            importlib.import_module(name)
        _load_code()
        _ready(address).touch()
        serve(listener)


if __name__ == "__main__":
    socket_file = Path(sys.argv[1])
    try:
        main(socket_file)
    finally:
        shutil.rmtree(socket_file.parent, ignore_errors=True)
        os._exit(0)  # at once: to tear down what was imported takes seconds
