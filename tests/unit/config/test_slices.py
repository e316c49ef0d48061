"""Every key decides something: it is in a slice (a change reruns jobs), or listed here as deciding nothing."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import ssp.config
from ssp.config import Config, Quirk, Quirks, Strict, read_yaml, slice_lines
from ssp.config.benchmark import DATA_QUIRKS, METHOD_QUIRKS, NO_QUIRK
from ssp.data.frames import FrameStore
from ssp.data.sampling import validation_indices
from ssp.methods.registry import load_method, method_names
from tests.unit.made_records import make_config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = [ROOT / "config" / "demo.yaml", ROOT / "tests" / "workflow" / "tiny.yaml"]

# Where results go, who keeps count, what jobs may use, where bytes come from: none changes a result. Nor do the
# keys that decide which jobs there are (seeds, names): each job's own results stay the same.
NO_OUTCOME = ("name", "data_root", "environment", "tracking.", "compute.", "sweep.storage")
PLACES = (".urls", ".local")


def is_model(thing: object) -> bool:
    """Whether a name of ssp.config is one of its models."""
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def _leaves(data: Any, key: tuple = ()) -> list[tuple[tuple, Any]]:
    if isinstance(data, dict) and data:
        return [leaf for name in data for leaf in _leaves(data[name], (*key, name))]
    if isinstance(data, list) and any(isinstance(entry, dict) for entry in data):
        return [leaf for index in range(len(data)) for leaf in _leaves(data[index], (*key, index))]
    return [(key, data)]


def _other(value: Any) -> list[Any]:
    """Values to try instead: one of them must pass the checks."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1]
        case float():
            return [value * 0.5, value + 0.01]
        case str():
            enough = [
                "sparse",
                "dense",
                "float32",
                "published",
                "hmdb51",
                "ucf101",
                "breakfast",
                "videomamba_tiny",
                "spare",
                "vpt",
                "search",
            ]
            return [*enough, "environment.yml", "environment.cuda.yml", value + "x"]
        case list():
            return [[*value[:-1], more] for more in _other(value[-1])] if value else [["x"], [1]]
        case dict():
            return [{"options": {"x": 1}}, {"lr": {"low": 0.1, "high": 0.2}}]
        case None:
            return [1, 0.5, "published", "x"]
    raise TypeError(value)


def _slices(config: Config) -> set[tuple[str, str]]:
    """All that the workflow passes as params, over all jobs."""
    lines = {("tables", line) for line in slice_lines(config.tables_slice())}
    lines |= {("costs", line) for line in slice_lines(config.costs_slice())}
    lines |= {("explained", str(config.explained))}
    for name in config.ablations:
        lines |= {(f"ablation {name}", line) for line in slice_lines(config.ablation_slice(name))}
    for name in config.backbone.checkpoints:
        lines |= {(name, line) for line in slice_lines(config.backbone_slice(name))}
    for dataset in config.datasets:
        for one in (config.archive_slice, config.manifest_slice, config.frames_slice):
            lines |= {(f"{one.__name__} {dataset}", line) for line in slice_lines(one(dataset))}
        for method in config.methods:
            for one in (config.sweep_slice, config.cell_slice):
                lines |= {(f"{one.__name__} {dataset} {method}", line) for line in slice_lines(one(dataset, method))}
    return lines


def _changed(data: dict, key: tuple, value: Any) -> Config | None:
    data = copy.deepcopy(data)
    inner = data
    for parent in key[:-1]:
        inner = inner[parent]
    inner[key[-1]] = value
    try:
        return Config.model_validate(data)
    except ValueError:
        return None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_changes_a_slice_or_is_known_to_decide_nothing(path):
    data = read_yaml(path)
    checkpoints = data["backbone"]["checkpoints"]
    checkpoints["spare"] = next(iter(checkpoints.values()))  # so that a data set has another one to name
    before = _slices(Config.model_validate(data))
    for key, value in _leaves(data):
        configs = (config for other in _other(value) if other != value and (config := _changed(data, key, other)))
        name, config = ".".join(map(str, key)), next(configs, None)
        assert config, f"the test knows no other valid value for {name}"
        moved = _slices(config) != before
        decides_nothing = name.startswith(NO_OUTCOME) or name.endswith(PLACES)
        assert moved != decides_nothing, f"{name}: {'moves' if moved else 'moves no'} slice"


