"""The workflow is found as Snakemake users expect: from both Snakefiles, with profiles, without a complaint of lint."""

import pytest

from tests.workflow.running import ROOT, TINY

pytestmark = pytest.mark.workflow


def test_lint_has_nothing_to_say(run):
    done = run("--lint", "--configfile", TINY)
    assert done.code == 0 and "good condition" in done.err, done.err


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_both_snakefiles_bring_the_default_target_and_the_default_profile(snakefile, run):
    done = run("-n", "--snakefile", ROOT / snakefile, "--configfile", TINY)
    assert done.code == 0, done.err
    assert done.err.count("profiles/default for setting") == 1
    assert "\nreport " in done.out and "\nall " in done.out


@pytest.mark.parametrize("profile", ["default", "slurm"])
def test_a_config_file_that_is_not_there_is_one_line(profile, run):
    done = run("-n", "--configfile", "config/nowhere.yaml", "--workflow-profile", ROOT / "profiles" / profile)
    assert done.code == 1
    assert done.errors == ["Error: config/nowhere.yaml: there is no such config file"]
