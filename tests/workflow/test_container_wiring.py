"""`--sdm apptainer` reaches every job: proven with a stand-in for apptainer, as there is none on the test machine.

The stand-in notes what it is asked to run in which image, and runs it here, with a Python first on PATH that notes what
it is called with. It proves the wiring, not the image.
"""

import os
import sys

import pytest

from tests.workflow.running import TINY

pytestmark = pytest.mark.workflow
TARGETS = ("results/tiny/scan.done", "data/tiny/ucf101/generated.done")
APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.3.0"; exit; fi
while [ "$1" != /images/ssp.sif ]; do shift; done
echo "$1" >> {root}/images
shift
PATH={root}/inside:$PATH exec "$@"
"""
PYTHON = '#!/bin/sh\necho "$@" >> {root}/jobs\nexec {python} "$@"\n'


@pytest.fixture
def apptainer(tmp_path) -> dict[str, str]:
    """Environment variables with the stand-in on PATH."""
    for name, text in (("bin/apptainer", APPTAINER), ("inside/python", PYTHON)):
        program = tmp_path / "stand-in" / name
        program.parent.mkdir(parents=True)
        program.write_text(text.format(root=tmp_path / "stand-in", python=sys.executable))
        program.chmod(0o755)
    (tmp_path / "config.yaml").write_text(TINY.read_text() + "container: /images/ssp.sif\n")
    return {"PATH": f"{tmp_path}/stand-in/bin:{os.environ['PATH']}"}


def test_jobs_run_in_the_image_of_the_config(run, tmp_path, apptainer):
    done = run(*TARGETS, "--sdm", "apptainer", "--cores", "1", "--configfile", "config.yaml", **apptainer)
    assert done.code == 0, done.err
    generate, scan = sorted((tmp_path / "stand-in/jobs").read_text().splitlines())  # independent of each other
    assert generate.startswith("-m ssp.jobs.run results/tiny/logs/generate/ucf101.log data generate --dataset ucf101")
    assert scan == "-m ssp.scan.build"
    assert (tmp_path / "stand-in/images").read_text().splitlines() == ["/images/ssp.sif"] * 2


def test_an_image_is_not_used_unasked_and_not_asked_for_in_vain(run, tmp_path, apptainer):
    done = run(TARGETS[0], "--cores", "1", "--configfile", "config.yaml", **apptainer)
    assert done.code == 0, done.err
    assert not (tmp_path / "stand-in/images").exists()
    done = run("-n", TARGETS[0], "--sdm", "apptainer", "--configfile", TINY, **apptainer)
    assert done.code == 1
    assert done.errors[-1].endswith("tiny.yaml: --sdm apptainer needs `container`, the image that jobs run in")