def test_a_methods_options_touch_only_its_own_cells():
    data = read_yaml(CONFIGS[1])
    config = Config.model_validate(data)
    data["methods"]["vpt"] = {"options": {"x": 1}}
    touched = {where for where, _ in _slices(Config.model_validate(data)) ^ _slices(config)}
    assert touched == {f"{kind}_slice {d} vpt" for kind in ("sweep", "cell") for d in config.datasets} | {"costs"}


@pytest.mark.parametrize(
    ("change", "decides"),
    [
        ({"batch_size": 5}, True),
        ({"micro_batch": 4}, True),
        ({"precision": "float32"}, True),
        ({"clip_grad": 2.0}, True),
        ({"augmentation": {"repeats": 2}}, True),
        ({"epochs": 9}, False),
        ({"label_smoothing": 0.3}, False),
        ({"augmentation": {"scale": [0.2, 1.0]}}, False),
    ],
    ids=str,
)
def test_costs_depend_on_the_steps_of_the_first_data_set(change, decides):
    data = read_yaml(CONFIGS[1])
    before = Config.model_validate(data).costs_slice()
    data["datasets"]["breakfast"]["recipe"] |= change
    assert Config.model_validate(data).costs_slice() == before
    data["datasets"]["ucf101"]["recipe"] |= change
    assert (Config.model_validate(data).costs_slice() != before) == decides


def test_how_test_is_read_is_no_part_of_what_a_sweep_depends_on():
    data = read_yaml(CONFIGS[1])
    config = Config.model_validate(data)
    data["datasets"]["ucf101"]["clips"]["test_segments"] = 5
    touched = {where.split()[0] for where, _ in _slices(Config.model_validate(data)) ^ _slices(config)}
    assert touched == {"cell_slice"}
    together = {"devices": 4, "validation": 1, "test": 4}
    data["datasets"]["ucf101"]["recipe"]["co_batched"] = together
    config = Config.model_validate(data)
    together["test"] = 16
    touched = {where.split()[0] for where, _ in _slices(Config.model_validate(data)) ^ _slices(config)}
    assert touched == {"cell_slice"}


def test_stereo_channels_decide_the_manifest_and_are_of_breakfast_alone():
    data = read_yaml(CONFIGS[1])
    config = Config.model_validate(data)
    data["datasets"]["breakfast"]["stereo_channels"] = 2
    moved = {where for where, _ in _slices(Config.model_validate(data)) - _slices(config)}
    assert {"manifest_slice breakfast", "cell_slice breakfast vpt"} < moved
    assert all("breakfast" in where for where in moved)
    data["datasets"]["ucf101"]["stereo_channels"] = 2
    with pytest.raises(ValueError, match=r"ucf101\.stereo_channels: only breakfast has a stereo camera; leave it out"):
        Config.model_validate(data)


def test_the_number_of_all_videos_counts_only_where_it_is_given():
    """Runs from before there was this key stay what they are; a config that gives it is compared anew."""
    data = read_yaml(CONFIGS[1])
    config = Config.model_validate(data)
    assert config.cell_slice("ucf101", "vpt")["dataset"]["expected"] == {"classes": 10, "train": 30, "test": 20}
    data["datasets"]["ucf101"]["expected"]["clips"] = 50
    moved = {where for where, _ in _slices(Config.model_validate(data)) - _slices(config)}
    assert "manifest_slice ucf101" in moved
    assert all("ucf101" in where for where in moved)


# What is new with a default, or touches something else, moves no slice.

SECTIONS = [
    model for name in ssp.config.__all__ if is_model(model := getattr(ssp.config, name)) and model is not Strict
]


def models_in(annotation: object) -> set[type[BaseModel]]:
    """The models that values of a type are, or hold directly."""
    return {annotation} if is_model(annotation) else set().union(*map(models_in, get_args(annotation)))


