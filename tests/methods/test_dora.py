"""DoRA against its formula in NumPy, its gradient with norms held constant, its sizes, and what it folds into."""

import numpy as np
import pytest
import torch

from tests.methods.by_hand import DEPTH, check, lively, videos
from tests.methods.inside import check_merged, counts_of_videomamba_m, forward

TARGETS = ["in_proj_x", "out_proj"]


def decomposed(weight, up, down, length, scale, axis):
    changed = weight + scale * up @ down
    norm = np.sqrt((changed**2).sum(axis, keepdims=True))
    own = np.sqrt((weight**2).sum(axis, keepdims=True))
    return (own + np.expand_dims(length, axis)) * changed / norm


@pytest.mark.parametrize(("magnitude", "axis"), [("input", 0), ("output", 1)])
def test_is_its_formula(magnitude, axis):
    model = lively("dora", rank=2, targets=TARGETS, scale=0.5, magnitude=magnitude, through_norm=True)

    def logits(weights, video):
        def change(layer, shared, first, second):
            def of(key, weight):
                pair = (weights[f"dora.{layer}.{key}.{end}"] for end in ("up", "down"))
                return decomposed(weight, *pair, weights[f"dora_magnitude.{layer}.{key}"], 0.5, axis)

            x, z = np.split(shared.in_proj, 2)
            shared.in_proj = np.concatenate([of("in_proj_x", x), z])
            shared.out_proj = of("out_proj", shared.out_proj)

        return forward(weights, video, change)

    names = [
        name
        for layer in range(DEPTH)
        for key in TARGETS
        for name in (f"dora.{layer}.{key}.up", f"dora.{layer}.{key}.down", f"dora_magnitude.{layer}.{key}")
    ]
    check(model, logits, names)


def test_the_norm_is_a_constant_for_the_gradient():
    """With W' = m V / |V|: gradients of up and down are those of V times m / |V|, of m that of W' along V / |V|."""
    model = lively("dora", rank=2, targets=["out_proj"], scale=0.5)
    pair, length = model.dora[0]["out_proj"], model.dora_magnitude[0]["out_proj"]
    frozen = model.layers[0].mixer.out_proj.weight.detach()
    changed = frozen + 0.5 * pair.up.detach() @ pair.down.detach()
    ratio = (frozen.norm(dim=0) + length.detach()) / changed.norm(dim=0)
    share = torch.arange(1.0, 6.0, dtype=torch.float64)
    found = torch.autograd.grad((model(videos()) @ share).sum(), [pair.up, pair.down, length])

    folded = lively("dora", rank=2, targets=["out_proj"], scale=0.5)
    folded.method.merge(folded)
    weight = folded.layers[0].mixer.out_proj.weight
    weight.requires_grad_(True)
    (outer,) = torch.autograd.grad((folded(videos()) @ share).sum(), weight)
    expected = [
        0.5 * (outer * ratio) @ pair.down.detach().T,
        0.5 * pair.up.detach().T @ (outer * ratio),
        (outer * changed / changed.norm(dim=0)).sum(0),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_size():
    low_rank = 55_296 * 64
    assert counts_of_videomamba_m("dora") == (low_rank + 32 * 576,) * 2
    options = {"targets": ["in_proj", "x_proj"], "rank": 16}
    expected = 1_474_560 + 1_249_280 + 32 * (576 + 2 * 1152)
    assert counts_of_videomamba_m("dora", **options) == (expected, expected)
    assert counts_of_videomamba_m("dora", **options, magnitude="output")[0] == expected + 32 * (
        2304 - 576 + 2 * (68 - 1152)
    )


@pytest.mark.parametrize("options", [{}, {"targets": ["in_proj_z", "x_proj_C", "dt_proj"], "magnitude": "output"}])
def test_merged(options):
    assert not check_merged("dora", rank=2, **options).added
