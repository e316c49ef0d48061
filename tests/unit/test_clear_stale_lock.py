"""The lock of a killed Snakemake goes away by itself; the lock of a living one stays."""

import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssp.files import SILENT_S

SCRIPT = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "clear_stale_lock.py"
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")


@pytest.fixture
def lock(tmp_path) -> Path:
    path = tmp_path / ".snakemake" / "locks" / "0.input.lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def _clear(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True)


def test_a_stale_lock_is_removed(lock, tmp_path):
    done = _clear(tmp_path)
    assert done.returncode == 0
    assert "Removed the lock" in done.stdout
    assert not lock.exists()


@pytest.mark.parametrize("command", [["-m", "snakemake_like"], ["-m", "ssp_like"]])
def test_a_lock_is_kept_while_a_run_or_its_orphaned_job_lives(lock, tmp_path, command):
    (tmp_path / f"{command[1]}.py").write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, *command], cwd=tmp_path)
    try:
        time.sleep(0.3)
        done = _clear(tmp_path)
        assert done.returncode == 1
        assert str(process.pid) in done.stderr
        assert lock.exists()
    finally:
        process.kill()
        process.wait()


def test_a_run_in_another_folder_does_not_matter(lock, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "snakemake_like.py").write_text("import time; time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-m", "snakemake_like"], cwd=elsewhere)
    try:
        time.sleep(0.3)
        assert _clear(tmp_path).returncode == 0
        assert not lock.exists()
    finally:
        process.kill()
        process.wait()


def test_no_lock_no_words(tmp_path):
    done = _clear(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(("silent_s", "kept"), [(0, True), (300, False)])
def test_a_lock_is_kept_while_a_training_on_another_machine_lives(lock, tmp_path, silent_s, kept):
    holder = tmp_path / "results/demo/state/leases/records/ssv2/ssp/seed0.json/holder"
    holder.parent.mkdir(parents=True)
    holder.write_text("process 17 on node3, batch job 4711")
    os.utime(holder, (0, time.time() - silent_s))
    done = _clear(tmp_path)
    assert (done.returncode, lock.exists()) == ((1, True) if kept else (0, False))
    if kept:
        place = "results/demo/state/leases/records/ssv2/ssp/seed0.json"
        assert f"process 17 on node3, batch job 4711 ({place})" in done.stderr


@pytest.mark.parametrize(
    ("name", "job", "kept"),
    [("{}", "", False), ("{}", ", batch job 4711", False), ("{}0", "", True), ("{}0", ", batch job 4711", True)],
)
def test_a_machine_whose_name_begins_as_this_one_s_is_another(lock, tmp_path, name, job, kept):
    holder = tmp_path / "results/demo/state/leases/records/ssv2/ssp/seed0.json/holder"
    holder.parent.mkdir(parents=True)
    holder.write_text(f"process 17 on {name.format(socket.gethostname())}{job}")
    done = _clear(tmp_path)
    assert (done.returncode, lock.exists()) == ((1, True) if kept else (0, False))


def test_a_lease_that_is_given_back_meanwhile_does_not_hide_another(tmp_path, monkeypatch):
    """Neither the lease itself nor the folder of drafts, which goes with it."""
    leases = tmp_path / "results/demo/state/leases/records/ssv2/ssp"
    for name in ("seed0.json", "seed1.json", "seed2.json"):
        (leases / name / "draft").mkdir(parents=True)
        (leases / name / "holder").write_text("process 17 on node3")
    scandir, read_text = os.scandir, Path.read_text

    def scandir_late(path):
        if Path(path).name == "draft":
            Path(path).rmdir()
        return scandir(path)

    def read_late(path, **how):
        if path.parent.name == "seed1.json":
            path.unlink()
        return read_text(path, **how)

    monkeypatch.setattr(os, "scandir", scandir_late)
    monkeypatch.setattr(Path, "read_text", read_late)
    found = runpy.run_path(str(SCRIPT))["running_elsewhere"](tmp_path)
    place = leases.relative_to(tmp_path)
    assert sorted(found) == [f"process 17 on node3 ({place / name})" for name in ("seed0.json", "seed2.json")]


def test_it_waits_as_long_as_leases_do():
    assert f"SILENT_S = {SILENT_S}" in SCRIPT.read_text()
