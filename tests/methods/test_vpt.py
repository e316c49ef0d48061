"""VPT against its formula in NumPy, deep and shallow; drop path; what is searched; sizes."""

import numpy as np
import pytest
import torch

from ssp import build_model, parameter_counts
from ssp.backbone.layout import Place
from tests.methods.by_hand import build, check, forward, lively, videos

PLACES = list(Place.__args__)


def expected(deep, place, rows_of=lambda prompts: prompts):
    """Logits as a function of weights and clip, prompts standing in a place of the layout."""

    def logits(weights, video):
        def summed(layer, total, where):
            if deep or layer == 0:
                total[where[place]] = rows_of(weights["prompt_embeddings"][layer])
            return total

        return forward(weights, video, places={place: weights["prompt_embeddings"].shape[1]}, summed=summed)

    return logits


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
@pytest.mark.parametrize("place", PLACES)
def test_is_its_formula(place, deep):
    model = lively("vpt", num_prompts=2, position=place, deep=deep)
    check(model, expected(deep, place), ["prompt_embeddings"])


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
def test_drop_path_never_touches_rows_that_are_set(deep):
    model, sums = build("vpt", num_prompts=2, deep=deep, position="suffix", drop_path=0.9).train(), []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, made: sums.append(made.residual))
    with torch.no_grad():
        model(videos().float())
    for index, made in enumerate(sums):
        is_set = deep or index == 0
        prompts = model.prompt_embeddings[index if deep else 0]
        assert torch.equal(made[:, -2:], prompts.expand(2, -1, -1)) is is_set


def test_position_is_searched_and_the_scale_of_the_start_is_not():
    space = build("vpt").method.sweep_space()
    assert set(space) == {"position"} and space["position"].choices == PLACES


@pytest.mark.parametrize(
    ("options", "extra"),
    [({}, 1_474_560), ({"deep": False}, 46_080), ({"num_prompts": 10, "position": "per_frame"}, 184_320)],
)
def test_sizes(options, extra):
    with torch.device("meta"):
        model = build_model("videomamba_middle", "vpt", 51, method_options=options)
    assert parameter_counts(model)["extra"] == extra == model.method.expected_parameters(model)


@pytest.mark.parametrize(("init", "bound"), [("uniform", (6 / (768 + 576)) ** 0.5), ("xavier", 0.0113396)])
def test_start_at_full_size(init, bound):
    model = build_model({"embed_dim": 576, "depth": 1, "patch_size": 16}, "vpt", 5, method_options={"init": init})
    largest = model.prompt_embeddings.abs().max().item()
    assert largest <= bound * 1.0001
    np.testing.assert_allclose(largest, bound, rtol=1e-3)
