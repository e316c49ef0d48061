"""AdaptFormer against its formula in NumPy, where drop path takes it along, and its size."""

import numpy as np
import pytest
import torch

from ssp import build_model, parameter_counts
from tests.golden import plain
from tests.methods.by_hand import DEPTH, DIM, build, check, forward, lively, videos


@pytest.mark.parametrize("joins", ["branch", "sum"])
@pytest.mark.parametrize("reads", ["sum", "normed", "branch"])
def test_is_its_formula(reads, joins):
    model = lively("adapter", rank=3, reads=reads, joins=joins, scale=0.3)

    def logits(weights, video):
        def after(layer, hidden, total, _):
            normed = plain.norm(total, weights[f"layers.{layer}.norm.weight"])
            seen = {"sum": total, "normed": normed, "branch": hidden}[reads]
            middle = np.maximum(plain.linear(weights, f"adapters.{layer}.down", seen), 0)
            extra = 0.3 * plain.linear(weights, f"adapters.{layer}.up", middle)
            return (hidden, total + extra) if joins == "sum" else (hidden + extra, total)

        return forward(weights, video, after=after)

    ends = ("down.weight", "down.bias", "up.weight", "up.bias")
    check(model, logits, [f"adapters.{layer}.{end}" for layer in range(DEPTH) for end in ends])


@pytest.mark.parametrize(("joins", "reaches"), [("branch", False), ("sum", True)])
def test_drop_path_takes_along_what_joins_the_branch_alone(joins, reaches):
    """With a rate of 1 the last branch is always dropped."""
    model = build("adapter", rank=3, joins=joins, drop_path=1.0, depth=2).train()
    before = model(videos().float())
    with torch.no_grad():
        model.adapters[-1].up.bias.normal_()
    assert torch.equal(model(videos().float()), before) is not reaches


def test_start_and_size():
    model = build("adapter", rank=5)
    for adapter in model.adapters:
        assert not any(p.count_nonzero() for p in (adapter.up.weight, adapter.up.bias, adapter.down.bias))
        bound = DIM**-0.5  # kaiming uniform with a = sqrt(5)
        assert 0.8 * bound < adapter.down.weight.abs().max() <= bound
    with torch.device("meta"):
        model = build_model("videomamba_middle", "adapter", 51)
    assert parameter_counts(model)["extra"] == 2_379_776 == model.method.expected_parameters(model)
    assert parameter_counts(model)["trainable"] == 2_409_779
