"""Initial-state tuning: a scan in NumPy with another start, the closed form, its derivative, its size."""

import pytest
import torch

from baselines.initial_state import Started
from ssp.backbone.mixer import ScanInputs
from ssp.scan import selective_scan
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


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_loading_is_exact(direction, dtype, tolerance):
    """Against the closed form, for steps of all sizes and fast decays too."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    start, A = draw(6, 16), -torch.exp(2 * draw(6, 16))
    given = ScanInputs(
        draw(2, 6, 9), draw(2, 6, 9) - 2, A, draw(2, 16, 9), draw(2, 16, 9), draw(6), draw(2, 6, 9), draw(6)
    )
    given = ScanInputs(**{k: v.to(torch.float32 if k in ("A", "D", "delta_bias") and dtype == torch.bfloat16 else dtype)
                          for k, v in vars(given).items()})  # fmt: skip
    tuning = Started(torch.nn.ParameterList([start.float() if dtype == torch.bfloat16 else start.to(dtype)] * 2))

    def scan(inputs):
        y = selective_scan(**vars(inputs), delta_softplus=True, reverse=direction == "backward")
        return (y[..., :9] if direction == "backward" else y[..., -9:]).double()

    steps = torch.nn.functional.softplus(given.delta.double() + given.delta_bias.double()[:, None])
    elapsed = steps.flip(-1).cumsum(-1).flip(-1) if direction == "backward" else steps.cumsum(-1)
    gained = torch.einsum("bnl,en,beln->bel", given.C.double(), start, torch.exp(elapsed[..., None] * A[:, None]))
    expected = gained * torch.nn.functional.silu(given.z.double())
    found = scan(tuning.scan_inputs(direction, given)) - scan(given)
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_start():
    model = build("initial_state")
    for name, parameter in model.named_parameters():
        if name.startswith("initial_state."):
            assert not parameter.count_nonzero() and not decays(name, parameter)


def test_size():
    assert counts_of_videomamba_m("initial_state") == (1_179_648, 1_179_648)
