"""The picture of the DAG in the documentation is the DAG."""

import re

import pytest

from tests.workflow.running import ROOT, TINY

pytestmark = pytest.mark.workflow


def _edges(mermaid: str) -> set[tuple[str, str]]:
    names = dict(re.findall(r"(\w+)\[([^\]]+)\]", mermaid))
    names = {node: re.split(r"<br>|\s", label.strip('"'))[0] for node, label in names.items()}
    arrows = re.findall(r"(\w+)(?:\[[^\]]+\])? --> (\w+)", mermaid)
    return {(names.get(start, start), names.get(end, end)) for start, end in arrows}


def test_the_picture_in_the_documentation_is_the_dag(run):
    rules = set()
    for config in (TINY, ROOT / "config" / "paper.yaml"):  # generated and published data: together, every rule
        done = run("--rulegraph", "mermaid-js", "--configfile", config, "--config", "sweep={workers: 2}")
        assert done.code == 0, done.err
        rules |= {edge for edge in _edges(done.out) if "all" not in edge}
    assert ("sweep", "train") in rules
    blocks = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs" / "workflow.md").read_text(), re.DOTALL)
    assert len(blocks) == 1, "docs/workflow.md needs one mermaid picture of the workflow"
    assert _edges(blocks[0]) == rules
