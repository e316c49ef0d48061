"""Affix tuning against its formula in NumPy, what of a column is never read, and its sizes."""

import pytest
import torch

from tests.methods.by_hand import DEPTH, DIM, build, check, lively, videos
from tests.methods.inside import counts_of_videomamba_m, forward

INNER = 2 * DIM


@pytest.mark.parametrize("columns", [1, 2, 6])
@pytest.mark.parametrize("gates", [True, False])
@pytest.mark.parametrize("directions", ["each", "share"])
def test_is_its_formula(columns, gates, directions):
    """Fewer columns than the convolution reaches back, and more."""
    model = lively("affix", columns=columns, gates=gates, directions=directions)

    def logits(weights, video):
        def change(layer, shared, first, second):
            first.columns, second.columns = weights["affix"][layer, 0], weights["affix"][layer, -1]

        return forward(weights, video, change)

    assert model.affix.shape == (DEPTH, 2 if directions == "each" else 1, columns, (2 if gates else 1) * INNER)
    check(model, logits, ["affix"])


def test_the_gate_of_a_column_is_never_read():
    model = lively("affix", columns=3)
    (gradient,) = torch.autograd.grad(model(videos()).sum(), model.affix)
    read, gates = gradient.split(INNER, dim=-1)
    assert not gates.count_nonzero()
    assert (read != 0).all()
    without = lively("affix", columns=3, gates=False)
    with torch.no_grad():
        for name, parameter in without.named_parameters():
            own = model.get_parameter(name)
            parameter.copy_(own[..., :INNER] if name == "affix" else own)
        torch.testing.assert_close(without(videos()), model(videos()), rtol=0, atol=0)


def test_start():
    values = build("affix", columns=8).affix
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05
    assert abs(build("affix", columns=8, std=0.2).affix.std() - 0.2) < 0.01


def test_size():
    assert counts_of_videomamba_m("affix") == (442_368, 442_368)
    assert counts_of_videomamba_m("affix", columns=1)[0] == 147_456
    assert counts_of_videomamba_m("affix", columns=2, gates=False, directions="share")[0] == 73_728
