"""SVP against its formula in NumPy, drop path, its start, and its size."""

import pytest
import torch

from ssp import build_model, parameter_counts
from tests.golden import plain
from tests.methods.by_hand import DEPTH, build, check, forward, lively, videos


@pytest.mark.parametrize("stream", ["branch", "sum"])
@pytest.mark.parametrize(("shared", "groups"), [(None, [0, 0, 0]), (2, [0, 0, 1]), (1, [0, 1, 2])])
def test_is_its_formula(stream, shared, groups):
    model = lively("svp", width=3, stream=stream, shared_blocks=shared)

    def logits(weights, video):
        def prompted(layer, rows, where):
            h, group = rows[where["patches"]], groups[layer]
            low = plain.linear(weights, f"inner_prompts.{layer}.0", h)
            inner = plain.silu(plain.linear(weights, f"inner_prompts.{layer}.1", low))
            cross = plain.silu(plain.linear(weights, f"cross_prompts.{group}.0", h))
            scales = weights["inner_scales"][layer], weights["cross_scales"][group]
            rows[where["patches"]] = h + inner * scales[0] + cross * scales[1]
            return rows

        return forward(weights, video, **{"before" if stream == "branch" else "summed": prompted})

    names = [f"inner_prompts.{i}.{j}.{kind}" for i in range(DEPTH) for j in (0, 1) for kind in ("weight", "bias")]
    names += [f"cross_prompts.{i}.0.{kind}" for i in set(groups) for kind in ("weight", "bias")]
    check(model, logits, [*names, "inner_scales", "cross_scales"])


@pytest.mark.parametrize(("stream", "reaches"), [("branch", False), ("sum", True)])
def test_drop_path_takes_along_what_joins_the_branch_alone(stream, reaches):
    """What block 2 is given as a branch is always dropped here."""
    model = build("svp", width=3, stream=stream).train()
    model.layers[2].drop_path.rate = 1.0
    sums = []
    model.layers[2].register_forward_hook(lambda _, given, made: sums.append(made.residual))
    with torch.no_grad():
        model(videos().float())
        model.inner_scales[2].normal_()
        model(videos().float())
    assert torch.equal(*sums) is not reaches


def test_first_step_moves_scales_alone():
    model = build("svp", width=3)
    model(videos().float()).square().sum().backward()
    moved = {name for name in model.added if model.get_parameter(name).grad.count_nonzero()}
    assert moved == {"inner_scales", "cross_scales"}


def test_start_and_size():
    model = build("svp")
    assert not model.inner_scales.count_nonzero() and not model.cross_scales.count_nonzero()
    for shared, extra in ((None, 2_731_136), (16, 2_379_776 + 18_432 + 2 * 332_928), (12, 3_396_992)):
        with torch.device("meta"):
            model = build_model("videomamba_middle", "svp", 51, method_options={"shared_blocks": shared})
        assert parameter_counts(model)["extra"] == extra == model.method.expected_parameters(model)
