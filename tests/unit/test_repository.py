"""What the files at the top promise: citation, workflow catalog, hooks, and the keys that config/README.md explains."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from ssp.config import Config

ROOT = Path(__file__).resolve().parents[2]


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_workflow_catalog_finds_what_it_asks_for():
    assert (ROOT / "workflow/Snakefile").is_file() and list((ROOT / "workflow/rules").glob("*.smk"))
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True


def test_every_section_of_a_config_is_explained():
    explained = re.findall(r"`(\w+)`", (ROOT / "config/README.md").read_text())
    assert [key for key in Config.model_fields if key not in explained] == []


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", ".github/workflows/ci.yml"])
def test_checks_elsewhere_run_what_runs_here(name):
    text = (ROOT / name).read_text()
    assert yaml.safe_load(text)
    assert ".ci/run" in text and (ROOT / ".ci/run").stat().st_mode & 0o100
    tools = {hook["entry"].split()[0] for repo in yaml.safe_load(text).get("repos", []) for hook in repo["hooks"]}
    pinned = {line.split("==")[0] for line in (ROOT / "requirements-dev.txt").read_text().splitlines()}
    assert {Path(tool).name for tool in tools} <= pinned
