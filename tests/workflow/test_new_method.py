"""`ssp new-method` in a copy of the repository: what it writes passes the contract, lint and the tests of the docs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "drawn_up"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder, *command):
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of this checkout, its compiled scan with them, without history."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [*listed.stdout.splitlines(), *(str(path.relative_to(ROOT)) for path in ROOT.glob("ssp/scan/_*.so"))]
    for file in files:
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    return folder


def new_method(clone, *arguments):
    return run(clone, sys.executable, "-m", "ssp", "new-method", *arguments)


def texts(clone):
    return {path: path.read_bytes() for path in clone.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def written(clone):
    before = texts(clone)
    done = new_method(clone, NAME)
    assert done.returncode == 0, done.stderr
    return {path.relative_to(clone).as_posix() for path, text in texts(clone).items() if before.get(path) != text}


def test_it_writes_code_test_entry_point_row_and_pages(clone, written):
    named = {f"baselines/{NAME}.py", f"tests/methods/test_{NAME}.py", "pyproject.toml", "config/demo-all.yaml"}
    assert written == named | {"README.md", "docs/methods.md", "docs/reference/methods.md"}


def test_what_it_writes_passes(clone, written):
    for tool in (["check"], ["format", "--check"]):
        done = run(clone, sys.executable, "-m", "ruff", *tool, f"baselines/{NAME}.py", f"tests/methods/test_{NAME}.py")
        assert done.returncode == 0, done.stdout
    done = run(clone, sys.executable, "-m", "ssp", "check", "config/demo-all.yaml")
    assert f"method {NAME}: rank 4" in done.stdout
    of_all = ("config/test_rows", "config/test_reading", "figures/test_accuracy")  # ask all methods for something
    files = ["tests/contract", f"tests/methods/test_{NAME}.py", *(f"tests/unit/{name}.py" for name in of_all)]
    chosen = ["-k", f"{NAME} or test_rows or test_reading or test_accuracy"]
    done = run(clone, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, *chosen)
    assert done.returncode == 0, done.stdout[-3000:]


def test_cut_off_it_goes_on(clone, written):
    whole = texts(clone)
    (clone / f"tests/methods/test_{NAME}.py").unlink()
    (clone / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    assert new_method(clone, NAME).returncode == 0
    assert texts(clone) == whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vpt"], "'vpt' is a method already (baselines.vpt:VisualPromptTuning)"),
        (["layers"], "'layers' is a part of the backbone"),
        (["My-Method"], "'My-Method' cannot be a module's name"),
        (["lambda"], "'lambda' cannot be a module's name"),
        (["other", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["by_hand", "--config", "flow.yaml"], "flow.yaml: `methods` is not a block"),
    ],
)
def test_what_cannot_be_leaves_all_as_it_was(clone, written, arguments, said):
    (clone / "flow.yaml").write_text("methods: {linear: {}}\n")
    before = texts(clone)
    done = new_method(clone, *arguments)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert texts(clone) == before


def test_what_is_there_is_not_overwritten(clone, written):
    (clone / "baselines" / "mine.py").write_text("mine = 1\n")
    done = new_method(clone, "mine")
    assert done.returncode == 1 and "baselines/mine.py is there already" in done.stderr
    (clone / "baselines" / "mine.py").unlink()
