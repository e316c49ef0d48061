"""`--use-conda` reaches every job: proven with a stand-in for conda, as there may be none on the test machine.

The stand-in answers what Snakemake asks and "creates" environments whose Python is the one of the tests. It proves the
wiring (the config chooses the file, jobs run inside the environment made from it, and see the library), not that the
packages in the file can be solved and installed together.
"""

import os
import sys

import pytest

from tests.workflow.running import ROOT, TINY

pytestmark = pytest.mark.workflow

CONDA = """#!{python}
import json, os, shutil, stat, sys
arguments, root = sys.argv[1:], {root!r}
with open(os.path.join(root, "calls.log"), "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[:1] == ["info"]:
    print(json.dumps({{"conda_prefix": root, "root_prefix": root, "platform": "linux-64", "conda_version": "25.1.0"}}))
elif arguments == ["--version"]:
    print("conda 25.1.0")
elif arguments[:2] == ["config", "--get"]:
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif arguments[:2] == ["env", "create"]:
    prefix = arguments[arguments.index("--prefix") + 1]
    os.makedirs(os.path.join(prefix, "bin"), exist_ok=True)
    os.makedirs(os.path.join(prefix, "conda-meta"), exist_ok=True)
    shutil.copy(arguments[arguments.index("--file") + 1], os.path.join(prefix, "made-from.yml"))
    program = os.path.join(prefix, "bin", "python")
    with open(program, "w") as wrapper:
        wrapper.write('#!/bin/sh\\necho "$@" >> "' + os.path.join(prefix, "jobs.log") + '"\\nexec {python} "$@"\\n')
    os.chmod(program, 0o755)
"""
ACTIVATE = 'export CONDA_PREFIX="$1"\nexport PATH="$1/bin:$PATH"\n'


@pytest.fixture
def conda(tmp_path) -> dict[str, str]:
    """Environment variables with the stand-in on PATH."""
    root = tmp_path / "conda"
    (root / "bin").mkdir(parents=True)
    for name, text in (("conda", CONDA.format(python=sys.executable, root=str(root))), ("activate", ACTIVATE)):
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    return {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"}


def _jobs(folder) -> tuple[str, list[str]]:
    """The file that the only environment was made from, and what its Python was called with."""
    (log,) = folder.glob(".snakemake/conda/*/jobs.log")
    return (log.parent / "made-from.yml").read_text(), log.read_text().splitlines()


TARGETS = ("results/tiny/scan.done", "data/tiny/ucf101/unpacked.json")


def test_jobs_run_in_the_environment_made_from_the_file(run, tmp_path, conda):
    done = run(*TARGETS, "--use-conda", "--cores", "1", "--configfile", TINY, **conda)
    assert done.code == 0, done.err
    made_from, jobs = _jobs(tmp_path)
    assert made_from == (ROOT / "environment.yml").read_text()
    assert "-m ssp.scan.build" in jobs
    for command in ("generate", "fetch", "unpack"):
        job = f"-m ssp.jobs.run results/tiny/logs/{command}/ucf101.log data {command} --dataset ucf101"
        assert f"{job} --config results/tiny/config.yaml" in jobs


@pytest.mark.parametrize("environment", ["environment.yml", "environment.cuda.yml"])
def test_the_config_chooses_the_file(run, tmp_path, conda, environment):
    (tmp_path / "config.yaml").write_text(TINY.read_text() + f"environment: {environment}\n")
    done = run("-n", *TARGETS, "--use-conda", "--configfile", "config.yaml", **conda)
    assert done.code == 0, done.err
    assert f"/{environment} will be created" in done.out + done.err


def test_without_use_conda_the_active_environment_is_used(run, tmp_path, conda):
    done = run("results/tiny/scan.done", "--cores", "1", "--configfile", TINY, **conda)
    assert done.code == 0, done.err
    assert not (tmp_path / "conda" / "calls.log").exists()
    assert not list(tmp_path.glob(".snakemake/conda/*/jobs.log"))
