"""Every registered method learns what a linear probe of the frozen features cannot, or says why not.

- The task: whether the first and the last frame of a clip have the same colour, over all 32 clips of 5 frames in two
  colours. The frozen network, moved away from its start so that rows act on each other, tells it by hardly more than
  chance.
- The probe is trained to its end. A method is given a few hundred steps, its test configurations, and two learning
  rates: one of them has to reach a loss clearly below the probe's.
"""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ssp import build_model
from ssp.methods.registry import load_method, method_names

BACKBONE = {"embed_dim": 16, "depth": 2, "patch_size": 8}
FRAMES, STEPS, RATES, CLEARLY = 5, 150, (1e-2, 1e-1), 0.75
COLOURS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=FRAMES)))
LABELS = (COLOURS[:, 0] == COLOURS[:, -1]).long()


def clips():
    """(32, 3, 5, 8, 8): red or blue frames on one patterned ground."""
    ground = 0.5 * torch.randn(3, FRAMES, 8, 8, generator=torch.Generator().manual_seed(4))
    colour = COLOURS[:, None, :, None, None] * torch.tensor([1.0, 0.0, -1.0])[:, None, None, None]
    return ground + colour


@pytest.fixture(scope="module")
def video():
    return clips()


def build(name, options):
    torch.manual_seed(0)
    model = build_model(BACKBONE, name, 2, num_frames=FRAMES, img_size=8, method_options=options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key not in model.added and not key.startswith(("head.", "norm_f.")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.method.after_loading(model)
    return model


@pytest.fixture(scope="module")
def probe(video):
    """The lowest loss of head and final norm on the frozen features."""
    model = build("linear", {}).double()
    with torch.no_grad():
        features = model.forward_features(video.double())
    optimizer = torch.optim.LBFGS(
        [p for p in model.parameters() if p.requires_grad], max_iter=500, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(model.forward_head(features), LABELS)
        value.backward()
        return value

    optimizer.step(loss)
    return loss().item()


def reaches(model, video, rate, goal):
    """Whether its loss, without dropout, gets there."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / STEPS)
        optimizer.zero_grad()
        loss = F.cross_entropy(model.train()(video), LABELS)
        loss.backward()
        optimizer.step()
        if loss.item() < goal or step == STEPS - 1:
            with torch.no_grad():
                if F.cross_entropy(model.eval()(video), LABELS).item() < goal:
                    return True
    return False


def test_the_probe_is_hardly_better_than_chance(probe):
    assert 0.55 < probe < 0.69


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "ssp" else pytest.mark.slow) for name in method_names()]
)
def test_learns_more_than_the_linear_probe(name, video, probe):
    method = load_method(name)
    tries = ((options, rate) for options in method.test_configs for rate in RATES)
    learned = any(reaches(build(name, options), video, rate, CLEARLY * probe) for options, rate in tries)
    reason = method.no_more_than_linear
    assert learned or reason, "it learned nothing that the linear probe cannot: say why in `no_more_than_linear`"
    assert not (learned and reason), f"it does learn, and says: {reason}"
