"""Something-Something V2 in its published size, with stand-ins for the videos: manifest, memory, dry run.

- 220,847 .webm files that are hard links of a few small ones, all of them in the lists (the published test videos have
  no labels; here they count as validation, so that the manifest has as many rows as there are files).
- Manifest: seconds and peak memory (sum of its processes) of `ssp data manifest`; hashing is measured apart, on the
  same files. Target: 60 s besides hashing, on two cores.
- Dry run of config/paper.yaml. Targets: 20 s, 1 GiB.
- Wall time and processor time: on a machine that others use, wall time is theirs too.

Usage: python benchmarks/data_scale.py [--share 1.0] [--threads 2]
Writes benchmarks/results/data_scale.md and data_scale.json.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import yaml
from processes import run
from scan import machine, write

from ssp.config import load_config, parse_config
from ssp.data.sources import VIDEO_SUFFIXES
from ssp.files import file_sha256
from ssp.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
TRAIN, TEST, CLASSES = 168_913, 24_777 + 27_157, 174
LINKS = 5_000  # of one file; file systems allow some ten thousand
FRAMES = 45  # a usual length


def stand_in(path: Path) -> bytes:
    """A VP9 video of 45 frames, 64x48."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=12, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((48, 64, 3), 5 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def prepare(folder: Path, share: float, threads: int) -> Path:
    """Unpacked archives of the data set, and a config; returns the config's path."""
    train, test = round(share * TRAIN), round(share * TEST)
    plain = load_config(ROOT / "config" / "paper.yaml").model_dump(mode="json")
    plain["data_root"], plain["datasets"] = str(folder / "data"), {"ssv2": plain["datasets"]["ssv2"]}
    plain["datasets"]["ssv2"]["expected"] = {"classes": CLASSES, "train": train, "test": test}
    plain["compute"]["data"]["threads"] = threads
    paths = Paths.of(parse_config(plain, "benchmark"))
    root = paths.videos("ssv2")
    videos = root / "20bn-something-something-v2"
    videos.mkdir(parents=True)
    content, first = stand_in(folder / "stand-in.webm"), videos
    for number in range(1, train + test + 1):
        path = videos / f"{number}.webm"
        if number % LINKS == 1:
            path.write_bytes(content)
            first = path
        else:
            os.link(first, path)
    templates = [f"Moving something number {i}" for i in range(CLASSES)]
    rows = [
        {"id": str(i), "label": "", "template": templates[i % CLASSES].replace("something", "[something]")}
        for i in range(1, train + test + 1)
    ]
    lists = {
        "labels.json": {template: str(i) for i, template in enumerate(templates)},
        "train.json": rows[:train],
        "validation.json": rows[train:],
    }
    for name, data in lists.items():
        (root / name).write_text(json.dumps(data))
    members = sorted([f"20bn-something-something-v2/{row['id']}.webm" for row in rows] + list(lists))
    paths.unpacked("ssv2").write_text(json.dumps({"members": [[name, 0] for name in members]}))
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    return folder / "config.yaml"


def hash_all(folder: Path, threads: int) -> dict[str, float]:
    """Seconds of reading and hashing every video, as the manifest does it."""
    files = [path for path in folder.rglob("*") if path.suffix in VIDEO_SUFFIXES]

    start, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        count = sum(1 for _ in pool.map(file_sha256, files))
    return {"files": count, "wall_s": time.perf_counter() - start, "processor_s": time.process_time() - processor}


def table(found: dict) -> str:
    """The result as Markdown."""
    box, manifest, hashing, plan = (found[name] for name in ("machine", "manifest", "hashing", "dry_run"))
    rows = (
        (f"manifest of {found['rows']} videos, {box['threads']} processes read headers", manifest),
        ("of that, hashing", hashing | {"peak_mb": None}),
        (f"dry run of config/paper.yaml, {plan['jobs']} jobs", plan),
    )
    lines = [
        "# Something-Something V2 in its published size",
        "",
        f"{box['processor']}, {box['cores']} cores shared with other work (load average before: {box['load_before']}).",
        "",
        "| | wall s | processor s | peak MB |",
        "|---|---|---|---|",
    ]
    for name, row in rows:
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(f"| {name} | {row['wall_s']:.1f} | {row['processor_s']:.1f} | {peak} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the published number of videos")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    found = {"machine": machine(args.threads, "wall"), "rows": round(args.share * TRAIN) + round(args.share * TEST)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = prepare(folder, args.share, args.threads)
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ssp", "data", "manifest", "--config", config, "--dataset", "ssv2"]
        found["manifest"], _ = run(command, folder, environment)
        found["hashing"] = hash_all(folder / "data", args.threads)
        snakemake = [sys.executable, "-m", "snakemake", "-n", "--snakefile", ROOT / "Snakefile", "--directory", folder]
        found["dry_run"], said = run([*snakemake, "--configfile", ROOT / "config" / "paper.yaml"], folder, environment)
    jobs = re.search(r"^total +(\d+)$", said, re.MULTILINE)
    found["dry_run"]["jobs"] = int(jobs[1]) if jobs else None
    write("data_scale", found, table(found))


if __name__ == "__main__":
    main()
