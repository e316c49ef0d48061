"""A command with all its processes: wall and processor time, and the memory of each at its peak.

- Memory is the high-water mark in /proc/<pid>/status, looked at every 20 ms while a process lives. What getrusage
  reports instead includes the parent's size at the moment of the start, since Linux keeps that figure over an exec.
- Resident memory counts shared libraries in each process that has them, so the sum is an upper bound.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INTERVAL = 0.02


def run(command: list, folder: Path, environment: dict[str, str]) -> tuple[dict, str]:
    """Run a command in a folder; leave with its output if it fails.

    Returns:
        wall_s; processor_s (children that were waited for included); peaks_mb of every process, in order of start;
        peak_mb, their sum. And what it said.
    """
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT
        )
        while True:
            for pid in _descendants(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), _high_water_mb(pid))
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            time.sleep(INTERVAL)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        words = said.read()
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{words}")
    found = {"wall_s": wall, "processor_s": used.ru_utime + used.ru_stime}
    return found | {"peaks_mb": list(peaks.values()), "peak_mb": sum(peaks.values())}, words


def _descendants(pid: int) -> list[int]:
    """A process, its children, theirs and so on; children belong to the thread that started them."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (thread / "children").read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            found += _descendants(int(child))
    return found


def _high_water_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
