"""Initial-state tuning: the closed form against a scan in NumPy with another start, its derivative, its size."""

import torch

from baselines.initial_state import ReadOfStart
from ssp.training.optim import decays
from tests.methods.by_hand import DEPTH, build, check, lively, videos
from tests.methods.inside import counts_of_videomamba_m, forward


def test_is_a_scan_from_another_start():
    model = lively("initial_state")

    def logits(weights, video):
        def change(layer, shared, first, second):
            first.start, second.start = (weights[f"initial_state.{layer}.{way}"] for way in (0, 1))

        return forward(weights, video, change)

    check(model, logits, [f"initial_state.{layer}.{way}" for layer in range(DEPTH) for way in (0, 1)])


def test_gradients_reach_what_the_decay_depends_on():
    """All inputs of the closed form carry it back: against differences, along every tensor of the video."""
    model, video = lively("initial_state"), videos(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: model(given).sum(), video, fast_mode=True)


def test_the_backward_by_hand_is_the_derivative():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    given = draw(2, 3, 5), draw(3, 4), draw(2, 4, 5), draw(3, 4)
    assert torch.autograd.gradcheck(lambda S, A, C, h: ReadOfStart.apply(S, -A, C, h), given)
    S, A, C, h = given
    expected = torch.einsum("bnl,en,beln->bel", C, h, torch.exp(-S[..., None] * A[:, None]))
    torch.testing.assert_close(ReadOfStart.apply(S, -A, C, h), expected)


def test_start():
    model = build("initial_state")
    for name, parameter in model.named_parameters():
        if name.startswith("initial_state."):
            assert not parameter.count_nonzero() and not decays(name, parameter)


def test_size():
    assert counts_of_videomamba_m("initial_state") == (1_179_648, 1_179_648)
