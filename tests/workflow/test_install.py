"""What somebody gets who installs this: from a wheel, editable, without a compiler, or a clone that is read-only."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.quick_compiler import COMPILERS, quick_compiler
from tests.workflow.running import ROOT, TINY

SOURCES = ("ssp", "baselines", "pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
WORKFLOW = ("Snakefile", "workflow", "config", "profiles", "environment.yml", "environment.cuda.yml")
METHODS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ssp.methods"])
installs = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pip", "setuptools"))), reason="needs pip and setuptools to build with"
)
compiles = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C compiler here")
# Asked for outside the repository: what is installed, what it chose, what it calls its commit.
QUESTIONS = (
    "import ssp, ssp.scan as s, ssp.methods.registry as m, ssp.records.record as r; print(ssp.__file__);"
    "print(*s.available_backends()); print(*m.method_names()); [m.load_method(name) for name in m.method_names()];"
    "print(r.git_state().commit)"
)


def copy_of(names, folder: Path) -> Path:
    """The named files and folders of the repository, without what was built there."""
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    folder.mkdir()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore, symlinks=True)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(command, folder: Path, **changes: str) -> str:
    """Output of a command that succeeds, in an environment that knows nothing of the repository."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CC")} | changes
    env |= {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, folder: Path, **changes: str) -> None:
    """Nothing is downloaded: the packages that it depends on are there."""
    common = ("--quiet", "--disable-pip-version-check", "--no-input")
    run([sys.executable, "-m", "pip", *common, *arguments, "--no-deps"], folder, **changes)


def environment(folder: Path) -> Path:
    """A new environment that sees the packages of this one, itself inside somebody else's repository."""
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    subprocess.run(
        ["git", "-C", str(folder), *who, "commit", "--quiet", "--allow-empty", "--message", "theirs"], check=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel made from a clean copy, in which an earlier build left a module that is no more."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = copy_of(SOURCES, folder / "sources")
    left = sources / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}" / "ssp"
    left.mkdir(parents=True)
    (left / "removed.py").touch()
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, sources, folder=folder)
    return next(folder.glob("*.whl"))


@installs
@compiles
@pytest.mark.slow
def test_a_wheel_brings_the_compiled_scan_the_command_and_the_methods(wheel, tmp_path):
    assert wheel.stem.split("-")[2:4] == ["py3", "none"] and not wheel.stem.endswith("-any")
    venv = environment(tmp_path)
    pip("--python", venv / "bin/python", "install", "--no-index", wheel, folder=tmp_path)
    package = next(venv.glob("lib/python*/site-packages/ssp"))
    module, backends, methods, commit = run([venv / "bin/python", "-c", QUESTIONS], tmp_path, CC="false").splitlines()
    assert Path(module) == package / "__init__.py"
    assert backends.split()[0] == "cpu"
    assert methods.split() == METHODS
    assert commit == "unknown"
    assert not (tmp_path / "cache/ssp-benchmark").exists() and not (package / "removed.py").exists()
    assert "Usage: ssp" in run([venv / "bin/ssp", "--help"], tmp_path)
    assert "2,418,274" in run([venv / "bin/ssp", "params"], tmp_path, COLUMNS="200")


@installs
@compiles
@pytest.mark.slow
def test_an_editable_install_has_the_compiled_scan(tmp_path):
    venv, sources = environment(tmp_path), copy_of(SOURCES, tmp_path / "sources")
    pip(
        *("--python", venv / "bin/python", "install", "--no-index", "--no-build-isolation", "--editable", sources),
        folder=tmp_path,
        CC=quick_compiler(tmp_path / "cc"),
    )
    assert len(list((sources / "ssp/scan").glob("*.so"))) == 1
    module, backends, methods, commit = run([venv / "bin/python", "-c", QUESTIONS], tmp_path, CC="false").splitlines()
    assert Path(module) == sources / "ssp/__init__.py"
    assert "cpu" in backends.split() and methods.split() == METHODS and commit == "unknown"
    assert "Usage: ssp" in run([venv / "bin/ssp", "--help"], tmp_path)


@installs
@pytest.mark.slow
def test_a_wheel_made_without_a_compiler_fits_everywhere(tmp_path):
    sources = copy_of(SOURCES, tmp_path / "sources")
    pip("wheel", "--no-build-isolation", "--wheel-dir", tmp_path, sources, folder=tmp_path, PATH="")
    assert next(tmp_path.glob("*.whl")).stem.endswith("-py3-none-any")


@installs
@compiles
@pytest.mark.slow
def test_a_source_distribution_builds(tmp_path):
    sources = copy_of(SOURCES, tmp_path / "sources")
    code = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    run([sys.executable, "-c", code], sources)
    (tmp_path / "unpacked").mkdir()
    run(["tar", "-xf", next(tmp_path.glob("*.tar.gz")), "-C", tmp_path / "unpacked"], tmp_path)
    unpacked = next((tmp_path / "unpacked").iterdir())
    for name in ("requirements.txt", "LICENSE", "setup.py", "ssp/scan/kernel.h", "ssp/scan/scan.c"):
        assert (unpacked / name).is_file(), name
    pip(
        "wheel",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        unpacked,
        folder=tmp_path,
        CC=quick_compiler(tmp_path / "cc"),
    )
    assert len(list(tmp_path.glob("*.whl"))) == 1


@compiles
@pytest.mark.workflow
@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_a_read_only_clone_runs_elsewhere(snakefile, tmp_path):
    clone, elsewhere = copy_of((*SOURCES, *WORKFLOW), tmp_path / "clone"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    without_rights = []
    if os.geteuid() == 0:
        without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        if not shutil.which("setpriv") or subprocess.run([*without_rights, "true"], capture_output=True).returncode:
            pytest.skip("root may write anywhere here, and cannot give that up")
    subprocess.run(["chmod", "-R", "a-w", str(clone)], check=True)
    where = ["--snakefile", clone / snakefile, "--directory", elsewhere]
    command = [*without_rights, sys.executable, "-m", "snakemake", *where, "--configfile", TINY, "--cores", "1"]
    compiler = quick_compiler(tmp_path / "cc")
    try:
        if snakefile != "Snakefile":  # which includes this one
            run([*command, "--dry-run", "results/tiny/scan.done"], tmp_path, CC=compiler)
            assert not (elsewhere / "results").exists()
            return
        run([*command, "results/tiny/scan.done"], tmp_path, CC=compiler)
        assert "scan kernel" in (elsewhere / "results/tiny/logs/build_scan.log").read_text()
        assert len(list((tmp_path / "cache/ssp-benchmark").glob("*.so"))) == 1
        # As after an update: `onstart` builds anew, and rules stay done.
        shutil.rmtree(tmp_path / "cache/ssp-benchmark")
        run([*command, "data/tiny/ucf101/generated.done"], tmp_path, CC=compiler)
        assert len(list((tmp_path / "cache/ssp-benchmark").glob("*.so"))) == 1
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(clone)], check=True)
