"""The pages say what the code says, lead nowhere wrong, and build."""

import importlib.util
import subprocess
import sys

import pytest
import yaml

from ssp.config import load_config, parse_config
from ssp.jobs.check import check_training
from ssp.methods.registry import method_names
from ssp.plan.estimate import estimate
from ssp.plan.rows import count_rows
from ssp.plan.speeds import AssumedSpeeds
from tests.docs.reading import PAGES, ROOT, anchors, blocks, links, name


@pytest.fixture(scope="module")
def write_docs():
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "workflow" / "scripts" / "write_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_pages_written_from_the_code_are_up_to_date(write_docs):
    for path, content in write_docs.pages().items():
        assert (ROOT / path).read_text() == content, f"{path} has drifted from the code; run: make docs"


def test_the_table_of_methods_names_all_that_are_registered(write_docs):
    for page in ("README.md", "docs/methods.md"):
        rows = [line for line in (ROOT / page).read_text().splitlines() if line.endswith("| implemented |")]
        named = [name for row in rows for name in row.split("|")[1].replace("`", "").replace(" ", "").split(",")]
        assert sorted(named) == method_names()


def test_the_readme_is_short_and_says_what_has_not_been_run():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    assert "No published data set has been run yet" in "\n".join(text.splitlines()[:15])


@pytest.mark.slow
def test_the_cost_is_that_of_the_paper_config():
    config = load_config(ROOT / "config" / "paper.yaml")
    plan = estimate(config, AssumedSpeeds(count_rows(config)))
    cells = len(config.datasets) * len(config.methods)
    asked = f"{cells * config.sweep.repeats} searches and {cells * len(config.seeds)} trainings"
    again = "estimate its cost anew: ssp plan config/paper.yaml"

    def hours(**of):
        """Of the rows of the tables by stage, then of ablations, then of all."""
        found = [
            sum(plan.hours(stage=stage, row=row, **of).value for row in config.methods)
            for stage in ("search", "training", "testing")
        ]
        found.append(sum(plan.hours(row=row, **of).value for row in config.rows if row not in config.methods))
        return "".join(f" {number:,.0f} |" for number in (*found, sum(found)))

    texts = {page: " ".join((ROOT / page).read_text().split()) for page in ("README.md", "docs/cluster.md")}
    together = hours().split("|")[-2].strip()
    for page, text in texts.items():
        assert asked in text, f"{page}: config/paper.yaml asks for {asked}; {again}"
        assert f"{together} H100-hours" in text or f"| all |{hours()}" in text, f"{page}: {again}"
    assert all(f" |{hours(dataset=name)}" in texts["docs/cluster.md"] for name in config.datasets), again
    assert f"**the config** |{hours()}" in (ROOT / "docs" / "protocol.md").read_text(), f"docs/protocol.md: {again}"


def test_the_example_of_rows_and_ablations_is_one():
    """In place of those of the demo; each of the three shapes an ablation can have is there."""
    (example,) = (block.text for block in blocks(ROOT / "docs" / "workflow.md") if "\nablations:\n" in block.text)
    plain = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text()) | yaml.safe_load(example)
    config = parse_config(plain, "docs/workflow.md")
    check_training(config, "docs/workflow.md")
    axes = {name: config.curve_axis(name) for name in config.ablations}
    assert axes == {"parts": None, "rows": "num_prompts", "widths": "inner_dim"}
    assert [len(config.points[name]) for name in axes] == [2, 6, 4]
    assert {row.method for row in config.rows.values()} == {"vpt", "ssp"}


def test_the_protocol_shows_the_simulation_that_was_measured():
    measured = (ROOT / "benchmarks" / "results" / "null_simulation.md").read_text().splitlines()
    shown = (ROOT / "docs" / "protocol.md").read_text().splitlines()
    assert [line for line in measured if line.startswith("|") and line not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)}: no {path}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: no heading {path}#{anchor}"


@pytest.mark.slow
def test_the_site_builds_and_draws_the_workflow(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is in requirements-dev.txt")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '<pre class="mermaid">' in (tmp_path / "workflow.html").read_text()
