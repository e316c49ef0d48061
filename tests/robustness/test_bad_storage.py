"""A disk that is full or read-only and a missing permission are one line that names the file; the next run is good.

Real file systems: a small tmpfs that is filled up, a read-only bind mount, another user. Each skips, with its reason,
where this user may not make one. And what a kill or a bad disk may leave in files of ours that are only caches heals.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.robustness.bench import CELL, CONFIG, Bench, call, touched
from tests.workflow.running import ROOT

pytestmark = pytest.mark.slow
COMMANDS = {  # command: the folder that cannot be written, and what must be named
    "data generate --dataset ucf101": ("local", "local/UCF101.zip: "),
    "data fetch --dataset ucf101": ("data/ucf101/archives", "data/ucf101/archives"),
    "data unpack --dataset ucf101": ("data/ucf101", "data/ucf101/"),
    "data manifest --dataset ucf101": ("data/ucf101", "data/ucf101/manifest"),
    "data frames --dataset ucf101 --shard 0": ("data/ucf101/frames", "data/ucf101/frames/shard-0"),
    "tracking init": ("results", "results/tiny/mlflow"),
    f"sweep {CELL}": ("results/tiny/state", "results/tiny/state/leases/sweeps/ucf101/linear.json/holder"),
    f"train {CELL} --seed 0": ("results/tiny", "results/tiny/"),
    "costs": ("results/tiny", "results/tiny/costs.json"),
    "tables": ("results/tiny/tables", "results/tiny/tables/"),
}


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """The folder on a tmpfs with all its files and nothing free."""
    aside = folder.with_name(folder.name + ".aside")
    folder.rename(aside)
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
        shutil.rmtree(folder)
        aside.rename(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder through a read-only mount."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


def _own_tracking(bench: Bench) -> None:
    """A new database in the results folder."""
    bench.configure("tracking", {})
    (bench / "results/tiny/mlflow/ready.json").unlink()


# The operating system's words; SQLite's; and those of the check before a file is copied.
REASONS = {
    full_disk: ("No space left on device", "database or disk is full", "disk I/O error", "GB free"),
    read_only: ("Read-only file system", "unable to open database file", "readonly database"),
}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _again(bench: Bench, command: str) -> None:
    """Remove what the command would find done."""
    if command.startswith("data fetch"):
        shutil.rmtree(bench / "data/ucf101/archives")
        (bench / "data/ucf101/archives").mkdir()
        bench.configure("datasets.ucf101.archives", [{"file": "UCF101.zip"}])
    for command_with, output in (
        ("unpack", "data/ucf101/videos"),
        ("manifest", "data/ucf101/manifest.parquet"),
        ("frames", "data/ucf101/frames/shard-0.lmdb"),
    ):
        if command.startswith(f"data {command_with}"):
            _remove(bench / output)
    if command.startswith("sweep"):
        _remove(bench / "results/tiny/state/sweeps/ucf101/linear.journal")
        (bench / "results/tiny/sweeps/ucf101/linear.json").unlink()
    if command == "tracking init":
        _own_tracking(bench)


@pytest.mark.parametrize("disk", [full_disk, read_only], ids=lambda disk: disk.__name__)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(" --")[0].replace(" ", "_"))
def test_a_disk_that_takes_nothing(command, disk, bench, capfd):
    folder, named = COMMANDS[command]
    _again(bench, command)
    with disk(bench / folder):
        before = bench.files()
        answer = call(command, capfd)
        assert answer.code == 1, answer
        assert len(answer.lines) == 1, answer.err
        assert answer.lines[0].startswith("error: "), answer
        assert named in answer.lines[0]
        assert any(reason in answer.lines[0] for reason in REASONS[disk]), answer.lines[0]
        after = bench.files()
        assert [path for path in after if path.endswith(".tmp")] == []
        # Emptied or cut off is what no reader may meet; gone, or whole and new, is fine.
        kept = ("data/ucf101/videos/*", "data/ucf101/*.json", "results/tiny/state/*", "results/tiny/mlflow/*")
        assert [path for path in touched(before, after, kept) if path in after] == []
    again = call(command, capfd)
    assert again.code == 0, again


@pytest.fixture
def open_bench(finished) -> Iterator[Bench]:
    """A copy that every user can reach and read, but only its owner write."""
    folder = Path(tempfile.mkdtemp(prefix="ssp-", dir="/tmp"))
    bench = Bench.copy(finished, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield bench
    shutil.rmtree(folder)


def _as_nobody(folder: Path, command: str) -> subprocess.CompletedProcess:
    """The real command as a user without any right to write there."""
    user = []
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write anywhere, and there is no setpriv to be somebody else")
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run([*user, sys.executable, "-c", "import yaml"], cwd=folder, capture_output=True).returncode:
            pytest.skip("user 65534 cannot run this Python: it lies in a folder of root")
    program = [*user, sys.executable, "-m", "ssp", *command.split(), "--config", CONFIG]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    return subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("data unpack --dataset ucf101", "data/ucf101/"),
        ("data manifest --dataset ucf101", "data/ucf101/manifest.parquet"),
        ("data frames --dataset ucf101 --shard 0", "data/ucf101/frames/shard-0"),
        ("tables", "results/tiny/tables/"),
    ],
)
def test_no_permission(command, named, open_bench):
    if os.geteuid():
        subprocess.run(["chmod", "-R", "a-w", str(open_bench.folder)], check=True)
    before = open_bench.files()
    done = _as_nobody(open_bench.folder, command)
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and named in done.stderr and "Permission denied" in done.stderr
    assert touched(before, open_bench.files(), ()) == []


def test_a_file_of_another_user_is_named(open_bench):
    config = open_bench / CONFIG
    config.chmod(0o000)
    done = _as_nobody(open_bench.folder, "tables")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert done.stderr.startswith(f"error: {CONFIG}: cannot be read (Permission denied)")


def test_a_file_that_may_not_grow(bench, capfd):
    """A limit on the size of files (ulimit -f, quotas), met in the middle of a write."""
    import resource
    import signal

    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = bench.files()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        answer = call("data generate --dataset ucf101", capfd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert answer.code == 1, answer
    assert answer.lines == [
        "error: local/UCF101.zip: cannot be written (File too large); make room there and run again"
    ]
    assert touched(before, bench.files(), ()) == []


@pytest.mark.parametrize(
    ("path", "content", "command"),
    [
        ("results/tiny/mlflow/ready.json", b"{", f"train {CELL} --seed 0"),
        ("results/tiny/mlflow/ready.json", b"[1]", f"train {CELL} --seed 0"),
        ("results/tiny/state/training/ucf101/linear/seed0.pt", b"half a state", f"train {CELL} --seed 0"),
        ("results/tiny/state/training/ucf101/linear/seed0.pt", b"", f"train {CELL} --seed 0"),
    ],
)
def test_damaged_caches_heal_by_themselves(path, content, command, bench, capfd):
    predictions = bench / "results/tiny/predictions/ucf101/linear/seed0.parquet"
    expected = predictions.read_bytes()
    (bench / path).parent.mkdir(parents=True, exist_ok=True)
    (bench / path).write_bytes(content)
    answer = call(command, capfd)
    assert answer.code == 0, answer
    assert predictions.read_bytes() == expected


def test_a_job_that_has_no_room_for_its_notes_is_the_same_command(tmp_path):
    (tmp_path / "config.yaml").write_text("name: 7\n")
    (tmp_path / "logs").mkdir()
    call = [sys.executable, "-m", "ssp.jobs.run", "logs/job.log", "params", "--config"]
    with full_disk(tmp_path / "logs"):
        for config, code, lines in ((ROOT / "config/demo.yaml", 0, 0), ("config.yaml", 1, 1)):
            done = subprocess.run([*call, str(config)], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == code and len(done.stderr.splitlines()) == lines, done.stderr
