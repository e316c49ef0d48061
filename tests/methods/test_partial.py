"""Partial tuning against its formula in NumPy, in both ways, what weight decay is for, its sizes."""

import numpy as np
import pytest
import torch

from ssp.training.optim import decays
from tests.golden import plain
from tests.methods.by_hand import DEPTH, PATCH, build, check, lively
from tests.methods.inside import check_merged, counts_of_videomamba_m, forward

ALL = ["A", "D", "dt_bias", "conv1d", "conv1d_bias"]
OWN = {"A": "A_log", "D": "D", "dt_bias": "dt_proj.bias", "conv1d": "conv1d.weight", "conv1d_bias": "conv1d.bias"}


@pytest.mark.parametrize("parts", [["A"], ["D", "conv1d_bias"], ALL], ids="-".join)
def test_is_its_formula(parts):
    model = lively("partial", parts=parts)

    def logits(weights, video):
        def change(layer, shared, *scans):
            for way, scan in enumerate(scans):
                got = {part: weights[f"partial.{layer}.{way}.{part}"] for part in parts}
                log = "A_b_log" if way else "A_log"
                if "A" in got:
                    scan.A = -np.exp(weights[f"layers.{layer}.mixer.{log}"] + got["A"])
                if "D" in got:
                    scan.D = scan.D + got["D"]
                if "dt_bias" in got:
                    scan.dt_bias = scan.dt_bias + got["dt_bias"]
                if "conv1d" in got:
                    scan.conv = scan.conv + got["conv1d"][:, 0]
                if "conv1d_bias" in got:
                    scan.conv_bias = scan.conv_bias + got["conv1d_bias"]

        return forward(weights, video, change)

    names = {f"partial.{layer}.{way}.{part}" for layer in range(DEPTH) for way in (0, 1) for part in parts}
    check(model, logits, sorted(names - set(model.method.without_gradient(model))))


def test_itself_is_the_backbone_with_trained_parameters():
    model = lively("partial", parts=ALL, train="itself")
    names = {f"layers.{i}.mixer.{OWN[part]}" for i in range(DEPTH) for part in ALL}
    names |= {name.replace("A_log", "A_b_log").replace("conv1d.", "conv1d_b.").replace("proj.", "proj_b.")
              for name in names} | {f"layers.{i}.mixer.D_b" for i in range(DEPTH)}  # fmt: skip
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == names | {"head.weight", "head.bias", "norm_f.weight"}
    assert not model.added
    check(
        model,
        lambda weights, video: plain.logits(weights, video, DEPTH, PATCH),
        sorted(names - set(model.method.without_gradient(model))),
    )


def test_weight_decay_pulls_matrices_to_the_pretrained_value():
    model = build("partial", parts=ALL)
    for name, parameter in model.named_parameters():
        if name.startswith("partial."):
            assert not parameter.count_nonzero()
            assert decays(name, parameter) is (name.rpartition(".")[2] in ("A", "conv1d"))


@pytest.mark.parametrize(
    ("part", "size"),
    [("A", 1_179_648), ("D", 73_728), ("dt_bias", 73_728), ("conv1d", 294_912), ("conv1d_bias", 73_728)],
)
def test_size(part, size):
    assert counts_of_videomamba_m("partial", parts=[part]) == (size, size)
    assert counts_of_videomamba_m("partial", parts=[part], train="itself") == (0, size)


def test_size_of_several():
    assert counts_of_videomamba_m("partial", parts=["conv1d", "conv1d_bias"])[0] == 368_640
    assert counts_of_videomamba_m("partial")[0] == 1_622_016


@pytest.mark.parametrize("train", ["difference", "itself"])
def test_merged(train):
    assert not check_merged("partial", parts=ALL, train=train).added


def test_merging_writes_the_sum():
    model = lively("partial", parts=["A"])
    expected = model.layers[0].mixer.A_log.detach() + model.partial[0][0]["A"].detach()
    model.method.merge(model)
    torch.testing.assert_close(model.layers[0].mixer.A_log.detach(), expected)
