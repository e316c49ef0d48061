"""Real services on loopback for tests that need them: PostgreSQL, which asks for a password, and an MLflow server.

Both can be killed, and started again on the same data and port.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LIMIT_S = 120  # until a server answers


@dataclass
class Service:
    """A server that runs."""

    address: str
    kill: Callable[[], None]  # SIGKILL to all its processes
    start: Callable[[], None]  # again; until it answers


def slay(*pids: int) -> None:
    """SIGKILL to those that are there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def without_postgresql() -> str:
    """Why there can be no PostgreSQL here, or nothing."""
    if not _programs():
        return "PostgreSQL is not installed (apt-get install postgresql)"
    return "" if find_spec("psycopg2") else "psycopg2 is not installed"


def _programs() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@contextmanager
def postgresql() -> Iterator[Service]:
    """A private cluster; its address has a password, and no database's name."""
    root, initdb = getpass.getuser() == "root", _programs()[-1]
    as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []
    folder, port, password = Path(tempfile.mkdtemp(prefix="ssp-pg-")), free_port(), secrets.token_hex(8)
    (folder / "password").write_text(password)
    if root:
        shutil.chown(folder, "postgres", "postgres")
    data, log = folder / "data", folder / "log"
    control = [*as_owner, initdb.with_name("pg_ctl"), "-D", data, "-w", "-l", log]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    make = [*as_owner, initdb, "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", folder / "password"]

    def run(*command: str | Path) -> None:
        done = subprocess.run(list(map(str, command)), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr

    def start() -> None:
        run(*control, "-o", options, "start")

    def kill() -> None:
        first = int((data / "postmaster.pid").read_text().split()[0])
        others = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True).stdout.split()
        slay(first, *map(int, others))
        while any(Path(f"/proc/{process}").exists() for process in (first, *others)):
            time.sleep(0.02)

    run(*make, "--no-sync", "-E", "UTF8")
    start()
    try:
        yield Service(f"postgresql+psycopg2://postgres:{password}@127.0.0.1:{port}", kill, start)
    finally:
        subprocess.run(list(map(str, [*control, "-m", "immediate", "stop"])), cwd="/", stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)


def database(server: str, name: str) -> str:
    """A new database of a cluster; its address."""
    import psycopg2

    connection = psycopg2.connect(server.replace("+psycopg2", "") + "/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"create database {name}")
    connection.close()
    return f"{server}/{name}"


@contextmanager
def mlflow_server(store: str, folder: Path) -> Iterator[Service]:
    """An MLflow server. Artifacts and its log lie in the folder, which is made."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Its jobs judge answers of language models, and take a processor's time for that.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server: subprocess.Popen

    def start() -> None:
        nonlocal server
        with (folder / "log").open("a") as log:
            streams = {"stdout": log, "stderr": log}
            server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)

    def kill() -> None:
        with suppress(ProcessLookupError):  # it was killed before
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    try:
        start()
        yield Service(uri, kill, start)
    finally:
        kill()
