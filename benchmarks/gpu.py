"""One session with a GPU, of less than nine minutes: whether its kernels are right, what they bring, and the targets.

- Stages: versions and ceilings; parity of scan and convolution with float64, on memory full of NaN and twice with equal
  bits; both beside mamba-ssm's kernels, PyTorch and the bounds of the hardware; optimizer steps of VideoMamba-Middle
  beside the published arrangement; `fit` fed from a frame store; loss and gradient of the first step beside the CPU's;
  the tests that want a GPU; a training killed and resumed; one pass through the profiler; constants of
  `ssp/scan/triton` against others, as the choice was made without a GPU.
- Each stage is a process of its own with a limit, and its rows are in gpu.json as soon as they are known; whatever
  fails, hangs or crashes the GPU's context, the others go on. One that lacks a package says so.
- mamba-ssm's kernels (where `selective_scan_cuda` is installed: environment.cuda.post-deploy.sh) get contiguous inputs
  and no flips, the best case for them. Rounds go through all contenders in turn; medians.
- Targets: benchmarks/gpu/report.py, printed with what was found.
- `--dry`: the same code on the CPU, with Triton's interpreter at tiny sizes, into a scratch folder. Its figures mean
  nothing.

It wants PyTorch with Triton (2.11 and 3.6, or later), torchvision, NumPy, SciPy, pandas, pyarrow, Pillow, PyYAML and a
C compiler; pydantic for all that trains, lmdb, simplejpeg and rarfile for the frame store, pytest, pytest-xdist and
hypothesis for the tests; neither Optuna nor MLflow. To a machine that has the first of these and no network, carry
wheels, here for Python 3.12, with the versions of requirements.txt; `--no-deps` leaves its NumPy alone:

    to="--only-binary :all: --python-version 3.12 --dest wheels"
    pip download $to pydantic==... && pip download $to --no-deps lmdb==... simplejpeg==... rarfile==...
    pip install --no-index --find-links wheels pydantic lmdb simplejpeg rarfile                        (there)

and for mamba-ssm's kernels its source archive, to be compiled there as environment.cuda.post-deploy.sh does.

Usage: python benchmarks/gpu.py [--seconds 520] [--out FOLDER] [--only STAGE ...] [--dry], or make bench-gpu
Writes gpu.md and gpu.json to benchmarks/results/, or to FOLDER. Exit code 1 if a stage failed or a result is wrong, 2
without a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RESULTS = Path(__file__).resolve().parent / "results"
SPARE = 20  # seconds at the end, for the report and for what takes longer to end than to be told to
DRY = "DRY RUN on the CPU, in Triton's interpreter, at tiny sizes: the figures mean nothing."


class Stage(NamedTuple):
    """Rows of a table; several stages may add to one."""

    table: str
    seconds: float  # its limit
    function: str  # module of benchmarks/gpu, and name
    args: tuple = ()
    forks: bool = False  # processes that use the GPU, so that it must not do so itself

    @property
    def name(self) -> str:
        """How it is called in the report, and by --only."""
        return " ".join(map(str, (self.table, *self.args)))


STEPS = (  # method, clips (None: 16), scan
    ("ssp", None, "triton"),
    ("ssp", None, "published"),
    ("vpt", None, "triton"),
    ("full", None, "triton"),
    ("full", None, "published"),
    ("linear", None, "triton"),
    ("ssp", None, "mamba_ssm"),
    ("ssp", 2, "triton"),
    ("ssp", 2, "chunked"),
)


def stages(clips: int, dry: bool) -> list[Stage]:
    """All of them, the most important first, so that a session that ends early has those."""
    asked = [each for each in STEPS if not (dry and each[1])]  # a dry run has few clips as it is
    steps = [Stage("steps", 45, "training:step", (method, of or clips, scan)) for method, of, scan in asked]
    ours, others = steps[:4], steps[4:]
    return [
        Stage("machine", 60, "machine:machine"),
        Stage("parity", 90, "scans:parity"),
        Stage("conv", 60, "scans:conv"),
        Stage("times", 60, "scans:times"),
        *ours,
        Stage("fed", 90, "feeding:fed"),
        Stage("loss", 90, "training:loss"),
        Stage("tests", 100, "machine:tests"),
        Stage("resumed", 90, "feeding:resumed", forks=True),
        Stage("profile", 45, "training:profile"),
        *others,
        Stage("variants", 60, "scans:variants"),
    ]


def work(stage: Stage, dry: bool) -> Iterator[dict]:
    """What a stage does, in its process."""
    from benchmarks.gpu.device import Device

    device = Device(dry)
    if not stage.forks:
        device.set_up()
    module, _, function = stage.function.partition(":")
    yield from getattr(import_module(f"benchmarks.gpu.{module}"), function)(device, *stage.args)


def usable(dry: bool) -> Iterator[dict]:
    """Whether there is what the stages need; in a process of its own, as asking touches the GPU."""
    import torch

    from ssp.scan import triton

    reason = triton.unavailable()
    if not (reason or dry or torch.cuda.is_available()):
        reason = "PyTorch sees no CUDA device"
    yield {"reason": reason}


def main() -> int:
    """Measure stage by stage; 1 if one failed or a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=520, help="for all stages together")
    parser.add_argument("--out", type=Path, help="folder of gpu.md and gpu.json")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="names of stages, or of tables")
    parser.add_argument("--dry", action="store_true", help="on the CPU; its figures mean nothing")
    args = parser.parse_args()
    begun = time.monotonic()
    if args.dry:
        print(DRY, flush=True)
        os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}  # read when triton is imported
    from benchmarks.gpu import apart, report
    from benchmarks.gpu.device import TINY, Sizes

    for module in ("scans", "training", "feeding"):  # once, for the processes of all stages, which say what is wrong
        with suppress(Exception):
            import_module(f"benchmarks.gpu.{module}")
    answers: list[dict] = []
    problem = apart.run(partial(usable, args.dry), 60, answers.append)
    if problem or answers[0]["reason"]:
        print(f"benchmarks/gpu.py needs an NVIDIA GPU: {problem or answers[0]['reason']}")
        return 2
    out = args.out or (Path(tempfile.mkdtemp(prefix="gpu-dry-")) if args.dry else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    clips = (TINY if args.dry else Sizes()).clips
    found: dict = {"dry": args.dry, "tables": {}, "stages": {}}
    for stage in stages(clips, args.dry):
        if args.only and not {stage.name, stage.table} & set(args.only):
            continue
        rows = found["tables"].setdefault(stage.table, [])

        def keep(row: dict, rows: list[dict] = rows) -> None:
            rows.append(row)
            (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")

        left, start = args.seconds - SPARE - (time.monotonic() - begun), time.monotonic()
        problem = "left out: no time was left"
        if left > 5:
            limit = min(stage.seconds * (3 if args.dry else 1), left)  # a busy CPU is slow
            problem = apart.run(partial(work, stage, args.dry), limit, keep)
        found["stages"][stage.name] = {"seconds": round(time.monotonic() - start, 1), "problem": problem}
        print(f"{stage.name}: {problem or 'done'} ({time.monotonic() - start:.0f} s)", flush=True)
        found["seconds"] = round(time.monotonic() - begun, 1)
        (out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / "gpu.md").write_text(report.text(found))
    print(report.text(found), f"Wrote {out / 'gpu.md'} and gpu.json", sep="\n")
    return 1 if report.wrong(found) else 0


if __name__ == "__main__":
    sys.exit(main())
