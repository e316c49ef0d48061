"""Published checkpoints: every documented difference is taken care of, every other one is an error that names keys."""

import argparse
import errno
import logging
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ssp import build_model, load_weights
from ssp.backbone.checkpoint import checkpoint_hash, load_whole, save_whole
from ssp.errors import CheckpointError
from ssp.methods.registry import load_method, method_names

SMALL = {"embed_dim": 16, "depth": 2, "patch_size": 8}
OPTIONS = {"ssp": {"inner_dim": 6, "attn_dim": 8}, "stop": {"heads": 4}}


def model(method="linear", frames=4, img_size=32, classes=5, seed=0):
    torch.manual_seed(seed)
    built = build_model(
        SMALL, method, classes, num_frames=frames, img_size=img_size, method_options=OPTIONS.get(method)
    )
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter))
    return built


@pytest.fixture
def published():
    """A state dict under published names, of another model than the one it is loaded into."""
    return {name: value.clone() for name, value in model(seed=1).state_dict().items()}


def refusal(target, source):
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_weights(target, source)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items()), "half loaded"
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_loaded(target, expected, but=()):
    for name, value in target.state_dict().items():
        if name not in but:
            assert torch.equal(value, expected[name]), name


# Forms.


@pytest.mark.parametrize("wrapper", [None, "model", "module"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "encoder.", "module.", "module.backbone."])
def test_wrapping_and_prefixes(published, wrapper, prefix, tmp_path):
    target, content = model(), {prefix + name: value for name, value in published.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "weights.pth")
    load_weights(target, tmp_path / "weights.pth")
    assert_loaded(target, published)


def test_sources(published, tmp_path):
    save_file(published, tmp_path / "weights.safetensors")
    torch.save(published, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    arrays = {name: value.numpy() for name, value in published.items()}
    swapped = {name: value.astype(value.dtype.newbyteorder()) for name, value in arrays.items()}
    paths = (tmp_path / "weights.safetensors", str(tmp_path / "old.pth"))
    for source in (*paths, published, arrays, swapped):
        target = model()
        load_weights(target, source)
        assert_loaded(target, published)


def test_arguments_of_a_training_script_beside_the_weights(published, tmp_path):
    torch.save({"model": published, "args": argparse.Namespace(lr=1e-3), "epoch": 1}, tmp_path / "w.pth")
    target = model()
    load_weights(target, tmp_path / "w.pth")
    assert_loaded(target, published)


def test_keeps_dtype_and_what_trains(published):
    target = model("ssp").double()
    trains = {name for name, parameter in target.named_parameters() if parameter.requires_grad}
    load_weights(target, {name: value.half() for name, value in published.items()})
    assert {parameter.dtype for parameter in target.parameters()} == {torch.float64}
    assert {name for name, parameter in target.named_parameters() if parameter.requires_grad} == trains
    assert torch.equal(target.cls_token, published["cls_token"].half().double())


# Conversions.


def test_image_model_is_inflated(published, caplog):
    published["patch_embed.proj.weight"] = published["patch_embed.proj.weight"].squeeze(2)
    del published["temporal_pos_embedding"]
    target = model()
    with caplog.at_level(logging.INFO, "ssp.checkpoint"):
        load_weights(target, published)
    assert torch.equal(target.patch_embed.proj.weight.squeeze(2), published["patch_embed.proj.weight"])
    assert not target.temporal_pos_embedding.any()
    assert "patch embedding inflated" in caplog.text and "temporal embedding stays zero" in caplog.text


def test_position_embedding_to_another_image_size(published):
    target = model(img_size=(48, 16))
    load_weights(target, published)
    space = published["pos_embed"]
    grid = space[:, 1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (6, 2), mode="bicubic", align_corners=False)
    assert torch.equal(target.pos_embed[:, :1], space[:, :1]), "the class token's place is no pixel"
    assert torch.equal(target.pos_embed[:, 1:], grid.permute(0, 2, 3, 1).reshape(1, 12, 16))
    assert_loaded(target, published, but={"pos_embed"})


@pytest.mark.parametrize("frames", [2, 8])
def test_temporal_embedding_to_another_clip_length(published, frames):
    target = model(frames=frames)
    load_weights(target, published)
    for channel in range(16):  # linear between frame centres, constant beyond the first and last
        places = (np.arange(frames) + 0.5) * 4 / frames - 0.5
        expected = np.interp(places, np.arange(4), published["temporal_pos_embedding"][0, :, channel])
        np.testing.assert_allclose(
            target.temporal_pos_embedding[0, :, channel].detach(), expected, rtol=1e-5, atol=1e-6
        )
    assert_loaded(target, published, but={"temporal_pos_embedding"})


def test_head_for_other_classes_is_left_out(published, caplog):
    target = model(classes=7)
    head = {name: target.state_dict()[name].clone() for name in ("head.weight", "head.bias")}
    with caplog.at_level(logging.INFO, "ssp.checkpoint"):
        load_weights(target, published)
    assert_loaded(target, published | head)
    assert "head for 5 classes left out" in caplog.text


def test_checkpoint_without_a_head(published):
    del published["head.weight"], published["head.bias"]
    target = model()
    head = {name: target.state_dict()[name].clone() for name in ("head.weight", "head.bias")}
    load_weights(target, published)
    assert_loaded(target, published | head)


def test_masked_pretraining(published, caplog):
    """Its decoder goes, its norm is the decoder's, and it has no head."""
    pretrained = {f"encoder.{name}": v for name, v in published.items() if not name.startswith(("head.", "norm_f."))}
    pretrained |= {"encoder.norm.weight": torch.randn(16), "encoder.clip_decoder.0.head.weight": torch.randn(4, 16)}
    target = model()
    head = {name: target.state_dict()[name].clone() for name in ("head.weight", "head.bias")}
    with caplog.at_level(logging.INFO, "ssp.checkpoint"):
        load_weights(target, {"model": pretrained})
    assert_loaded(target, published | head | {"norm_f.weight": torch.ones(16)})
    assert "dropped its decoder (1 tensors)" in caplog.text and "final norm starts at one" in caplog.text


# What does not fit.


@pytest.mark.parametrize("name", ["norm_f.weight", "layers.1.mixer.D_b", "temporal_pos_embedding", "head.bias"])
def test_missing_key(published, name):
    del published[name]
    assert refusal(model(), published) == f"state dict: does not fit this model: missing {name}"


def test_unexpected_and_misshapen_keys(published):
    published |= {"norm.weight": torch.ones(16), "layers.0.norm.weight": torch.ones(3)}
    message = refusal(model(), published)
    assert "unexpected norm.weight" in message
    assert "misshapen layers.0.norm.weight (3,) instead of (16,)" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_embed", (1, 16, 16)),  # 15 patches are no square
        ("pos_embed", (1, 5, 8)),
        ("temporal_pos_embedding", (1, 0, 16)),
        ("patch_embed.proj.weight", (16, 3, 4, 4)),
        ("patch_embed.proj.weight", (16, 3, 2, 8, 8)),
        ("head.weight", (7, 8)),
    ],
)
def test_nothing_else_is_converted(published, name, shape):
    published[name] = torch.zeros(shape)
    assert f"misshapen {name}" in refusal(model(), published)


