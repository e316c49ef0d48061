"""A config builds on another: merged once by the reader, and errors name the file that says the wrong key."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_config, read_yaml, resolved
from ssp.errors import ConfigError
from tests.unit.tiny_benchmark import tiny_config


@pytest.fixture
def base(tmp_path):
    """base/tiny.yaml: a whole config."""
    path = tmp_path / "base" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(
        yaml.safe_dump(tiny_config(tmp_path).model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    )
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_maps_merge_null_removes_lists_and_scalars_replace(base, tmp_path):
    mine = write(
        tmp_path / "mine.yaml",
        "extends: base/tiny.yaml\nname: mine\nseeds: [3]\nexplained:\n"
        "methods: {full: null, lora: null, vpt: {options: {num_prompts: 3}}}\n"
        "datasets: {ucf101: {recipe: {epochs: 1}}}\n",
    )
    plain, _ = resolved(read_yaml(mine), mine)
    whole = yaml.safe_load(base.read_text())
    whole["datasets"]["ucf101"]["recipe"]["epochs"] = 1
    whole["methods"] = {
        "linear": whole["methods"]["linear"],
        "vpt": {"options": {"num_prompts": 3}},
        "ssp": whole["methods"]["ssp"],
        "lora": None,  # nothing to remove: a row without settings, as in any config
    }
    del whole["explained"]
    assert plain == whole | {"name": "mine", "seeds": [3]}
    assert [*load_config(mine).methods] == ["linear", "vpt", "ssp", "lora"]


def test_hashes_and_the_copy_for_jobs_depend_on_the_outcome_alone(base, tmp_path):
    between = write(tmp_path / "between.yaml", "extends: base/tiny.yaml\nseeds: [5]\nname: other\n")
    mine = write(tmp_path / "mine.yaml", f"extends: {between}\nseeds: [0, 1]\nname: tiny\n")
    config = load_config(mine)
    assert config == load_config(base)
    assert config.cell_slice("ucf101", "ssp") == load_config(base).cell_slice("ucf101", "ssp")
    assert "extends" not in config.model_dump()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: absent.yaml", "mine.yaml: extends: no file absent.yaml; give a path relative to this file"),
        ("extends: [a, b]", "mine.yaml: extends: give the path of one config, relative to this file, not ['a', 'b']"),
        ("extends: mine.yaml", "mine.yaml: extends: goes in a circle (mine.yaml > mine.yaml); remove one of them"),
        ("extends: ./other.yaml", "other.yaml: extends: goes in a circle (mine.yaml > other.yaml > mine.yaml)"),
        ("extends: list.yaml", "list.yaml: a config is a mapping of keys, and mine.yaml extends it"),
        ("extends: twice.yaml", "twice.yaml: key 'a' is there twice, in line 1 and line 2; remove one"),
        ("extends: base/tiny.yaml\nsede: 1", "mine.yaml: sede: unknown key"),
        ("extends: base/wrong.yaml\nname: mine", "base/wrong.yaml: sede: unknown key; did you mean"),
        (
            "extends: base/tiny.yaml\nbackbone: {checkpoints: {f4: {pretrain: {}}}}",
            "mine.yaml: backbone.checkpoints.f4.",
        ),
        ("extends: base/tiny.yaml\ndatasets: {ucf101: {clips: null}}", "mine.yaml: datasets.ucf101.clips: missing"),
        ("extends: base/tiny.yaml\nreference: sspp", "mine.yaml: reference: 'sspp' is none of methods"),
        ("extends: base/tiny.yaml\nmethods: {ssp: null}", "base/tiny.yaml: reference: 'ssp' is none of methods"),
    ],
)
def test_an_error_is_one_line_that_names_the_file_of_the_key(base, tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "list.yaml", "- 1\n")
    write(tmp_path / "twice.yaml", "a: 1\na: 2\n")
    write(tmp_path / "other.yaml", "extends: mine.yaml\n")
    write(base.with_name("wrong.yaml"), "extends: tiny.yaml\nsede: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "mine.yaml", f"{text}\n").relative_to(tmp_path))
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_problems_of_two_files_are_told_apart(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(base.with_name("wrong.yaml"), "extends: tiny.yaml\nsweep: {trials: many}\n")
    write(tmp_path / "mine.yaml", "extends: base/wrong.yaml\nseeds: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config("mine.yaml")
    problems = str(caught.value).split("; ")
    assert [problem[: problem.rindex(":")] for problem in problems] == [
        "mine.yaml: seeds",
        "base/wrong.yaml: sweep.trials",
    ]


def test_what_only_training_code_knows_is_found_in_its_file(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(base.with_name("wrong.yaml"), "extends: tiny.yaml\nmethods: {vpt: {options: {prompts: 1}}}\n")
    write(tmp_path / "mine.yaml", "extends: base/wrong.yaml\nname: mine\n")
    done = CliRunner().invoke(app, ["check", "mine.yaml"])
    assert str(done.exception).startswith("base/wrong.yaml: methods.vpt.options.prompts: unknown option")
