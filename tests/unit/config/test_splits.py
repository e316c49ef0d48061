"""A list of splits: one data set for each, archives shared, one column of the tables."""

from copy import deepcopy

import pytest
import yaml

from ssp.config import Config, parse_config, search_words
from ssp.errors import ConfigError
from tests.unit.tiny_benchmark import PLAIN as TINY

PLAIN = deepcopy(TINY)
PLAIN["data_root"] = "data"
PLAIN["backbone"]["checkpoints"]["f4"]["local"] = "backbone.safetensors"
PLAIN["datasets"]["ucf101"]["local"] = "made"
EXPECTED = {"classes": 10, "train": [30, 28, 27], "test": [20, 22, 23]}


def config(dataset=None, **changes) -> Config:
    plain = deepcopy(PLAIN) | changes
    plain["datasets"]["ucf101"] |= {"split": [1, 2, 3], "expected": EXPECTED} | (dataset or {})
    return parse_config(plain, "splits.yaml")


def test_each_split_is_a_data_set_of_one_column():
    found = config()
    assert found.columns == {"ucf101": ["ucf101-split1", "ucf101-split2", "ucf101-split3"]}
    second = found.datasets["ucf101-split2"]
    assert (second.split, second.expected.train, second.expected.test) == (2, 28, 22)
    assert second.expected.classes == 10  # what is no list holds for all
    assert [*found.archived] == ["ucf101"] and found.column_of("ucf101-split3") == "ucf101"
    assert len(found.runs()) == 3 * len(found.methods) * len(found.seeds)
    slices = [found.manifest_slice(name) for name in found.datasets]
    assert len({str(one) for one in slices}) == 3
    assert found.archive_slice("ucf101").items() <= slices[2].items()


def test_the_checked_copy_says_the_same():
    found = config()
    copy = parse_config(yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json"))), "copy")
    assert copy == found and copy.columns == found.columns


def test_one_split_is_what_it_was():
    alone = deepcopy(PLAIN)
    alone["datasets"]["ucf101"]["split"] = 2
    found = parse_config(alone, "one.yaml")
    assert found.columns == {"ucf101": ["ucf101"]}
    assert "split_of" not in found.model_dump()["datasets"]["ucf101"]


def test_rows_and_ablations_go_by_the_column():
    methods = deepcopy(PLAIN["methods"]) | {"vpt": {"starts": {"ucf101": {"lr": 0.5}}}}
    ablation = {"title": "A", "of": "ssp", "vary": {"num_prompts": [0, 1]}, "datasets": ["ucf101"]}
    found = config(methods=methods, ablations={"a": ablation})
    assert found.first_trial("ucf101-split2", "vpt").lr == 0.5
    assert found.ablation_runs("a")[0] == found.columns["ucf101"]
    assert found.ablation_slice("a")["datasets"] == ["ucf101"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"split": []}, "datasets.ucf101.split: give one number, or a list of different ones"),
        ({"split": [1, 1]}, "datasets.ucf101.split: give one number, or a list of different ones"),
        ({"split": ["one"]}, "datasets.ucf101.split: give one number, or a list of different ones"),
        ({"split": [1, 2]}, "datasets.ucf101.expected.train: give one number, or one for each of [1, 2]"),
        ({"expected": EXPECTED | {"classes": [10]}}, "datasets.ucf101.expected.classes: give one number, or one"),
    ],
)
def test_wrong_lists_are_named(dataset, message):
    with pytest.raises(ConfigError) as error:
        config(dataset)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_splits_share_is_said_once_under_the_name_that_was_written():
    with pytest.raises(ConfigError) as error:
        config({"checkpoint": "f9"})
    assert str(error.value) == "splits.yaml: datasets.ucf101.checkpoint: 'f9' is not in backbone.checkpoints (f4)"
    plain = deepcopy(PLAIN)
    plain["datasets"]["other"] = deepcopy(plain["datasets"]["ucf101"])
    plain["datasets"]["ucf101"] |= {"split": [1, 2, 3], "expected": EXPECTED, "fidelity": [{"trials": 5}]}
    assert search_words(parse_config(plain, "words.yaml")).startswith("5 trials (ucf101); ")


def test_a_list_of_counts_without_a_list_of_splits_is_an_error():
    with pytest.raises(ConfigError, match=r"datasets\.ucf101\.expected\.train: give a whole number"):
        config({"split": 1})


def test_only_a_list_says_what_a_data_set_is_a_split_of():
    with pytest.raises(ConfigError, match=r"datasets\.ucf101\.split_of: set by a list of splits; leave it out"):
        config({"split": 1, "expected": {"classes": 10, "train": 30, "test": 20}, "split_of": "hmdb51"})


def test_the_name_of_a_split_may_not_be_taken():
    plain = deepcopy(PLAIN)
    plain["datasets"]["ucf101-split1"] = deepcopy(plain["datasets"]["ucf101"])
    plain["datasets"]["ucf101"] |= {"split": [1, 2, 3], "expected": EXPECTED}
    with pytest.raises(ConfigError, match=r"datasets\.ucf101-split1: the name of a split of datasets\.ucf101"):
        parse_config(plain, "taken.yaml")
