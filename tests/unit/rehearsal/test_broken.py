"""What broke is found in Snakemake's words, in logs, and in records."""

import json

import pytest

from ssp.files import write_text
from ssp.paths import Paths
from ssp.records.usage import jobs
from ssp.rehearsal.broken import find_broken
from tests.unit.made_records import costs_of, make_config, write_cell, write_costs

SAID = """Error in rule manifest:
    message: Listing the videos
    jobid: 3
    output: data/ssv2/manifest.parquet
    log: {log} (check log file(s) for error details)
    shell:
        python -m ssp data manifest --dataset ssv2
        (command exited with non-zero exit code)
Logfile {log}:
===========
nothing
===========
Exiting because a job execution failed. Look below for error messages
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "linear"), seeds=(0,))


def test_a_failed_job_is_named_with_the_last_words_of_its_log(config, tmp_path):
    log = Paths.of(config).log("manifest", "ssv2")
    write_text(log, 'Traceback (most recent call last):\n  File "a.py", line 1\nerror: ssv2: 1 listed video is gone\n')
    (found,) = find_broken(config, tmp_path, 1, SAID.format(log=log))
    assert (found.job, found.reason) == ("manifest ssv2", "error: ssv2: 1 listed video is gone")
    assert found.told().endswith(f"more: tail -n 50 {tmp_path / log}")
    assert len(find_broken(config, tmp_path, 1, 2 * SAID.format(log=log))) == 1


def test_a_row_that_failed_with_a_reason_is_named_although_all_jobs_went_well(config, tmp_path):
    write_cell(config, "ssv2", "ssp", 0, reason="out of memory: host")
    write_cell(config, "ssv2", "linear", 0, [True] * 4)
    write_costs(config, {"ssp": costs_of("ssp", memory_bytes=None, step_seconds=[], reason="out of memory")})
    choice = {"trials": [{"state": "failed", "reason": "loss is nan"}, {"state": "complete", "reason": None}]}
    write_text(Paths.of(config).choice("hmdb51", "linear"), json.dumps(choice))
    found = {broken.job: broken.reason for broken in find_broken(config, tmp_path, 0, "")}
    assert found == {
        "sweep hmdb51 linear": "loss is nan",
        "train ssv2 ssp seed0": "out of memory: host",
        "costs ssp": "out of memory",
    }


def test_each_study_of_a_row_has_a_name_and_a_log_of_its_own(tmp_path, monkeypatch):
    """Those that its job has, of which Snakemake may have told already."""
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("ssv2",), methods=("ssp", "linear"), seeds=(0, 1), sweep={"trials": 1, "repeats": 2})
    paths = Paths.of(config)
    for study, reason in enumerate(("loss is nan", "out of memory")):
        write_text(
            paths.choice("ssv2", "linear", study), json.dumps({"trials": [{"state": "failed", "reason": reason}]})
        )
    found = find_broken(config, tmp_path, 0, "")
    assert [(broken.job, broken.reason) for broken in found] == [
        ("sweep ssv2 linear 0", "loss is nan"),
        ("sweep ssv2 linear 1", "out of memory"),
    ]
    logs = {paths.log("sweep", *job): job for job in jobs(config)["sweep"]}
    assert [logs[broken.log.relative_to(tmp_path)] for broken in found] == [("ssv2", "linear", str(i)) for i in (0, 1)]
    said = SAID.format(log=found[0].log.relative_to(tmp_path)).replace("rule manifest", "rule sweep")
    assert len(find_broken(config, tmp_path, 1, said)) == 2


def test_a_failed_search_is_not_told_again_by_its_trainings(config, tmp_path):
    write_cell(config, "ssv2", "ssp", 0, reason="sweep: every trial failed")
    assert find_broken(config, tmp_path, 0, "") == []


def test_a_workflow_that_did_not_start_says_its_last_line(config, tmp_path):
    (found,) = find_broken(config, tmp_path, 1, "Using profile\nError: rehearsal.yaml: seeds: wrong\n")
    assert (found.job, found.reason) == ("snakemake", "Error: rehearsal.yaml: seeds: wrong")
