"""Removes the lock that a killed Snakemake left in this folder, unless something is still running here.

Snakemake's lock does not name its process, so the processes of this machine are asked (Linux: /proc): any snakemake,
and any job that outlived it, whose working directory is this one. Sweeps and trainings on other machines are known by
their leases (ssp/jobs/lease.py), which they touch while they live. On other systems the lock is left as it is.
"""

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

SILENT_S = 180.0  # ssp.files.SILENT_S; this runs before anything is installed


def running_here(folder: Path, proc: Path = Path("/proc")) -> list[str]:
    """Process ids and commands of snakemake and its jobs in a folder."""
    found = []
    for process in proc.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            here = (process / "cwd").resolve() == folder
        except OSError:
            continue  # it has ended, or is another user's
        program = " ".join(command[:3])
        if here and ("snakemake" in program or "-m ssp" in program):
            found.append(f"{process.name} ({' '.join(command).strip()[:100]})")
    return found


def running_elsewhere(folder: Path) -> list[str]:
    """Holders of leases on other machines that have given a sign of life."""
    found = []
    for leases in folder.glob("results/*/state/leases"):
        for place, _, files in os.walk(leases):  # unlike a glob it goes on where a folder of a job that ends is gone
            if "holder" not in files:
                continue
            holder = Path(place) / "holder"
            with suppress(FileNotFoundError):  # given back meanwhile
                whose, touched = holder.read_text(encoding="utf-8"), holder.stat().st_mtime
                if _host(whose) != socket.gethostname() and time.time() - touched < SILENT_S:
                    found.append(f"{whose} ({Path(place).relative_to(folder)})")
    return found


def _host(whose: str) -> str:
    """Of "process 7 on node1, batch job 42", as ssp/jobs/lease.py writes it."""
    return whose.partition(" on ")[2].partition(",")[0]


def main(folder: Path) -> str | None:
    """Remove a stale lock; returns an error message when the lock is someone's."""
    locks = sorted((folder / ".snakemake" / "locks").glob("*.lock"))
    if not locks or not Path("/proc").is_dir():
        return None
    if running := running_here(folder.resolve()) + running_elsewhere(folder.resolve()):
        return f"Error: a run is going on in this folder: {'; '.join(running)}. Wait for it, or end it first."
    for lock in locks:
        lock.unlink(missing_ok=True)
    print("== Removed the lock of a run that was killed; what it had finished is kept")
    return None


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
