"""Sums of a plan, its longest jobs and time requests."""

import pytest

from ssp.plan import work
from ssp.plan.estimate import MARGIN, STAGES, estimate
from ssp.plan.rows import RowFacts, Rows
from ssp.plan.speeds import FLOPS, AssumedSpeeds
from ssp.records.usage import jobs
from tests.unit.made_records import make_config


def assumed(config):
    """As if each row cost what the assumption is about."""
    facts = {name: RowFacts(FLOPS, 8, 0 if name == "linear" else 10, 1000, 50) for name in config.methods}
    return AssumedSpeeds(Rows(config, facts))


def test_parts_add_up_to_the_whole_by_stage_and_by_row():
    config = make_config(compute={"train": {"gpus": 1}})
    plan = estimate(config, assumed(config))
    assert plan.jobs() == sum(map(len, jobs(config).values()))
    by_stage = sum(plan.hours(stage=stage).value for stage in STAGES)
    by_row = sum(plan.hours(row=row).value for row in (*config.rows, None))
    assert by_stage == pytest.approx(plan.hours().value) == pytest.approx(by_row)
    assert plan.unknown and "frames" in plan.unknown and "train" not in plan.unknown


def test_hours_are_clips_at_the_assumed_speed():
    config = make_config(datasets=("ssv2",), methods=("ssp", "linear"), seeds=(0,))
    plan = estimate(config, assumed(config))
    run = work.run(config, "ssv2", False)
    training = plan.hours(row="ssp", stage="training")
    assert 3600 * training.value == pytest.approx(20 + run.trained / 18)
    assert (3600 * training.low, 3600 * training.high) == pytest.approx((10 + run.trained / 40, 60 + run.trained / 10))
    assert 3600 * plan.hours(row="linear", stage="training").value == pytest.approx(20 + run.trained / 54)
    assert 3600 * plan.hours(row="ssp", stage="testing").value == pytest.approx(run.tested / 54)
    assert plan.clips(row="linear")[0] == 0 and plan.clips(row="ssp", stage="testing") == (0, run.tested)


def test_workers_share_the_trials_of_a_sweep():
    plain = make_config(datasets=("ssv2",), methods=("ssp", "vpt")).model_dump(mode="json")
    plans = []
    for workers in (1, 3):
        plain["sweep"] |= {"trials": 6, "workers": workers}
        config = make_config().model_validate(plain)
        plans.append(estimate(config, assumed(config)))
    one, several = plans
    assert (one.jobs(stage="search"), several.jobs(stage="search")) == (2, 2 * (3 + 1))
    assert one.clips(stage="search") == pytest.approx(several.clips(stage="search"))
    more = 6 * one.speeds.start("sweep").value / 3600  # jobs that start
    assert several.hours(stage="search").value == pytest.approx(one.hours(stage="search").value + more)
    assert [job.job.split()[0] for job in several.longest() if "ssv2" in job.job][:1] == ["search"]


def test_requests_cover_the_longest_job_with_a_margin():
    recipe = {"epochs": 1000, "batch_size": 4}
    plain = make_config(datasets=("ssv2",), methods=("ssp", "linear")).model_dump(mode="json")
    plain["datasets"]["ssv2"]["recipe"] = recipe
    config = make_config().model_validate(plain)
    plan = estimate(config, assumed(config))
    longest = {one.job: one for one in plan.longest()}
    train, sweep = longest["train ssv2 ssp seed0"], longest["sweep ssv2 ssp"]
    assert (train.limit, sweep.limit) == (60, 6 * 60)  # a sweep is given the time of each of its trainings
    needed = max(train.minutes.value, sweep.minutes.value / 6)
    assert plan.requests()["train"] == pytest.approx(MARGIN * needed, abs=1)