def holds(outer: type[BaseModel], inner: type[BaseModel]) -> bool:
    """Whether a model is another one, or has it somewhere below."""
    below = set().union(*(models_in(field.annotation) for field in outer.model_fields.values()))
    return outer is inner or any(holds(model, inner) for model in below)


@pytest.fixture
def with_new_field():
    """Gives a model of the config a field with a default, as a later version would; takes it away afterwards."""
    changed = []

    def rebuild(inner: type[BaseModel]) -> None:
        outer = [model for model in SECTIONS if holds(model, inner)]
        # A model is built from those below it as they are: these come first.
        for model in sorted(outer, key=lambda model: sum(holds(model, other) for other in SECTIONS)):
            model.model_rebuild(force=True)

    def add(model: type[BaseModel]) -> None:
        changed.append(model)
        model.__pydantic_fields__["later"] = FieldInfo(annotation=int, default=7)
        rebuild(model)
        assert ("later" in json.dumps(Config.model_json_schema())) == holds(Config, model)  # not of Budget, a base

    yield add
    for model in changed:
        del model.__pydantic_fields__["later"]
        rebuild(model)


@pytest.mark.parametrize("model", SECTIONS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_new_key_with_a_default_moves_no_slice(with_new_field, path, model):
    data = read_yaml(path)
    before = _slices(Config.model_validate(data))
    with_new_field(model)
    assert _slices(Config.model_validate(data)) == before


def test_the_new_key_is_really_there_and_moves_slices_once_it_is_used(with_new_field):
    with_new_field(ssp.config.Augmentation)
    data = read_yaml(CONFIGS[1])
    before = Config.model_validate(data)
    assert before.datasets["ucf101"].recipe.augmentation.model_dump()["later"] == 7
    data["datasets"]["ucf101"]["recipe"]["augmentation"]["later"] = 8
    assert {where for where, _ in _slices(Config.model_validate(data)) ^ _slices(before)} == {
        f"{kind}_slice ucf101 {method}" for kind in ("sweep", "cell") for method in before.methods
    }


def test_what_equals_its_default_is_in_no_slice():
    data = read_yaml(CONFIGS[1])
    before = _slices(Config.model_validate(data))
    ucf101 = data["datasets"]["ucf101"]
    ucf101["split"] = 1
    ucf101["recipe"]["augmentation"]["flip"] = 0.5
    ucf101["frames"]["jpeg_quality"] = 95
    data["datasets"]["breakfast"]["clips"]["stride"] = 1
    data["sweep"]["space"]["lr"]["choices"] = None
    data["methods"]["linear"] = {"options": {}, "space": {}}
    data["protocol"] = "fixed"
    data["quirks"] = {"merge_ids": "fixed"}
    data["methods"]["ssp"]["options"]["entropy_norm"] = "fixed"
    assert _slices(Config.model_validate(data)) == before


@pytest.mark.parametrize("key", ["timeout_s", "max_broken"])
def test_limits_on_decoding_rerun_no_shard(key):
    data = read_yaml(CONFIGS[1])
    before = _slices(Config.model_validate(data))
    data["datasets"]["ucf101"]["frames"][key] = 0.5
    assert _slices(Config.model_validate(data)) == before


def test_frames_depend_on_what_the_store_says_it_was_made_with(tiny_data):
    """Every setting that a store names is in the slice once it differs from its default, and no other."""
    named = set(FrameStore(tiny_data / "ucf101" / "frames").meta) - {"manifest", "shard"}
    data = read_yaml(CONFIGS[1])
    data["datasets"]["ucf101"]["frames"] = {
        "shards": 2,
        "short_side": 16,
        "jpeg_quality": 50,
        "max_broken": 0.5,
        "timeout_s": 3,
    }
    assert set(data["datasets"]["ucf101"]["frames"]) == set(ssp.config.Frames.model_fields)
    config = Config.model_validate(data)
    assert set(config.frames_slice("ucf101")["frames"]) == named
    assert set(config.cell_slice("ucf101", "vpt")["dataset"]["frames"]) == named - {"shards"}


QUIRKS = {  # where each acts: kinds of slices, data sets (ucf101 is dense, breakfast sparse), methods
    "entropy_norm": (("sweep", "cell"), ("ucf101", "breakfast"), ("ssp",)),
    "validation_window": (("sweep", "cell"), ("ucf101",), ("linear", "vpt", "ssp")),
    "short_videos": (("sweep", "cell"), ("breakfast",), ("linear", "vpt", "ssp")),
    "frame_norm": (("sweep", "cell"), ("ucf101", "breakfast"), ()),  # of STOP alone
    "merge_ids": (("cell",), ("ucf101", "breakfast"), ("linear", "vpt", "ssp")),
    "best_epoch": (("cell",), ("ucf101", "breakfast"), ("linear", "vpt", "ssp")),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_quirk_touches_what_it_acts_on(quirk):
    kinds, datasets, methods = QUIRKS[quirk]
    data = read_yaml(CONFIGS[1])
    before = _slices(Config.model_validate(data))
    touched = {where for where, _ in _slices(Config.model_validate(data | {"quirks": {quirk: "published"}})) ^ before}
    of_the_models = {"costs"} if quirk == "entropy_norm" else set()
    assert touched == {f"{kind}_slice {d} {m}" for kind in kinds for d in datasets for m in methods} | of_the_models
    overridden = data | {"protocol": "published", "quirks": dict.fromkeys(QUIRKS, "fixed")}
    assert _slices(Config.model_validate(overridden)) == before
    by_protocol = data | {"protocol": "published", "quirks": dict.fromkeys(set(QUIRKS) - {quirk}, "fixed")}
    assert {where for where, _ in _slices(Config.model_validate(by_protocol)) ^ before} == touched


def test_all_quirks_are_placed():
    assert set(QUIRKS) == set(Quirks.model_fields)


def test_quirks_of_methods_are_options_of_just_these():
    """The config knows them without torch; the classes are the truth."""
    for name in method_names():
        options = load_method(name).Options.model_fields
        quirks = {
            option for option, field in options.items() if set(get_args(field.annotation)) == set(get_args(Quirk))
        }
        assert quirks == set(METHOD_QUIRKS.get(name, ())), name
        assert all(options[quirk].default == NO_QUIRK for quirk in quirks)


def test_an_option_goes_before_the_quirk_of_its_name():
    data = read_yaml(CONFIGS[1]) | {"protocol": "published"}
    assert Config.model_validate(data).cell_slice("ucf101", "ssp")["method"]["options"]["entropy_norm"] == "published"
    data["methods"]["ssp"]["options"]["entropy_norm"] = "fixed"
    assert "entropy_norm" not in Config.model_validate(data).cell_slice("ucf101", "ssp")["method"]["options"]


@pytest.mark.parametrize("sampling", ["dense", "sparse", "kinetics_sparse"])
def test_data_quirks_change_no_other_sampling(sampling):
    clips = ssp.config.Clips(sampling=sampling, num_frames=4)
    for quirk in ("validation_window", "short_videos"):
        changes = any(
            not np.array_equal(*(validation_indices(n, clips, **{quirk: value}) for value in ("fixed", "published")))
            for n in range(1, 30)
        )
        assert changes == (DATA_QUIRKS[quirk] == sampling)


def test_where_a_backbone_lies_is_no_part_of_what_a_run_is():
    """Other people have other homes; which file it is, records say by its hash (`backbone_hash`)."""
    homes = [make_config(backbone=_local(path)) for path in ("/home/me/tiny.pth", "/home/you/weights/t.pth")]
    slices = [config.cell_slice("hmdb51", "ssp") for config in homes]
    assert slices[0] == slices[1] and homes[0].costs_slice() == homes[1].costs_slice()


def _local(path):
    checkpoints = {"tiny": {"num_frames": 8, "local": path}}
    return {"architecture": {"embed_dim": 64, "depth": 4}, "image_size": 32, "checkpoints": checkpoints}
