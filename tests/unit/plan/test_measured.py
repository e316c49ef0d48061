"""Speeds from records: runs whose seconds follow a known law are planned to the second, also at another size."""

import json

import pytest

from ssp.errors import ConfigError, RecordError
from ssp.files import write_text
from ssp.jobs import costs as measuring
from ssp.paths import Paths
from ssp.plan import measured, work
from ssp.plan.estimate import estimate
from ssp.plan.measured import find_speeds
from ssp.records.choice import Choice, SweepRun, Trial, save_choice
from ssp.records.costs import load_costs
from ssp.records.record import Chosen, Epoch, Run
from ssp.records.usage import jobs
from tests.unit.made_records import make_config, write_cell, write_costs
from tests.unit.made_report import write_usage_file

STEP, LOOK = {"linear": 0.02, "ssp": 0.1}, {"linear": 0.01, "ssp": 0.03}  # seconds a clip
START, TRIAL, SURPLUS = 7.0, 2.0, 0.5
OTHERS = {"generate": 4.0, "unpack": 2.0, "manifest": 3.0, "frames": 9.0, "costs": 50.0, "tables": 2.5}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config_of(seeds=(0, 1), epochs=3, test=40, **changes):
    plain = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "linear"), seeds=seeds).model_dump(mode="json")
    for dataset in plain["datasets"].values():
        dataset["recipe"]["epochs"] = epochs
        dataset["expected"]["test"] = test
    return make_config().model_validate(plain | changes)


def law(config, rule, job):
    """Seconds of a job, by the law of this file."""
    if rule == "train":
        clips = work.run(config, job[0], job[1] == "linear")
        return START + SURPLUS + STEP[job[1]] * clips.trained + LOOK[job[1]] * clips.tested
    if rule == "sweep":
        clips = work.study(config, job[0], job[1], job[1] == "linear")
        return START + TRIAL * clips.trainings + STEP[job[1]] * clips.trained + LOOK[job[1]] * clips.viewed
    return OTHERS.get(rule, 2.0)


def write_run(config, device="cpu"):
    """Records, choices and benchmarks of a whole run, and its config."""
    paths = Paths.of(config)
    write_text(paths.config, json.dumps(config.model_dump(mode="json")))
    for rule, found in jobs(config).items():
        for job in found:
            write_usage_file(paths.usage(rule, *job), law(config, rule, job))
    for dataset, row, seed in config.runs():
        clips, epochs = work.run(config, dataset, row == "linear"), config.datasets[dataset].recipe.epochs
        each = STEP[row] * clips.trained / epochs
        about = Run(
            started="2000-01-01T00:00:00Z",
            seconds=1.0,
            host="here",
            peak_memory_mb=1000.0 if row == "ssp" else 500.0,
            epoch_seconds=[each + SURPLUS, *[each] * (epochs - 1)],
            test_seconds=LOOK[row] * clips.tested,
        )
        write_cell(config, dataset, row, seed, [True] * 4, device=device, run=about)
    for dataset, row, _ in config.studies():
        write_choice(config, dataset, row)
    return config


def write_choice(config, dataset, row):
    (rung,) = config.rungs(dataset)
    chosen = Chosen(lr=0.01, weight_decay=0.0, drop_path=0.0)
    epochs = [Epoch(epoch=n + 1, lr=0.01, train_loss=1.0, val_loss=1.0, val_top1=50.0) for n in range(rung.epochs)]
    fields = {"state": "complete", "params": {}, "hyperparameters": chosen, "value": 50.0, "epochs": epochs}
    trials = [Trial(number=n, **fields) for n in range(rung.trials)]
    each = (law(config, "sweep", (dataset, row)) - START) / rung.trials
    about = SweepRun(started="", seconds=1.0, trial_seconds=[each] * rung.trials, interrupted=0, host="here")
    choice = Choice(
        status="ok",
        dataset=dataset,
        method=row,
        config={},
        config_hash="",
        manifest_hash="",
        budget=[rung],
        space={},
        hyperparameters=chosen,
        trial=0,
        value=50.0,
        trials=trials,
        run=about,
    )
    save_choice(choice, Paths.of(config).choice(dataset, row))


def total(config):
    return sum(law(config, rule, job) for rule, found in jobs(config).items() for job in found)


def test_a_run_is_planned_from_its_own_records_to_the_second():
    config = write_run(config_of())
    speeds, reason = find_speeds(config)
    plan = estimate(config, speeds)
    assert reason is None and speeds.measured and "on cpu" in speeds.told
    assert 3600 * plan.hours().value == pytest.approx(total(config))
    assert plan.jobs() == sum(map(len, jobs(config).values())) and not plan.unknown
    for rule, stage in (("sweep", "search"), ("frames", "frames")):
        seconds = sum(law(config, rule, job) for job in jobs(config)[rule])
        assert 3600 * plan.hours(stage=stage).value == pytest.approx(seconds)
    assert speeds.memory_mb("ssp") == 1000.0 and speeds.memory_mb("linear") == 500.0


