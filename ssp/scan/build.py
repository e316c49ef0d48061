"""Build the C kernels: `python -m ssp.scan.build`.

- One shared library beside this file, loaded through ctypes: no PyTorch headers, so it does not depend on PyTorch's
  version, and builds in seconds.
- scan.c and convolution.c are compiled once per instruction set and one is chosen at run time, so that a library built
  on one node of a cluster runs on all. Never -march=native. Never -ffast-math: it folds the rounding trick of the exp.
- The library's name carries a hash of sources, flags and machine: a stale build is never loaded. It is written under
  a temporary name and renamed, so that parallel builds do no harm.
- A missing or failing compiler is a loud warning and exit code 0: the scan then runs in `chunked` PyTorch.
- Standard library only, no PyTorch: it runs inside `make` and at the start of a workflow.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FILES = ("kernel.h", "vector.h", "scan.c", "convolution.c", "entry.c")
KERNELS = ("scan", "convolution")
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math")
FLAGS += ("-ffp-contract=fast", "-Wall", "-Wno-psabi")
VARIANTS = {"base": ()}
if platform.machine() in ("x86_64", "AMD64"):
    wide = ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mprefer-vector-width=512")
    VARIANTS |= {"v3": ("-mavx2", "-mfma"), "v4": ("-mavx2", "-mfma", *wide)}


class BuildError(RuntimeError):
    """There is no C compiler, or it failed; the message is what it said."""


def library(target_dir: Path | None = None) -> Path:
    """Return where the library of these very sources lies, or would lie."""
    digest = hashlib.sha256(repr((FLAGS, VARIANTS, platform.machine(), sys.platform)).encode())
    for name in FILES:
        digest.update((SOURCES / name).read_bytes())
    return Path(target_dir or SOURCES) / f"_selective_scan_{digest.hexdigest()[:12]}.so"


def is_built(target_dir: Path | None = None) -> bool:
    """Whether there is a library of these very sources."""
    return library(target_dir).exists()


def compiler() -> list[str]:
    """Command of the C compiler: $CC, else cc, gcc or clang. BuildError when there is none."""
    wanted = os.environ.get("CC")
    if wanted:
        return shlex.split(wanted)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C compiler: neither $CC nor cc, gcc or clang is there")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr.strip()}")


def build(target_dir: Path | None = None) -> Path:
    """Compile the library unless it is there, remove older ones, return its path.

    `target_dir` is the package's own directory by default. Raises BuildError when there is no working compiler.
    """
    target = library(target_dir)
    if target.exists():
        return target
    command = compiler()
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        units = [("entry.c", "entry", ())] + [
            (f"{kernel}.c", f"{kernel}_{variant}", (f"-DVARIANT={variant}", *flags))
            for kernel in KERNELS
            for variant, flags in VARIANTS.items()
        ]
        for source, name, extra in units:
            objects.append(f"{folder}/{name}.o")
            _run([*command, *FLAGS, *extra, "-c", str(SOURCES / source), "-o", objects[-1]])
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.stem}.{os.getpid()}.tmp")
        try:
            _run([*command, "-shared", *objects, "-o", str(temporary), "-lpthread"])
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    for old in target.parent.glob("_selective_scan_*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def main() -> None:
    """Build, and say what happened; never fails."""
    try:
        print(f"scan kernel: {build()}")
    except BuildError as error:
        rule = "=" * 78
        print(
            f"{rule}\nWARNING: the C scan kernel could not be built; scans on a CPU will run in plain PyTorch,\n"
            f"about ten times slower. Install a C compiler and run `python -m ssp.scan.build` again.\n{error}\n{rule}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