def test_head_of_another_width_is_no_head_for_other_classes(published):
    published |= {"head.weight": torch.zeros(7, 8), "head.bias": torch.zeros(7)}
    assert "misshapen head.weight (7, 8) instead of (5, 16), head.bias" in refusal(model(), published)


def test_method_s_keys_all_or_none(published):
    target = model("ssp")
    own = {name: torch.randn_like(value) for name, value in target.state_dict().items() if name not in published}
    load_weights(target, published | own)
    assert_loaded(target, published | own)
    load_weights(target, published)
    assert_loaded(target, published | own)
    del own["dynamic_scales.0"]
    assert refusal(target, published | own) == "state dict: does not fit this model: missing dynamic_scales.0"
    assert "unexpected inner_prompt.fc1.weight" in refusal(model("vpt"), model("ssp").state_dict())


def test_long_lists_are_cut(published):
    message = refusal(model(), {"cls_token": published["cls_token"]})
    assert message.startswith("state dict: does not fit this model: missing pos_embed, ")
    assert message.endswith("and 27 more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights"),
        ({"epoch": 3}, "'epoch' (int) is no tensor"),
        ({"cls_token": np.arange(3)}, "'cls_token' (ndarray) is no tensor of real numbers"),
        ({"cls_token": torch.zeros(1), "module.cls_token": torch.zeros(1)}, "'cls_token' is there twice"),
    ],
)
def test_not_a_state_dict(content, message):
    assert refusal(model(), content).startswith(f"state dict: {message}")


# Files.


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("form", ["torch", "torch_old", "pickle", "pickle_old"])
def test_a_file_that_would_run_code_is_refused(published, form, tmp_path):
    trace, path = tmp_path / "ran", tmp_path / "weights.pth"
    content = {"model": published, "optimizer": Malicious(trace)}
    if form.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps(Malicious(trace), 0 if form == "pickle_old" else pickle.DEFAULT_PROTOCOL))
    assert refusal(model(), path).startswith(f"{path}: refused, reading it would run code (")
    assert not trace.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.exists(), "the file is as malicious as it claims"


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(model(), tmp_path / "model.pth")
    assert "refused, reading it would run code (ssp.backbone" in refusal(model(), tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("left", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file(published, suffix, left, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save_file(published, path) if suffix == ".safetensors" else torch.save(published, path)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    assert refusal(model(), path).startswith(f"{path}: not a readable checkpoint")


@pytest.mark.parametrize("content", [b"<html>404 not found</html>", b"{}", bytes(1000)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_another_kind_of_file(content, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert str(path) in refusal(model(), path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        assert refusal(model(), path).startswith(f"{path}: no such file; give the path of")


def test_file_with_something_else_than_a_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert refusal(model(), tmp_path / "list.pth") == f"{tmp_path}/list.pth: holds a list, not a state dict"


# Whole models.


@pytest.mark.parametrize("method", method_names())
def test_a_whole_model_comes_back_folded_or_not(method, tmp_path):
    saved = model(method, seed=2).eval()
    if load_method(method).mergeable:
        saved.method.merge(saved)
    save_whole(saved, tmp_path / "whole.safetensors")
    loaded = model(saved.method.name, seed=3).eval()
    load_whole(loaded, tmp_path / "whole.safetensors")
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(saved(video), loaded(video))


def test_a_whole_model_of_another_kind_is_refused(tmp_path):
    save_whole(model("ssp"), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match=r"whole.safetensors: does not fit this model: unexpected .*inner_prompt"):
        load_whole(model("linear"), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        load_whole(model("linear"), tmp_path / "none.safetensors")


def test_a_hash_of_what_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.touch()
    assert checkpoint_hash(path) == "e3b0c44298fc1c14"

    def refuse(file):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr("ssp.backbone.checkpoint.file_sha256", refuse)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_hash(path)
    assert str(caught.value) == f"{path}: cannot be read (Permission denied); mend that and run again"
