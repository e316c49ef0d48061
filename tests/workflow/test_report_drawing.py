"""The picture of the workflow in the report is the workflow: rules, jobs, and what needs what."""

import re

import pytest

from ssp.config import load_config
from ssp.records.usage import jobs as jobs_of
from ssp.report import dag
from ssp.report.stages import DOES
from tests.workflow.running import ROOT, TINY

pytestmark = pytest.mark.workflow


def _reduced(graph: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Without edges that follow from others."""
    after: dict[str, set[str]] = {}
    for start, end in graph:
        after.setdefault(start, set()).add(end)

    def reach(node: str) -> set[str]:
        return set().union(*({end} | reach(end) for end in after.get(node, ())))

    return {(start, end) for start, end in graph if not any(end in reach(other) for other in after[start])}


@pytest.mark.parametrize("path", [TINY, ROOT / "config" / "paper.yaml"], ids=lambda path: path.stem)
def test_the_drawing_is_the_dag(run, path):
    done = run("--rulegraph", "dot", "--configfile", path)
    assert done.code == 0, done.err
    names = dict(re.findall(r'(\d+)\[label = "(\w+)', done.out))
    graph = {(names[start], names[end]) for start, end in re.findall(r"(\d+) -> (\d+)", done.out)}
    graph = {edge for edge in graph if "all" not in edge}
    assert len(graph) > 8
    jobs = jobs_of(load_config(path))
    assert set(dag.edges(jobs)) == _reduced(graph)
    assert set(jobs) == {rule for edge in graph for rule in edge} <= set(DOES)


@pytest.mark.parametrize("path", [TINY, ROOT / "config" / "paper.yaml"], ids=lambda path: path.stem)
def test_the_jobs_are_those_that_snakemake_plans(run, path):
    done = run("-n", "--configfile", path)
    planned = dict(done.jobs)
    del planned["all"]
    assert {rule: len(jobs) for rule, jobs in jobs_of(load_config(path)).items()} == planned
