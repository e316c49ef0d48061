"""Build the C kernels: `python -m ssp.scan.build`.

- One shared library, loaded through ctypes: no PyTorch headers, so it does not depend on PyTorch's version, and builds
  in seconds.
- It lies beside this file (a wheel brings it; `make` and the workflow build it there) or in the user's cache, where
  the first use builds a missing one, and this command does if the folder of this file may not be written.
- scan.c and convolution.c are compiled once per instruction set and one is chosen at run time, so that a library built
  on one node of a cluster runs on all. Never -march=native. Never -ffast-math: it folds the rounding trick of the exp.
- The library's name carries a hash of sources, flags and machine: a stale build is never loaded. It is written under
  a temporary name and renamed, so that parallel builds do no harm; in the cache a lock lets one build and others wait.
- A missing or failing compiler is a loud warning and exit code 0: the scan then runs in `chunked` PyTorch.
- Standard library only, no PyTorch, nothing of this package: it runs inside `make`, in setup.py and at the start of a
  workflow.
"""

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


def cache_folder() -> Path:
    """Where libraries of this user lie: $XDG_CACHE_HOME/ssp-benchmark, by default ~/.cache/ssp-benchmark."""
    places = (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"))
    base = next(filter(os.path.isabs, places), os.devnull)  # without a home: nothing is there, nor can be written
    return Path(base) / "ssp-benchmark"


def library(target_dir: Path | None = None) -> Path:
    """Return where the library of these very sources lies, or would lie, in a folder; by default beside this file."""
    digest = hashlib.sha256(repr((FLAGS, VARIANTS, platform.machine(), sys.platform)).encode())
    for name in FILES:
        digest.update((SOURCES / name).read_bytes())
    return Path(target_dir or SOURCES) / f"_selective_scan_{digest.hexdigest()[:12]}.so"


def find() -> Path | None:
    """The library of these very sources: beside this file, else in the user's cache, else None."""
    return next((path for path in (library(), library(cache_folder())) if path.exists()), None)


def is_built(target_dir: Path | None = None) -> bool:
    """Whether there is a library of these very sources, in a folder or (by default) where `find` looks."""
    return library(target_dir).exists() if target_dir else find() is not None


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
    """Compile the library unless it is there, return its path.

    By default it goes beside this file, where older ones are removed, or into the user's cache if that folder may not
    be written. Raises BuildError when there is no working compiler, or no folder to write to.
    """
    if target_dir is None:
        if found := find():
            return found
        if not os.access(SOURCES, os.W_OK):
            return build_in_cache()
    target = library(target_dir)
    if not target.exists():
        _compile(target)
    for old in target.parent.glob("_selective_scan_*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    return target


def build_in_cache() -> Path:
    """Compile the library into the user's cache unless it is there; one process does, others wait for it.

    Nothing is removed there, as another copy of this software may use it. Raises BuildError as `build`.
    """
    target = library(cache_folder())
    if not target.exists():
        with _only_one(target.parent):
            if not target.exists():
                _compile(target)
    return target


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a lock in a folder. Where there are no locks (some network disks) several may build: no harm, lost time."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((folder / ".lock").open("wb")), fcntl.LOCK_EX)
        yield


def _compile(target: Path) -> None:
    """Compile and link into `target`, which appears when it is complete."""
    command = compiler()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that it can be renamed; and a folder that may not be written is found out at once.
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
            objects = []
            units = [("entry.c", "entry", ())] + [
                (f"{kernel}.c", f"{kernel}_{variant}", (f"-DVARIANT={variant}", *flags))
                for kernel in KERNELS
                for variant, flags in VARIANTS.items()
            ]
            for source, name, extra in units:
                objects.append(f"{folder}/{name}.o")
                _run([*command, *FLAGS, *extra, "-c", str(SOURCES / source), "-o", objects[-1]])
            _run([*command, "-shared", *objects, "-o", f"{folder}/library", "-lpthread"])
            os.replace(f"{folder}/library", target)
    except OSError as error:
        raise BuildError(f"{error.filename or target}: cannot be written ({error.strerror})") from error


def main() -> None:
    """Build, and say what happened; never fails."""
    try:
        print(f"scan kernel: {build()}")
    except BuildError as error:
        rule = "=" * 78
        print(
            f"{rule}\nWARNING: the C scan kernel could not be built; scans on a CPU will run in plain PyTorch,\n"
            f"many times slower. Install a C compiler and run `python -m ssp.scan.build` again.\n{error}\n{rule}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
