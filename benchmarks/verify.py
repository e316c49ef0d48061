"""How long does `ssp verify` read the predictions of config/paper.yaml? One file of full size, and arithmetic.

- The file is of the size of Something-Something V2: 24,777 videos, 18 views, 174 random logits. It is made up in a
  temporary folder and removed. A process of its own proves, decodes and merges it, time after time as if these were
  many files; the first time is the slowest.
- The whole by arithmetic, from the bytes of all runs: views of each data set's test list times classes. Shared out to
  cores as `ssp verify` does, as if disk and memory kept up.

Usage: python benchmarks/verify.py
Writes benchmarks/results/verify.md and .json; about a minute.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scan import machine, write

from ssp.config import load_config
from ssp.files import file_sha256
from ssp.records.predictions import SCHEMA, merge_views, recorded_predictions

CONFIG = Path(__file__).resolve().parent.parent / "config/paper.yaml"
DATASET = "ssv2"
CORES = (1, 2, 8, 16)
TIMES = 6


def make(path: Path, videos: int, views: int, classes: int) -> None:
    """Write predictions as an evaluation does."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.sort([f"{number}.webm" for number in rng.permutation(220_847)[:videos]]), views)
    labels, numbers = np.repeat(rng.integers(0, classes, videos), views), np.tile(np.arange(views), videos)
    logits = rng.normal(0, 3, (len(ids), classes)).astype(np.float32)
    rows = pd.DataFrame({"id": ids, "group": ids, "label": labels, "view": numbers, "logits": list(logits)})
    pq.write_table(pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False), path, compression="zstd")


def read(path: str, sha256: str) -> None:
    """Prove and merge a file several times; print what it took."""
    taken = []
    for _ in range(TIMES):
        wall, cpu = time.perf_counter(), time.process_time()
        merge_views(recorded_predictions(path, sha256, ""))
        taken.append({"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu})
    print(json.dumps({"taken": taken, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))


def main() -> None:
    """Make, read, reckon, write."""
    config, about = load_config(CONFIG), machine(1, "wall")

    def logits(dataset: str) -> tuple[int, int, int]:
        expected, clips = config.datasets[dataset].expected, config.datasets[dataset].clips
        return expected.test, clips.test_segments * clips.test_crops, expected.classes

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed0.parquet"
        make(path, *logits(DATASET))
        size, sha256 = path.stat().st_size, file_sha256(path)
        words = [sys.executable, __file__, str(path), sha256]
        found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    runs = config.runs()
    files = sum(np.prod(logits(dataset)) for dataset, _, _ in runs) / np.prod(logits(DATASET))
    first, *others = found["taken"]
    later = {clock: statistics.median(time[clock] for time in others) for clock in first}
    whole = {cores: later["s"] * files / cores for cores in CORES}
    text = f"""# `ssp verify` and the predictions of config/paper.yaml

One file of {DATASET}, {size / 1e6:.0f} MB, proven, decoded and merged by one core of {about["processor"]}
(load before: {about["load_before"]}).

| | s | s of processor time |
| --- | ---: | ---: |
| first file of a process | {first["s"]:.2f} | {first["cpu_s"]:.2f} |
| further ones, median of {len(others)} | {later["s"]:.2f} | {later["cpu_s"]:.2f} |

Memory at the peak: {found["peak_gb"]:.2f} GB, with what this benchmark imports beside (torch).
All {len(runs)} runs have {files * size / 1e9:.0f} GB, as much as {files:.0f} such files.
By arithmetic, from a further file's seconds:

| cores | s |
| ---: | ---: |
{chr(10).join(f"| {cores} | {seconds:.0f} |" for cores, seconds in whole.items())}

Not in it: start of processes, checksums of SHA256SUMS, tables and figures.
"""
    write("verify", {"machine": about, "bytes": size, **found, "files": float(files), "whole_s": whole}, text)


if __name__ == "__main__":
    if sys.argv[1:]:
        read(*sys.argv[1:])
    else:
        main()
