"""A predictor from results wherever they lie, and one line where something is missing."""

import shutil

import pytest
import torch
import yaml

import ssp
from ssp.errors import CheckpointError, ConfigError, RecordError


@pytest.fixture
def moved(trained, tmp_path, monkeypatch):
    """A copy of the results under another name, and a function that changes its config; videos and frames are gone."""
    folder = tmp_path / "elsewhere" / "somebody"
    shutil.copytree(trained.results, folder)
    monkeypatch.chdir(tmp_path)
    plain = yaml.safe_load((folder / "config.yaml").read_text())

    def change(*keys, value):
        at = plain
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    change("data_root", value="gone")
    folder_of = {"folder": folder, "change": change}
    return type("Moved", (), folder_of)


@pytest.mark.parametrize("row", ["ssp", "folded"])
def test_results_elsewhere_name_videos_as_they_did(trained, moved, row):
    here = ssp.load(str(trained.results), "ucf101", row, seed=1)
    there = ssp.load(moved.folder, "ucf101", row, 1)
    assert here.classes == there.classes
    assert here.predict(trained.videos[0]) == there.predict(trained.videos[0])
    assert here.predict(trained.videos[0]) != ssp.load(moved.folder, "ucf101", row, 0).predict(trained.videos[0])


def test_own_videos_need_not_be_there(trained, moved):
    """Without `expected` the number of classes stands in the manifest alone."""
    other = {"source": "folder", "videos": "gone", "archives": [], "expected": None, "generate": None, "local": None}
    for key, value in other.items():
        moved.change("datasets", "ucf101", key, value=value)
    assert len(ssp.load(moved.folder, "ucf101", "ssp").classes) == 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_does(trained, moved):
    moved.change("compute", "train", "gpus", value=1)
    assert ssp.load(moved.folder, "ucf101", "ssp").execution.device.type == "cpu"


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (("ucf101", "lora"), "config 'tiny': no method 'lora'; it has: ssp, folded"),
        (("hmdb51", "ssp"), "config 'tiny': no data set 'hmdb51'; it has: ucf101"),
        (("ucf101", "ssp", 7), "--seed: 7 is not in config 'tiny'; it has: [0, 1]"),
        ((), "results of several models; say which by data set and row"),
    ],
)
def test_what_the_results_do_not_have(trained, wanted, line):
    with pytest.raises(ConfigError) as raised:
        ssp.load(trained.results, *wanted)
    assert line in str(raised.value)


def test_no_results(tmp_path):
    for folder, line in (
        (tmp_path / "no", "no folder; give results"),
        (tmp_path, "neither config.yaml of results nor"),
    ):
        with pytest.raises(ConfigError) as raised:
            ssp.load(folder, "ucf101", "ssp")
        assert str(raised.value).startswith(f"{folder}: {line}")


def test_a_missing_backbone_is_named_with_the_key_to_mend(moved):
    moved.change("backbone", "checkpoints", "f4", "local", value="not/here.safetensors")
    with pytest.raises(CheckpointError) as raised:
        ssp.load(moved.folder, "ucf101", "ssp")
    there = moved.folder.parents[1] / "not" / "here.safetensors"
    assert str(raised.value) == (
        f"{there}: no such file, but tiny/ucf101/ssp was tuned from this backbone; put it there, or mend "
        f"backbone.checkpoints.f4 in {moved.folder / 'config.yaml'}"
    )


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("records/ucf101/ssp/seed0.json", RecordError),
        ("weights/ucf101/ssp/seed0.safetensors", CheckpointError),
        ("manifests/ucf101.parquet", RecordError),
    ],
)
def test_a_missing_file_is_named(moved, file, error):
    (moved.folder / file).unlink()
    with pytest.raises(error) as raised:
        ssp.load(moved.folder, "ucf101", "ssp")
    assert str(raised.value).startswith(f"{moved.folder / file}: ") and "\n" not in str(raised.value)


def test_another_manifest_gives_no_names(trained, moved):
    trained.manifest.iloc[:-1].to_parquet(moved.folder / "manifests" / "ucf101.parquet", index=False)
    with pytest.raises(RecordError, match="not the manifest that tiny/ucf101/ssp was trained with"):
        ssp.load(moved.folder, "ucf101", "ssp")


def test_other_weights_than_the_record_s_are_not_used(moved):
    weights = moved.folder / "weights" / "ucf101" / "ssp"
    shutil.copy(weights / "seed1.safetensors", weights / "seed0.safetensors")
    with pytest.raises(RecordError) as raised:
        ssp.load(moved.folder, "ucf101", "ssp", 0)
    said = str(raised.value)
    assert said.startswith(f"{weights / 'seed0.safetensors'}: not the weights that its record was measured with; ")
    assert said.endswith("--dataset ucf101 --method ssp --seed 0") and "\n" not in said
    assert ssp.load(moved.folder, "ucf101", "ssp", 1).classes
