"""Every key decides something: it is in a slice (a change reruns jobs), or listed here as deciding nothing."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssp.config import Config, slice_lines

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = [ROOT / "config" / "demo.yaml", ROOT / "tests" / "workflow" / "tiny.yaml"]

# Where results go, who keeps count, what jobs may use, where bytes come from: none changes a result. Nor do the
# keys that decide which jobs there are (seeds, names): each job's own results stay the same.
NO_OUTCOME = ("name", "data_root", "environment", "tracking.", "compute.", "sweep.storage")
PLACES = (".urls", ".local")


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
            enough = ["sparse", "dense", "float32", "published", "hmdb51", "ucf101", "videomamba_tiny", "spare"]
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
    data = yaml.safe_load(path.read_text())
    checkpoints = data["backbone"]["checkpoints"]
    checkpoints["spare"] = next(iter(checkpoints.values()))  # so that a data set has another one to name
    before = _slices(Config.model_validate(data))
    for key, value in _leaves(data):
        configs = [config for other in _other(value) if other != value and (config := _changed(data, key, other))]
        name = ".".join(map(str, key))
        assert configs, f"the test knows no other valid value for {name}"
        moved = _slices(configs[0]) != before
        decides_nothing = name.startswith(NO_OUTCOME) or name.endswith(PLACES)
        assert moved != decides_nothing, f"{name}: {'moves' if moved else 'moves no'} slice"


def test_a_methods_options_touch_only_its_own_cells():
    data = yaml.safe_load(CONFIGS[1].read_text())
    config = Config.model_validate(data)
    data["methods"]["vpt"] = {"options": {"x": 1}}
    touched = {where for where, _ in _slices(Config.model_validate(data)) ^ _slices(config)}
    assert touched == {f"{kind}_slice {d} vpt" for kind in ("sweep", "cell") for d in config.datasets}


def test_how_test_is_read_is_no_part_of_what_a_sweep_depends_on():
    data = yaml.safe_load(CONFIGS[1].read_text())
    config = Config.model_validate(data)
    data["datasets"]["ucf101"]["clips"]["test_segments"] = 5
    touched = {where.split()[0] for where, _ in _slices(Config.model_validate(data)) ^ _slices(config)}
    assert touched == {"cell_slice"}


def test_the_number_of_all_videos_counts_only_where_it_is_given():
    """Runs from before there was this key stay what they are; a config that gives it is compared anew."""
    data = yaml.safe_load(CONFIGS[1].read_text())
    config = Config.model_validate(data)
    assert config.cell_slice("ucf101", "vpt")["dataset"]["expected"] == {"classes": 10, "train": 30, "test": 20}
    data["datasets"]["ucf101"]["expected"]["clips"] = 50
    moved = {where for where, _ in _slices(Config.model_validate(data)) - _slices(config)}
    assert "manifest_slice ucf101" in moved
    assert all("ucf101" in where for where in moved)
