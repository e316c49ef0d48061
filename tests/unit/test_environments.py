"""The same pins in requirements.txt and both conda environments; a CUDA compiler that fits torch."""

import ast
import re
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
DEBIAN_12 = "3.11.2"


def _requirements(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-r")]


def _environment(name: str) -> tuple[list[str], list[str]]:
    dependencies = yaml.safe_load((ROOT / name).read_text())["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    return [entry for entry in dependencies if isinstance(entry, str)], pip


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_once(name):
    requirements = _requirements(name)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in requirements), requirements
    packages = [line.split("==")[0].lower() for line in requirements]
    assert len(set(packages)) == len(packages)


def test_all_that_is_installed_runs_on_the_python_of_debian_12():
    """A pin that asks for a later patch release installs on the developer's machine and not on a fresh one."""
    asked = {found.metadata["Name"]: found.metadata.get("Requires-Python") for found in distributions()}
    assert {line.split("==")[0].lower() for line in _requirements("requirements.txt")} <= {n.lower() for n in asked}
    assert not {name: python for name, python in asked.items() if DEBIAN_12 not in SpecifierSet(python or "")}


@pytest.mark.parametrize("name", ["environment.yml", "environment.cuda.yml"])
def test_conda_environments_have_the_pins_of_requirements(name):
    conda, pip = _environment(name)
    assert sorted(pip) == sorted(_requirements("requirements.txt"))
    assert {"python=3.11", "pip", "c-compiler"} <= set(conda)


@pytest.mark.slow
def test_nothing_imports_what_only_tests_need_nor_at_once_what_takes_seconds():
    """torchvision brings torch's whole compiler, and most processes resize nothing."""
    names = {line.split("==")[0].replace("-", "_") for line in _requirements("requirements-dev.txt")}
    found = []
    for path in [*ROOT.glob("ssp/**/*.py"), *ROOT.glob("baselines/*.py"), *ROOT.glob("workflow/**/*.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unwanted = names | {"torchvision"} if node in tree.body else names
            found += [f"{path}: {module}" for module in modules if module.split(".")[0] in unwanted]
    assert not found


def test_cuda_environment_is_the_plain_one_and_more():
    plain, cuda = _environment("environment.yml")[0], _environment("environment.cuda.yml")[0]
    assert set(plain) < set(cuda)


def test_only_the_selective_scan_of_mamba_ssm_is_compiled():
    script = (ROOT / "environment.cuda.post-deploy.sh").read_text()
    assert re.findall(r"mamba-ssm==(\S+)\"", script) == ["$version"] and re.search(
        r"^version=[0-9.a-z]+$", script, re.M
    )
    assert re.findall(r'CUDAExtension\(\s*"(\w+)"', script) == ["selective_scan_cuda"]  # what the backend looks for


def test_cuda_compiler_is_of_the_version_that_torch_was_built_for():
    torch = pytest.importorskip("torch")
    if torch.version.cuda is None:
        pytest.skip("this torch is built without CUDA")
    conda, _ = _environment("environment.cuda.yml")
    assert f"cuda-version={torch.version.cuda}" in conda
