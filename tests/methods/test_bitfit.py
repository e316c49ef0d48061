"""BitFit against the plain backbone in NumPy, what trains, its sizes."""

import pytest

from tests.golden import plain
from tests.methods.by_hand import DEPTH, PATCH, build, check, lively
from tests.methods.inside import check_merged, counts_of_videomamba_m

PER_BLOCK = {"dt_proj": ("dt_proj.bias", "dt_proj_b.bias"), "conv1d": ("conv1d.bias", "conv1d_b.bias")}


def biases(*layers):
    names = {f"layers.{i}.mixer.{end}" for layer in layers if layer in PER_BLOCK for i in range(DEPTH)
             for end in PER_BLOCK[layer]}  # fmt: skip
    return names | ({"patch_embed.proj.bias"} if "patch_embed" in layers else set())


@pytest.mark.parametrize("layers", [["dt_proj", "conv1d", "patch_embed"], ["conv1d"], ["dt_proj", "patch_embed"]])
def test_is_the_backbone_with_trained_biases(layers):
    model = lively("bitfit", biases=layers)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == biases(*layers) | {"head.weight", "head.bias", "norm_f.weight"}
    assert not model.added
    check(model, lambda weights, video: plain.logits(weights, video, DEPTH, PATCH), sorted(biases(*layers)))


def test_all_biases_of_the_backbone_by_default():
    model = build("bitfit")
    every = {name for name, _ in model.named_parameters() if name.endswith(".bias") and not name.startswith("head.")}
    assert every == biases("dt_proj", "conv1d", "patch_embed")


def test_size():
    assert counts_of_videomamba_m("bitfit") == (0, 148_032)
    assert counts_of_videomamba_m("bitfit", biases=["dt_proj"]) == (0, 73_728)
    assert counts_of_videomamba_m("bitfit", biases=["patch_embed"]) == (0, 576)


def test_merged():
    check_merged("bitfit")