def test_a_larger_config_is_planned_by_the_same_law():
    home = write_run(config_of()).home
    larger = config_of(seeds=(0, 1, 2), epochs=7, test=90, sweep={"trials": 9})
    speeds, _ = find_speeds(larger, home)
    plan = estimate(larger, speeds)
    # What reads videos grows with them, less what starts a job, which `tables` tells; all else is the same law.
    rules = ("generate", "unpack", "manifest", "frames")
    grown = [(OTHERS[rule] - min(OTHERS["tables"], 0.9 * OTHERS[rule])) * (110 / 60 - 1) for rule in rules]
    assert 3600 * plan.hours().value == pytest.approx(total(larger) + 2 * sum(grown))


def test_flops_stand_in_for_what_was_not_measured():
    home = write_run(config_of()).home
    plain = config_of().model_dump(mode="json")
    plain["datasets"]["long"] = json.loads(json.dumps(plain["datasets"]["ssv2"]))
    plain["datasets"]["long"]["clips"]["num_frames"] = 32
    plain["methods"]["vpt"] = {"method": "vpt", "options": {"num_prompts": 2}}
    config = make_config().model_validate(plain)
    speeds, _ = find_speeds(config, home)
    assert speeds.trained("long", "ssp").value == pytest.approx(4 * STEP["ssp"])
    ratio = speeds.rows.flops("ssv2", "vpt") / speeds.rows.flops("ssv2", "ssp")
    assert speeds.trained("ssv2", "vpt").value == pytest.approx(ratio * STEP["ssp"])


def test_the_interval_is_that_of_single_epochs():
    config = write_run(config_of(epochs=11))
    for path in Paths.of(config).results.glob("records/*/ssp/seed*.json"):
        record = json.loads(path.read_text())
        seconds = record["run"]["epoch_seconds"]
        seconds[1:] = [seconds[1] * (0.5 if n % 2 else 1.5) for n in range(10)]
        path.write_text(json.dumps(record))
    speeds, _ = find_speeds(config)
    span = speeds.trained("ssv2", "ssp")
    assert (span.low / span.value, span.high / span.value) == pytest.approx((0.5, 1.5))


def test_results_of_another_kind_of_device_are_not_taken_unasked():
    config = write_run(config_of(), device="NVIDIA H100")
    speeds, reason = find_speeds(config)
    assert not speeds.measured and "measured on NVIDIA H100" in reason
    assert find_speeds(config, config.home)[0].measured


def test_a_folder_without_trainings_is_refused_in_one_line(tmp_path):
    config = config_of()
    assert not find_speeds(config)[0].measured
    with pytest.raises(ConfigError, match=r"no config\.yaml; give a folder of results"):
        find_speeds(config, tmp_path / "nowhere")
    write_text(Paths.of(config).config, json.dumps(config.model_dump(mode="json")))
    with pytest.raises(RecordError, match="no training has finished there"):
        find_speeds(config, config.home)


def test_a_run_that_went_on_after_a_kill_measures_nothing():
    config = write_run(config_of())
    for path in Paths.of(config).results.glob("records/*/*/seed1.json"):
        record = json.loads(path.read_text())
        record["run"] |= {"resumed_after_epoch": 1, "epoch_seconds": [99.0, 99.0, 99.0]}
        path.write_text(json.dumps(record))
    speeds, _ = find_speeds(config)
    assert speeds.trained("ssv2", "ssp").value == pytest.approx(STEP["ssp"])
    assert "4 trainings" in speeds.told


def test_rounds_of_costs_are_counted_as_they_are_taken():
    assert (measured.MOST, measured.ENOUGH_S) == (measuring.MOST, measuring.ENOUGH_S)
    config = config_of()
    write_costs(config)  # steps of 0.6 and 0.3 s, inference of 8 clips in 0.16 s each
    costs = load_costs(config)
    steps, passes = 0.9, 2 * 0.16
    assert measured.rounds(costs, 5) == pytest.approx(steps * (1 + 10 / steps) + passes * (1 + 10 / passes))
    assert measured.rounds(costs, 5, 4.0) == pytest.approx(4 * steps * 6 + passes * (1 + 10 / passes))


def test_a_pre_training_grows_with_its_steps_and_not_with_its_start():
    plain = config_of().model_dump(mode="json")
    pretrain = {"seed": 0, "clips": 100, "held_out": 20, "steps": 10, "batch_size": 10, "lr": 0.1}
    plain["backbone"]["checkpoints"]["tiny"] = {"num_frames": 8, "pretrain": pretrain}
    config = write_run(make_config().model_validate(plain))
    write_usage_file(Paths.of(config).usage("pretrain", "tiny"), START + SURPLUS + 42.0)
    longer = json.loads(json.dumps(plain))
    longer["backbone"]["checkpoints"]["tiny"]["pretrain"] |= {"clips": 1000, "held_out": 200, "steps": 100}
    larger = make_config().model_validate(longer)
    speeds, _ = find_speeds(larger, config.home)
    assert speeds.job(larger, "pretrain", ("tiny",)).value == pytest.approx(START + SURPLUS + 420.0)
