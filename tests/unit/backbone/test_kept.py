"""What is made of frozen weights once: `ssp.backbone.kept`, through the mixer that uses it."""

import copy

import pytest
import torch

from ssp.backbone.mixer import Mixer


@pytest.fixture
def mixer():
    torch.manual_seed(0)
    return Mixer(8).requires_grad_(False)


def run(mixer, hidden):
    """One pass in bfloat16, and the casts to it from float32 that it made."""
    with torch.autocast("cpu", torch.bfloat16), torch.profiler.profile() as profile:
        out = mixer(hidden)
    return out, sum(event.name == "aten::_to_copy" for event in profile.events())


HIDDEN = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))


def test_frozen_weights_are_cast_once(mixer):
    first, casts = run(mixer, HIDDEN.bfloat16())
    second, again = run(mixer, HIDDEN.bfloat16())
    assert torch.equal(first, second)
    assert casts - again == 10  # six matrices, two filters and their biases


def change_in_place(mixer):
    with torch.no_grad():
        mixer.in_proj.weight.mul_(2)


def load(mixer):
    mixer.load_state_dict({name: 2 * value for name, value in mixer.state_dict().items()})


def change_A(mixer):
    with torch.no_grad():
        mixer.A_log.add_(1)


def convert_there_and_back(mixer):
    mixer.double()
    with torch.no_grad():
        mixer.out_proj.weight.copy_(mixer.out_proj.weight * 3)
    mixer.float()


def replace(mixer):
    mixer.in_proj.weight = torch.nn.Parameter(-mixer.in_proj.weight, requires_grad=False)


@pytest.mark.parametrize("change", [change_in_place, load, change_A, convert_there_and_back, replace])
@pytest.mark.parametrize("of", ["the same", "a copy"])
def test_changed_weights_are_cast_anew(change, of, mixer):
    run(mixer, HIDDEN.bfloat16())
    mixer = mixer if of == "the same" else copy.deepcopy(mixer)
    change(mixer)
    fresh = Mixer(8).requires_grad_(False)
    fresh.load_state_dict(mixer.state_dict())
    expected, _ = run(fresh, HIDDEN.bfloat16())
    found, _ = run(mixer, HIDDEN.bfloat16())
    assert torch.equal(found, expected)


def test_an_evaluation_before_a_training_is_no_obstacle(mixer):
    hidden = HIDDEN.clone().requires_grad_()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mixer(HIDDEN)
    with torch.autocast("cpu", torch.bfloat16):
        mixer(hidden).sum().backward()
    assert hidden.grad.abs().sum() > 0


def test_weights_that_train_are_never_kept(mixer):
    mixer(HIDDEN)
    mixer.requires_grad_(True)
    optimizer = torch.optim.SGD(mixer.parameters(), lr=0.1)
    outputs = []
    for _ in range(2):
        out = mixer(HIDDEN)
        out.sum().backward()
        assert mixer.A_log.grad.abs().sum() > 0
        optimizer.step()
        optimizer.zero_grad()
        outputs.append(out.detach())
    assert not torch.equal(*outputs)


def test_what_is_kept_is_no_part_of_the_model_file(mixer):
    before = set(mixer.state_dict())
    run(mixer, HIDDEN.bfloat16())
    assert set(mixer.state_dict()) == before
