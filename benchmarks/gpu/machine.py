"""What the figures depend on, the two speeds that bound a scan, and the tests that want a GPU."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu.device import HALF, Device
from ssp.scan import mamba_ssm

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "pandas", "pydantic", "lmdb", "simplejpeg", "pillow", "pytest", "hypothesis", "optuna", "mlflow")


def machine(device: Device) -> Iterator[dict]:
    """Versions, and ceilings: bytes a copy moves, exponentials and products of matrices a second."""
    import triton as package
    import triton.language as tl

    @package.jit
    def exponentials(out, rounds, SIZE: tl.constexpr):
        x = tl.arange(0, SIZE) * 0.0001
        for _ in range(rounds):
            x = tl.exp2(-x)
        tl.store(out + tl.program_id(0) * SIZE + tl.arange(0, SIZE), x)

    about, sizes = device.about(), device.sizes
    source = torch.ones(sizes.copied, device=device.torch)
    target = torch.empty_like(source)
    one, other = torch.randn(2, sizes.product, sizes.product, device=device.torch).to(HALF)
    programs = about["multiprocessors"] * 16
    out = torch.empty(programs * 1024, device=device.torch)
    contenders = {
        "copy": lambda: target.copy_(source),
        "exponentials": lambda: exponentials[(programs,)](out, sizes.exponentials, SIZE=1024),
        "product": lambda: one @ other,
    }
    found = device.milliseconds(contenders, 5)
    yield {
        **about,
        **{"python": platform.python_version(), "torch": torch.__version__, "triton": package.__version__},
        "mamba_ssm": mamba_ssm.unavailable() or "available",
        "packages": {name: _version(name) for name in PACKAGES},
        "processors": len(os.sched_getaffinity(0)),
        "bytes_per_second": 2 * source.numel() * source.element_size() / found["copy"] * 1000,
        "exponentials_per_second": programs * 1024 * sizes.exponentials / found["exponentials"] * 1000,
        "flops_per_second": 2 * sizes.product**3 / found["product"] * 1000,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def tests(device: Device) -> Iterator[dict]:
    """Those marked `gpu`, file by file; a dry run, where they skip themselves, takes the first file."""
    import pytest  # noqa: F401 - says at once if it is not there

    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text())
    environment = {name: value for name, value in os.environ.items() if name != "SSP_SCAN_BACKEND"}
    for path in files[:1] if device.dry else files:
        name = str(path.relative_to(ROOT))
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-1000:], sep="\n")
        last = done.stdout.strip().splitlines()[-1:]
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", *last)}
        yield {"file": name, "exit_code": done.returncode, "counts": counts}
