"""Every shipped config plans without data, without torch, and leaves nothing behind; a bad one gets one line."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from ssp.config import load_config
from tests.workflow.running import ROOT, TINY, Done

pytestmark = pytest.mark.workflow
CONFIGS = [*sorted((ROOT / "config").glob("*.yaml")), TINY]
LIBRARY = (
    *("torch", "torchvision", "mlflow", "optuna", "lmdb", "av", "decord", "safetensors", "scipy", "matplotlib"),
    *("pyarrow", "rich", "typer"),
)


# Plans are copies of a process that has imported Snakemake, as in tests/copies.py, and nothing that a benchmark needs.
PLANNER = """
import json, os, sys
import smart_open
from snakemake.cli import get_argument_parser, main
get_argument_parser()  # looks for plugins
for line in sys.stdin:
    folder, words = json.loads(line)
    if not (copy := os.fork()):
        os.chdir(folder)
        for stream, path in enumerate((os.devnull, "said.out", "said.err")):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
        sys.argv = ["snakemake", *words]
        sys.exit(main(words))
    print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def planner(tmp_path_factory) -> Iterator[subprocess.Popen]:
    """A process in an environment in which snakemake is there and importing anything heavier raises."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in LIBRARY:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} must not be imported to plan')")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PLANNER], env=environment, **pipes) as process:
        yield process


@pytest.fixture
def plan(planner, tmp_path) -> Callable[..., Done]:
    """Snakemake's plan in an empty folder, without the library."""

    def make(*args: str | Path) -> Done:
        words = ["-n", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path, *args]
        planner.stdin.write(json.dumps([str(tmp_path), [str(word) for word in words]]) + "\n")
        planner.stdin.flush()
        code, said = int(planner.stdout.readline()), [tmp_path / f"said.{name}" for name in ("out", "err")]
        done = Done(code, *(file.read_text() for file in said))
        for file in said:
            file.unlink()
        return done

    return make


@pytest.mark.parametrize("profile", ["default", "slurm"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_dry_run(plan, tmp_path, path, profile):
    config = load_config(path)
    done = plan("--configfile", path, "--workflow-profile", ROOT / "profiles" / profile)
    assert done.code == 0, done.err
    shards = sum(dataset.frames.shards for dataset in config.datasets.values())
    expected = {
        "sweep": len(config.studies()),
        "train": len(config.runs()),
        "frames": shards,
        "costs": 1,
        "tables": 1,
        "explain": len(config.datasets),
        "report": 1,
        "init_tracking": 1,
    }
    ablations = {
        "ablation": len(config.ablations),
        "ablation_curve": sum(map(bool, map(config.curve_axis, config.ablations))),
    }
    expected |= {rule: count for rule, count in ablations.items() if count}
    assert expected.items() <= done.jobs.items()
    assert done.jobs["fetch"] == done.jobs["unpack"] == len(config.archived)
    assert done.jobs["manifest"] == len(config.datasets)
    assert done.jobs["pretrain"] + done.jobs["fetch_weights"] == len(config.backbone.checkpoints)
    assert [entry.name for entry in tmp_path.iterdir()] == [".snakemake"]


def test_splits_share_archives_and_nothing_else(run, tmp_path):
    data = yaml.safe_load(TINY.read_text())
    data["datasets"]["ucf101"]["split"] = [1, 2, 3]
    (tmp_path / "splits.yaml").write_text(yaml.safe_dump(data))
    done, config = run("-n", "--configfile", tmp_path / "splits.yaml"), load_config(tmp_path / "splits.yaml")
    assert done.code == 0, done.err
    assert [done.jobs[rule] for rule in ("generate", "fetch", "unpack")] == [2, 2, 2]  # Breakfast is the other
    assert (done.jobs["manifest"], done.jobs["explain"]) == (4, 4)
    assert (done.jobs["sweep"], done.jobs["train"]) == (len(config.studies()), len(config.runs()))


def test_the_blocker_blocks(plan, tmp_path):
    (tmp_path / "Snakefile").write_text("import torch\n")
    done = plan("--snakefile", tmp_path / "Snakefile", "--workflow-profile", "none")
    assert done.code != 0
    assert "torch must not be imported" in done.err + done.out


def _effective(folder: Path, run, *args) -> Path:
    """The config that jobs read, after a run of the one rule that needs no data."""
    done = run("--cores", "1", *args)
    assert done.code == 0, done.err
    (copy,) = folder.glob("results/*/config.yaml")
    return copy


def test_a_config_is_never_merged_with_the_demo(run, tmp_path):
    paper = ROOT / "config" / "paper.yaml"
    copy = _effective(tmp_path, run, "results/paper/scan.done", "--configfile", paper)
    assert load_config(copy) == load_config(paper)


def test_the_demo_is_the_default_also_with_an_override(run, tmp_path):
    copy = _effective(tmp_path, run, "results/demo/scan.done", "--config", "title=Another")
    demo = load_config(ROOT / "config" / "demo.yaml")
    assert load_config(copy) == demo.model_copy(update={"title": "Another"})


def test_a_bad_config_is_one_line_and_no_traceback(run, tmp_path):
    data = yaml.safe_load(TINY.read_text())
    data["datasets"]["ucf101"]["recipe"]["epoch"] = 3
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(data))
    done = run("-n", "--configfile", tmp_path / "bad.yaml")
    assert done.code != 0
    assert done.errors == ["Error: bad.yaml: datasets.ucf101.recipe.epoch: unknown key; did you mean 'epochs'?"]
    assert done.out == ""


def test_a_wrong_option_fails_before_anything_runs(run, tmp_path):
    """Where torch is there; see test_dry_run for where it is not."""
    text = TINY.read_text().replace("inner_dim: 8", "iner_dim: 8")
    (tmp_path / "bad.yaml").write_text(text.replace("  linear: {}", "  linear: {space: {width: {choices: [1]}}}"))
    done = run("-n", "--configfile", tmp_path / "bad.yaml")
    assert done.code != 0
    assert done.errors == [
        "Error: bad.yaml: methods.linear.space.width: no such hyper-parameter or option; known: lr, weight_decay, "
        "drop_path; methods.ssp.options.iner_dim: unknown option; did you mean 'inner_dim'?"
    ]


def test_a_key_that_is_there_twice_is_one_line(run, tmp_path):
    text = TINY.read_text()
    (tmp_path / "bad.yaml").write_text(text + "seeds: [7]\n")
    done = run("-n", "--configfile", tmp_path / "bad.yaml")
    first, second = text.splitlines().index("seeds: [0, 1]") + 1, len(text.splitlines()) + 1
    assert done.code != 0
    assert done.errors == [
        f"Error: bad.yaml: key 'seeds' is there twice, in line {first} and line {second}; remove one"
    ]


def test_a_bad_override_is_one_line_and_no_traceback(run):
    done = run("-n", "--configfile", TINY, "--config", "seeds=[0,0]")
    assert done.code != 0
    assert len(done.errors) == 1
    assert "tiny.yaml with --config: seeds: every seed must be there once" in done.errors[0]


def test_several_nodes_are_planned_and_refused_without_slurm(run):
    config = ["--configfile", TINY, "--config", "compute={train: {nodes: 2}}"]
    config.append("datasets={ucf101: {recipe: {micro_batch: 4}}, breakfast: {recipe: {micro_batch: 4}}}")
    assert run("-n", *config).code == 0
    done = run("--cores", "2", *config)
    assert done.code != 0
    assert "Finished jobid" not in done.err
    said = "compute.train.nodes: 2 takes Slurm; add --workflow-profile profiles/slurm, or set it to 1"
    assert done.errors[-1].endswith(f"tiny.yaml with --config: {said}")
    # What needs no training needs no node either.
    assert run("results/tiny/scan.done", "--cores", "2", *config).code == 0


def test_every_job_that_calls_the_library_names_the_environment_of_the_config():
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in rules.read_text().split("\nrule ")[1:]:
            assert ("shell:" in rule) == ("conda:\n        ENVIRONMENT" in rule), rule.split(":")[0]


def test_every_job_of_a_cluster_says_what_it_asks_for():
    """Nothing is left to default resources, which a user's own would replace."""
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"\n *rule ", rules.read_text())[1:]:
            assert ("localrule: True" in rule) != (" threads:" in rule and "**asked_for(" in rule), rule.split(":")[0]


