"""Cheaper copies of a config: valid, honest, and as cheap as they say."""

import pytest
import yaml

from ssp.config import load_config, parse_config, read_yaml, resolved
from ssp.plan.cheaper import fit_budget, savings, steps
from ssp.plan.estimate import estimate
from tests.unit.made_records import make_config
from tests.unit.plan.test_estimate import assumed

SEARCHED = {"fidelity": [{"trials": 8, "epochs": 0.5}, {"trials": 3}], "repeats": 2}
ABLATION = {"rows": {"title": "R", "of": "ssp", "vary": {"num_prompts": [0, 1]}, "datasets": ["ssv2"], "seeds": [4]}}


@pytest.fixture
def given(tmp_path):
    """A config with everything that could be less: its path, itself, its YAML, its speeds."""
    plain = make_config(seeds=(0, 1, 2, 3, 4), sweep=SEARCHED, ablations=ABLATION).model_dump(mode="json")
    plain["methods"]["ssp"]["starts"] = {"ssv2": {"lr": 0.01}}
    for name, dataset in plain["datasets"].items():
        dataset["clips"] |= {"test_segments": 2, "test_crops": 3}
        dataset["validation"]["folds"] = 3
        dataset["recipe"]["epochs"] = 4 if name == "ssv2" else 2
        dataset["expected"]["train"] = 20000
    path = tmp_path / "given.yaml"
    path.write_text(yaml.safe_dump(plain))
    config = load_config(path)
    return path, config, resolved(read_yaml(path), path)[0], assumed(config)


def loaded(path, lines):
    """The config that some lines make beside the one that they extend."""
    other = path.with_name("cheaper.yaml")
    other.write_text(lines)
    return load_config(other)


def test_every_step_saves_and_its_lines_make_what_was_planned(given):
    path, config, plain, speeds = given
    found = savings(config, plain, speeds)
    names = {step.name for step in steps(config)} - {"halving"}  # it is there already
    assert {saving.steps[0].name for saving in found} == names
    for saving in found:
        made = loaded(path, saving.lines)
        assert made == saving.estimate.config
        assert estimate(made, speeds).hours().value == saving.estimate.hours().value
        assert saving.estimate.hours().value < estimate(config, speeds).hours().value


def test_steps_change_what_they_say(given):
    _, config, plain, speeds = given
    made = {saving.steps[0].name: saving.estimate.config for saving in savings(config, plain, speeds)}
    assert made["one seed less"].seeds == [0, 1, 2]
    assert not made["no ablations"].ablations and made["one study a row"].sweep.repeats == 1
    assert {d.validation.folds for d in made["one fold"].datasets.values()} == {1}
    assert [rung.trials for rung in made["half the trials"].rungs("ssv2")] == [4, 2]
    assert {d.clips.test_segments * d.clips.test_crops for d in made["one test view"].datasets.values()} == {1}
    assert made["no search"].rungs("ssv2") == []
    assert "ssv2" not in made["without ssv2"].datasets and not made["without ssv2"].ablations


def test_halving_is_proposed_where_all_trials_are_trained_in_full(given):
    path, _, plain, _ = given
    config = parse_config(plain | {"sweep": {"trials": 9}}, "full.yaml").placed(origin=path)
    full = plain | {"sweep": {"trials": 9}}
    (halved,) = [s for s in savings(config, full, assumed(config)) if s.steps[0].name == "halving"]
    assert [(r.trials, r.epochs) for r in halved.estimate.config.rungs("ssv2")] == [(9, 1), (3, 4)]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3, 0.1, 0.03])
def test_a_budget_is_kept_with_three_seeds_and_one_budget_for_all(given, share):
    path, config, plain, speeds = given
    whole = estimate(config, speeds).hours().value
    found, fits = fit_budget(config, plain, speeds, share * whole)
    assert fits and found.estimate.hours().value <= share * whole
    made = loaded(path, found.lines)
    assert len(made.seeds) >= 3 and list(made.methods) == list(config.methods)
    assert estimate(made, speeds).hours().value == found.estimate.hours().value


def test_no_step_is_taken_that_is_not_needed(given):
    _, config, plain, speeds = given
    whole = estimate(config, speeds).hours().value
    assert fit_budget(config, plain, speeds, whole)[0].steps == []
    without = {s.steps[0].name: s.estimate.hours().value for s in savings(config, plain, speeds)}
    found, _ = fit_budget(config, plain, speeds, without["one study a row"])
    assert [step.name for step in found.steps] == ["one study a row"]


def test_what_fits_nowhere_is_said(given):
    _, config, plain, speeds = given
    found, fits = fit_budget(config, plain, speeds, 1e-6)
    assert not fits and len(found.estimate.config.datasets) == 1 and len(found.estimate.config.seeds) == 3
