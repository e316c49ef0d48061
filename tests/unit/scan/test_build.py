"""Where the compiled scan is built, looked for and kept; and what is said when it cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ssp.scan import build
from tests.quick_compiler import COMPILERS, quick_compiler

ROOT = Path(__file__).parents[3]
compiles = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C compiler here")
SCAN = (
    "import sys; sys.path.insert(0, '.'); import torch, ssp.scan as s; print(s.__file__); print(s.choose_backend());"
    "s.selective_scan(*[torch.ones(1, 2, 3)] * 2, -torch.ones(2, 1), *[torch.ones(1, 1, 3)] * 2)"
)


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """Folder with a copy of the package that was never built, for a user with an empty cache."""
    shutil.copytree(ROOT / "ssp", tmp_path / "ssp", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


def run(folder, *arguments, before=(), **env):
    """Run Python in a folder; `before` is a program that runs it."""
    command = [*before, sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=120)


def libraries(folder):
    """Folders, from `folder` on, in which there is a library."""
    return [str(path.parent.relative_to(folder)) for path in folder.rglob("*.so")]


def test_the_build_needs_no_torch():
    done = run(ROOT, "-c", "import sys, ssp.scan.build as b; b.is_built(); sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_importing_the_scan_needs_no_compiler_and_compiles_nothing(copy):
    done = run(copy, "-c", SCAN.split("print(s.choose")[0])
    assert done.stdout.startswith(str(copy)), done.stderr
    assert libraries(copy) == []


@pytest.mark.slow
@compiles
def test_the_first_use_compiles_into_the_users_cache(copy):
    done = run(copy, "-c", SCAN)
    assert done.stdout.startswith(str(copy)) and "name='cpu'" in done.stdout, done.stderr
    assert libraries(copy) == ["cache/ssp-benchmark"]
    again = run(copy, "-c", SCAN, CC="/nowhere/cc")
    assert "name='cpu'" in again.stdout and not again.stderr


@pytest.mark.slow
def test_a_use_without_a_compiler_names_the_command_and_goes_on(copy):
    done = run(copy, "-c", SCAN, PATH="", CC="/nowhere/cc")
    assert str(copy) in done.stdout and "name='chunked'" in done.stdout, done.stderr
    assert done.stderr.count("no accelerated selective scan on cpu: the C kernel is not built: /nowhere/cc") == 1
    assert "run `python -m ssp.scan.build`" in done.stderr
    assert libraries(copy) == []


@pytest.mark.slow
@compiles
def test_processes_that_start_at_once_compile_once(copy):
    compiler = quick_compiler(copy / "cc", f'echo "$@" >> {copy}/calls')
    code = "import sys; sys.path.insert(0, '.'); import ssp.scan.build as b; print(b.build_in_cache())"
    command, env = [sys.executable, "-c", code], os.environ | {"CC": compiler}
    running = [subprocess.Popen(command, cwd=copy, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=120)[0].strip() for process in running}
    assert len(said) == 1 and Path(said.pop()).exists()
    assert sum("-shared" in call for call in (copy / "calls").read_text().splitlines()) == 1
    assert sorted(path.suffix for path in (copy / "cache/ssp-benchmark").iterdir()) == ["", ".so"]  # the lock; no rest


@pytest.mark.slow
@compiles
def test_a_package_that_may_not_be_written_is_built_in_the_cache(copy):
    without_rights = []
    if os.geteuid() == 0:
        without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        if not shutil.which("setpriv") or subprocess.run([*without_rights, "true"], capture_output=True).returncode:
            pytest.skip("root may write anywhere here, and cannot give that up")
    (copy / "ssp/scan").chmod(0o555)
    done = run(copy, "-m", "ssp.scan.build", before=without_rights, CC=quick_compiler(copy / "cc"))
    (copy / "ssp/scan").chmod(0o755)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith(f"scan kernel: {copy}/cache/ssp-benchmark/")
    assert libraries(copy) == ["cache/ssp-benchmark"]


@pytest.mark.slow
@compiles
def test_the_library_beside_the_package_goes_first(copy, monkeypatch):
    monkeypatch.setattr(build, "SOURCES", copy / "ssp/scan")
    monkeypatch.setenv("CC", quick_compiler(copy / "cc"))
    cached = build.build_in_cache()
    assert build.find() == cached == build.build()
    beside = build.build(copy / "ssp/scan")
    assert build.find() == beside != cached


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert not build.library(build.cache_folder()).exists()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(build.BuildError, match="cannot be written"):
        build.build_in_cache()


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_a_missing_or_failing_compiler_is_loud_and_no_failure(copy, compiler):
    done = run(copy, copy / "ssp/scan/build.py", CC=compiler)
    assert done.returncode == 0 and "WARNING: the C scan kernel could not be built" in done.stderr
    assert compiler in done.stderr and libraries(copy) == []
    assert list(copy.rglob(".building-*")) == []


@pytest.mark.slow
@compiles
def test_build_once_and_again_when_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", quick_compiler(tmp_path / "cc"))
    sources, target = tmp_path / "sources", tmp_path / "target"
    sources.mkdir()
    for name in build.FILES:
        shutil.copy(build.SOURCES / name, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    assert not build.is_built(target)
    first = build.build(target)
    assert first.exists() and build.is_built(target) and build.build(target) == first
    with (sources / "entry.c").open("a") as file:
        file.write("/* changed */\n")
    assert not build.is_built(target)
    second = build.build(target)
    assert second != first and list(target.iterdir()) == [second]


def test_what_is_installed_is_built_for_no_processor_in_particular():
    flags = " ".join([*build.FLAGS, *(flag for variant in build.VARIANTS.values() for flag in variant)])
    assert "native" not in flags and "fast-math" not in flags
