"""Norm tuning against the plain backbone in NumPy, what trains, its size."""

from tests.golden import plain
from tests.methods.by_hand import DEPTH, PATCH, check, lively
from tests.methods.inside import check_merged, counts_of_videomamba_m


def test_is_the_backbone_with_trained_norms():
    model = lively("norm_tuning")
    norms = [f"layers.{layer}.norm.weight" for layer in range(DEPTH)]
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == {*norms, "head.weight", "head.bias", "norm_f.weight"}
    assert not model.added
    check(model, lambda weights, video: plain.logits(weights, video, DEPTH, PATCH), norms)


def test_size():
    assert counts_of_videomamba_m("norm_tuning") == (0, 18_432)


def test_merged():
    check_merged("norm_tuning")
