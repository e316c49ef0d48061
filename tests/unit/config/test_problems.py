"""All that is wrong with a config in one line: misspelled keys first, with the nearest; types in words of the file."""

import copy
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ssp.config import parse_config, source_names
from ssp.config.problems import problems
from ssp.errors import ConfigError
from ssp.methods.registry import method_names
from ssp.records.record import Record

TINY = Path(__file__).resolve().parents[2] / "workflow" / "tiny.yaml"
ARCHITECTURE = (
    "backbone.architecture: give 'videomamba_tiny', 'videomamba_small', 'videomamba_middle' "
    "or a mapping of embed_dim, depth, patch_size, not "
)
MISSING = "missing"
GONE = object()


def said(**changes) -> str:
    """What is said of the tiny config with these changes ("a__b=value" for the key a.b)."""
    data = copy.deepcopy(yaml.safe_load(TINY.read_text()))
    for keys, value in changes.items():
        *parents, last = keys.split("__")
        at = data
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is GONE:
            del at[last]
        else:
            at[last] = value
    with pytest.raises(ConfigError) as error:
        parse_config(data, "my.yaml")
    assert str(error.value).isprintable()
    return str(error.value).removeprefix("my.yaml: ")


def test_a_misspelled_key_comes_before_the_one_that_is_missing_for_it():
    assert said(seeds=GONE, sedes=[0]) == f"sedes: unknown key; did you mean 'seeds'?; seeds: {MISSING}"


def test_every_problem_is_there():
    line = said(title=GONE, colour=1, sweep__trials=-1, compute__trian={}, datasets__ucf101__clips__strid=1)
    assert line.startswith("datasets.ucf101.clips.strid: unknown key; did you mean 'stride'?; ")
    for part in (
        "; compute.trian: unknown key; did you mean 'train'?",
        "; colour: unknown key; known: name, title, data_root, ",
        f"; title: {MISSING}",
        "; sweep.trials: Input should be greater than or equal to 0, not -1",
    ):
        assert part in line
    assert line.index("colour") < line.index("title: missing")


def test_every_name_that_is_not_known_is_there():
    line = said(methods__linar={}, datasets__ucf101__source="ucf11", datasets__breakfast__checkpoint="f8", seeds=[1, 1])
    assert line == (
        f"methods.linar: unknown method; did you mean 'linear'? known: {', '.join(method_names())}; "
        f"datasets.ucf101.source: unknown source 'ucf11'; did you mean 'ucf101'? known: {', '.join(source_names())}; "
        "datasets.breakfast.checkpoint: 'f8' is not in backbone.checkpoints (f4); "
        "seeds: every seed must be there once; "
        "ablations.prompts.seeds: 0 is none of seeds (1, 1)"
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"backbone__architecture": "videomamba_huge"}, f"{ARCHITECTURE}'videomamba_huge'"),
        ({"backbone__architecture": 3}, f"{ARCHITECTURE}3"),
        ({"backbone__architecture": [1]}, f"{ARCHITECTURE}a list"),
        ({"backbone__architecture": {"embed_dim": 16}}, f"backbone.architecture.depth: {MISSING}"),
        (
            {"backbone__architecture": {"embed_dim": 16, "depth": 1, "pach_size": 8}},
            "backbone.architecture.pach_size: unknown key; did you mean 'patch_size'?",
        ),
        ({"methods__linear": 5}, "methods.linear: give a mapping of keys, not 5"),
        ({"methods__linear": ["x"]}, "methods.linear: give a mapping of keys, not a list"),
        ({"methods__vpt__options": 5}, "methods.vpt.options: give a mapping of keys, not 5"),
        ({"methods": None}, "methods: give a mapping of keys, not nothing (null)"),
        ({"sweep__space__lr": 3}, "sweep.space.lr: give a mapping of keys, not 3"),
        ({"seeds": 3}, "seeds: give a list, not 3"),
        ({"seeds": ["a"]}, "seeds.0: give a whole number, not 'a'"),
        ({"seeds": {"a": 1}}, "seeds: give a list, not a mapping"),
        (
            {"datasets__ucf101__generate__size": [1.5, 2]},
            "datasets.ucf101.generate.size.0: give a whole number, not 1.5",
        ),
        ({"datasets__ucf101__start__lr": "x" * 500}, f"datasets.ucf101.start.lr: give a number, not '{'x' * 116}..."),
        ({"datasets__ucf101__frames": None}, f"datasets.ucf101.frames.shards: {MISSING}"),
        ({"two\nlines": 1}, "'two\\nlines': unknown key; known: name"),
        ({"methods__a b": {}}, "methods.a b: String should match pattern"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_types_in_words(changes, line):
    assert said(**changes).startswith(line)
    assert "instance of" not in said(**changes)


def test_an_empty_section_is_one_without_keys():
    data = yaml.safe_load(TINY.read_text())
    filled = parse_config(copy.deepcopy(data), "my.yaml")
    assert data["methods"]["linear"] == {}
    data["methods"]["linear"] = {"options": None, "space": None}
    assert parse_config(copy.deepcopy(data), "my.yaml") == filled
    data["methods"]["linear"] = None
    data |= {"quirks": None, "tracking": None, "compute": {"train": None}}
    assert parse_config(data, "my.yaml") == filled


def test_a_file_of_another_kind_does_not_fill_the_screen():
    with pytest.raises(ValidationError) as error:
        Record.model_validate({f"key{i}": i for i in range(200)})
    line = problems(error.value, Record)
    assert line.count("; ") < 30
    assert line.endswith(" more")
