"""Independent studies of a row: what differs between them, where they lie, and which seed trains from which."""

import json

import pytest

from ssp.errors import ConfigError, RecordError
from ssp.jobs.cell import Cell
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.records.choice import load_choice

TWO = {"sweep__repeats": 2, "sweep__trials": 2, "sweep__epochs": 1}
POINTS = {"rows": {"title": "Rows", "of": "ssp", "vary": {"num_prompts": [2]}}}


def test_the_first_is_the_one_that_there_would_be_alone_and_the_second_another(tiny):
    alone = run_sweep(tiny(name="alone", **TWO | {"sweep__repeats": 1}), "ucf101", "linear")
    first, second = (run_sweep(tiny(**TWO), "ucf101", "linear", number) for number in (0, 1))
    assert first.trials == alone.trials
    start, other = ([trials[i] for trials in (first.trials, second.trials)] for i in (0, 1))
    assert start[0].params == start[1].params and start[0].epochs != start[1].epochs  # trained from another seed
    assert other[0].params != other[1].params
    assert (first.study, second.study, alone.study) == (0, 1, None)


@pytest.mark.slow
def test_a_seed_trains_from_its_own_study_also_at_a_point_that_inherits(tiny):
    config = tiny(**TWO, ablations=POINTS, seeds=[0, 1, 3])
    for number, rate in ((0, 0.011), (1, 0.022)):
        run_sweep(config, "ucf101", "ssp", number)
        path = Cell(config, "ucf101", "ssp", number).choice_file
        assert str(path) == f"results/tiny/sweeps/ucf101/ssp/study{number}.json"
        plain = json.loads(path.read_text())
        plain["hyperparameters"]["lr"] = rate
        path.write_text(json.dumps(plain))
    for row, seed in (("ssp", 0), ("ssp", 1), ("ssp+num_prompts=2", 3)):
        record = train_cell(config, "ucf101", row, seed)
        assert record.hyperparameters.lr == (0.011, 0.022)[seed % 2]
    assert record.hyperparameters.options["num_prompts"] == 2
    assert ("ucf101", "ssp+num_prompts=2", 0) not in config.studies()


def test_studies_are_not_taken_for_each_other(tiny):
    config = tiny(**TWO)
    run_sweep(config, "ucf101", "linear", 0)
    first, second = (Cell(config, "ucf101", "linear", number).choice_file for number in (0, 1))
    with pytest.raises(RecordError, match=r"study1\.json: no such sweep choice; run: python -m ssp sweep .* --study 1"):
        train_cell(config, "ucf101", "linear", 1)
    second.write_bytes(first.read_bytes())
    with pytest.raises(RecordError, match=r"study1\.json: is the choice of study 0, not of 1; run"):
        load_choice(second, config, "ucf101", "linear", 1)


@pytest.mark.parametrize(
    ("repeats", "study", "said"),
    [
        (2, None, r"--study: give one of 0, 1 \(sweep\.repeats of config 'tiny'\)"),
        (2, 2, r"--study: give one of 0, 1"),
        (1, 0, r"--study: leave it out, there is one study"),
    ],
)
def test_a_study_that_is_none_is_one_line(tiny, repeats, study, said):
    with pytest.raises(ConfigError, match=said):
        run_sweep(tiny(sweep__repeats=repeats), "ucf101", "linear", study)
