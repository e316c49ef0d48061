"""The contract catches what it is there for, and names it: methods with a defect each."""

import pytest
import torch

from baselines.adapter import Adapter
from baselines.vpt import VisualPromptTuning
from ssp.methods.prompting import VARIANTS, StateSpacePrompting
from tests.contract import test_learning as learning
from tests.contract import test_methods as contract

VPT, ADAPTER = ("vpt", {"num_prompts": 3}), ("adapter", {"rank": 3})


class Doubled(torch.autograd.Function):
    """With a backward that is a little off."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 1.99 * grad


def test_what_no_gradient_reaches(monkeypatch):
    monkeypatch.setattr(VisualPromptTuning, "rows", lambda self, prompts: prompts.detach())
    with pytest.raises(AssertionError, match="prompt_embeddings: is declared, and no gradient reaches it"):
        contract.test_trains_exactly_what_it_declares(VPT)


def test_a_gradient_that_is_not_said(monkeypatch):
    monkeypatch.setattr(VisualPromptTuning, "without_gradient", lambda self, model: {"prompt_embeddings": "none"})
    with pytest.raises(AssertionError, match="prompt_embeddings: is declared to get no gradient, and gets one"):
        contract.test_trains_exactly_what_it_declares(VPT)


def test_what_moves_undeclared(monkeypatch):
    def summed(self, current, index, total):
        with torch.no_grad():
            current.model.cls_token.add_(1)
        return total

    monkeypatch.setattr(Adapter, "summed", summed)
    with pytest.raises(AssertionError, match="cls_token: moved and is not declared"):
        contract.test_trains_exactly_what_it_declares(ADAPTER)


def test_a_part_that_a_variant_leaves_behind(monkeypatch):
    """SSP without gathering has nothing to take the entropy of; scalars of a gate all the same are named, each."""

    def attach(self, model):
        attach_parts(self, model)
        model.dynamic_scales = torch.nn.ParameterList(torch.zeros(1) for _ in model.layers[1:])

    attach_parts = StateSpacePrompting.attach
    monkeypatch.setattr(StateSpacePrompting, "attach", attach)
    said = "dynamic_scales.0, dynamic_scales.1: is declared, and no gradient reaches it"
    with pytest.raises(AssertionError, match=said):
        contract.test_trains_exactly_what_it_declares(("ssp", {**VARIANTS[0], "gathering": False}))


def test_a_wrong_slope(monkeypatch):
    monkeypatch.setattr(VisualPromptTuning, "rows", lambda self, prompts: Doubled.apply(prompts))
    with pytest.raises(AssertionError, match="backward says"):
        contract.test_slope_is_that_of_the_function(VPT, monkeypatch)


def test_neighbours_in_a_batch(monkeypatch):
    monkeypatch.setattr(Adapter, "summed", lambda self, current, index, total: total + total.mean(0))
    with pytest.raises(AssertionError, match="not close"):
        contract.test_a_clip_does_not_depend_on_its_batch(ADAPTER, torch.float64, 1e-10)


@pytest.mark.slow
def test_what_cannot_learn(monkeypatch):
    monkeypatch.setattr(VisualPromptTuning, "summed", lambda self, current, index, total: total)
    monkeypatch.setattr(VisualPromptTuning, "test_configs", [VPT[1]])
    with pytest.raises(AssertionError, match="say why in `no_more_than_linear`"):
        learning.test_learns_more_than_the_linear_probe("vpt", learning.clips(), 0.6)