@pytest.mark.parametrize("directive", ["log", "message", "output"])
def test_every_rule_has_what_makes_a_run_traceable(directive):
    for rules in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in rules.read_text().split("\nrule ")[1:]:
            assert f"\n    {directive}:" in rule, rule.split(":")[0]


def test_each_study_is_a_job_and_a_seed_waits_for_its_own(run, tmp_path):
    data = yaml.safe_load(TINY.read_text())
    data["sweep"] = {"fidelity": [{"trials": 2, "epochs": 0.5}, {"trials": 1}], "repeats": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(data))
    record = "results/tiny/records/ucf101/ssp+num_prompts=1/seed0.json"  # inherits, and needs no study of seed 1
    done = run("-n", "-p", record, "--configfile", tmp_path / "two.yaml")
    assert done.code == 0, done.err
    assert done.jobs["sweep"] == done.jobs["train"] == 1
    assert "--dataset ucf101 --method ssp --study 0 " in done.out
    done = run("-n", "--configfile", tmp_path / "two.yaml")
    assert done.jobs["sweep"] == len(load_config(tmp_path / "two.yaml").studies()) == 12


def test_small_jobs_share_jobs_of_the_cluster_as_documented(run):
    """The data of each data set are one job; so are eight trainings, and four sweeps."""
    text = (ROOT / "docs/cluster.md").read_text()
    (options,) = re.findall(r"--configfile my.yaml (--resources mem_mb=.* --groups .*)", text)
    done = run("-n", "--workflow-profile", ROOT / "profiles/slurm", "--configfile", TINY, *options.split())
    assert done.code == 0, done.err
    members = re.split(r"Group job (\w+) \(", done.out + done.err)[1:]
    groups = sorted((name, said.count("\n    Job ")) for name, said in zip(members[::2], members[1::2], strict=True))
    assert groups == [("data", 3), ("data", 4), ("sweep", 2), ("sweep", 4), ("train", 5), ("train", 8)]
