"""A plan in words and as JSON."""

import json
import re

import pytest
import yaml

from ssp.config import load_config
from ssp.plan import words
from ssp.plan.estimate import estimate
from ssp.plan.measured import find_speeds
from tests.unit.made_records import make_config
from tests.unit.plan.test_estimate import assumed
from tests.unit.plan.test_measured import config_of, write_run


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(config):
    return estimate(config, assumed(config)), config.model_dump(mode="json")


def test_an_assumption_is_said_to_be_one_and_what_is_not_known_too():
    plan, plain = of(make_config(compute={"train": {"gpus": 1}}))
    text = words.told(plan, plain, "results/tried: was measured on cpu")
    assert "Speeds assumed, nothing was measured: one H100" in text and "(results/tried: was measured on cpu.)" in text
    assert " hours on one H100\n" in text and "Not known before they were measured, and left out: " in text
    assert "at least" in text and "more is not known yet" in text


def test_a_job_beyond_its_limit_is_named():
    plain = make_config(datasets=("ssv2",)).model_dump(mode="json")
    plain["datasets"]["ssv2"]["expected"]["train"] = 2_000_000
    plan, plain = of(make_config().model_validate(plain))
    (line,) = [line for line in words.told(plan, plain).splitlines() if line.startswith("  train ssv2")]
    found = re.search(
        r"of 60 that it is given; OVER it: (\d+) tries, as it goes on \(`--retries (\d+)`\), or raise", line
    )
    (longest,) = [one for one in plan.longest() if one.job.startswith("train ssv2")]
    tries, retries = map(int, found.groups())
    assert 60 * (tries - 1) < longest.minutes.value <= 60 * tries and retries == tries - 1 > 0


def test_what_was_measured_says_where_and_requests_time():
    config = write_run(config_of())
    plan = estimate(config, find_speeds(config)[0])
    text = words.told(plan, config.model_dump(mode="json"))
    assert "measured: 8 trainings and " in text and "results/tried, on cpu" in text
    assert "Memory of a training: 1,000 MB, as measured" in text
    asked = yaml.safe_load(words.requests(plan))["compute"]
    assert asked == {section: {"runtime": minutes} for section, minutes in plan.requests().items()}


def test_memory_of_smaller_passes_is_a_lower_bound():
    home = write_run(config_of()).home
    plain = config_of().model_dump(mode="json")
    plain["datasets"]["ssv2"]["recipe"]["batch_size"] = 16
    config = make_config().model_validate(plain)
    text = words.told(estimate(config, find_speeds(config, home)[0]), plain)
    assert "Memory of a training: at least 1,000 MB" in text


def test_json_has_the_same_numbers():
    plan, plain = of(make_config())
    found = json.loads(json.dumps(words.as_json(plan, plain)))
    assert found["hours"]["value"] == plan.hours().value and found["jobs"] == plan.jobs()
    assert found["stages"]["testing"]["clips"]["forward"] == plan.clips(stage="testing")[1]
    assert set(found["datasets"]) == set(plan.config.datasets) and found["disk"]["results"] > 0


def test_a_proposal_says_what_it_costs_and_prints_a_config(tmp_path):
    (tmp_path / "tried.yaml").write_text(yaml.safe_dump(make_config(seeds=(0, 1, 2, 3, 4)).model_dump(mode="json")))
    config = load_config(tmp_path / "tried.yaml")
    plan, plain = of(config)
    text = words.proposal(plan, plain, 0.7 * plan.hours().value)
    assert "Every row keeps the same budget." in text and "nothing was written" in text
    (tmp_path / "less.yaml").write_text(text[text.index("extends:") :])
    assert load_config(tmp_path / "less.yaml") != config
    assert "the whole config fits" in words.proposal(plan, plain, 2 * plan.hours().value)
    assert "no honest plan fits" in words.proposal(plan, plain, 1e-9)
