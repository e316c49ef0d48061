"""Tuned weights: what is in the file, that it fits only the model it was made for, and its size."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ssp import build_model
from ssp.backbone.checkpoint import describe, load_tuned, read_metadata, save_tuned
from ssp.errors import CheckpointError

SMALL = {"embed_dim": 16, "depth": 2, "patch_size": 8}


def model(method="vpt", classes=3, frames=2, seed=0, **options):
    torch.manual_seed(seed)
    options = options or ({"num_prompts": 4} if method == "vpt" else None)
    return build_model(SMALL, method, classes, num_frames=frames, img_size=16, method_options=options)


def test_holds_what_was_tuned_and_nothing_else(tmp_path):
    save_tuned(model(), tmp_path / "w.safetensors", {"config": "seeds: [0]"})
    assert set(load_file(tmp_path / "w.safetensors")) == {
        "prompt_embeddings",
        "head.weight",
        "head.bias",
        "norm_f.weight",
    }
    metadata = read_metadata(tmp_path / "w.safetensors")
    assert metadata["config"] == "seeds: [0]"
    assert json.loads(metadata["ssp"]) == describe(model())
    assert describe(model())["options"] == {"num_prompts": 4, "position": "after_cls", "init": "uniform", "deep": True}


@pytest.mark.slow
def test_ssp_on_the_published_backbone_is_small(tmp_path):
    save_tuned(build_model("videomamba_middle", "ssp", 174), tmp_path / "w.safetensors", {})
    assert (tmp_path / "w.safetensors").stat().st_size < 11e6


def test_same_weights_same_bytes(tmp_path):
    metadata = {letter: f"Grüße {letter}" for letter in "qwertyuiop"}
    contents = set()
    for i in range(5):
        save_tuned(model(), tmp_path / f"{i}.safetensors", dict(sorted(metadata.items(), reverse=i % 2 == 0)))
        contents.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata().items() >= metadata.items()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"method": "linear"}, "was tuned with method 'vpt', this model has 'linear'"),
        ({"num_prompts": 5}, "was tuned with num_prompts 4, this model has 5"),
        ({"classes": 4}, "was tuned with num_classes 3, this model has 4"),
        ({"frames": 3}, "was tuned with num_frames 2, this model has 3"),
    ],
)
def test_fits_only_the_model_it_was_made_for(other, message, tmp_path):
    save_tuned(model(), tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError) as error:
        load_tuned(model(**other), tmp_path / "w.safetensors")
    assert str(error.value).startswith(f"{tmp_path}/w.safetensors: {message}")


def test_wrong_keys_load_nothing(tmp_path):
    path, target = tmp_path / "w.safetensors", model(seed=1)
    save_tuned(model(), path, {})
    metadata, state = read_metadata(path), load_file(path)
    del state["norm_f.weight"]
    save_file(state | {"surplus": torch.zeros(1)}, path, metadata)
    before = target.head.weight.clone()
    with pytest.raises(CheckpointError, match=r"does not fit this model: missing norm_f.weight; unexpected surplus$"):
        load_tuned(target, path)
    assert torch.equal(target.head.weight, before)


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "garbage.safetensors").write_bytes(b"garbage")
    expected = {"plain": "no tuned weights of this software", "garbage": "not a readable", "none": "no such file"}
    for stem, message in expected.items():
        with pytest.raises(CheckpointError, match=message):
            load_tuned(model(), tmp_path / f"{stem}.safetensors")


def test_metadata_cannot_replace_the_description(tmp_path):
    with pytest.raises(ValueError, match="metadata key 'ssp' is taken"):
        save_tuned(model(), tmp_path / "w.safetensors", {"ssp": "mine"})
    assert not list(tmp_path.iterdir())
