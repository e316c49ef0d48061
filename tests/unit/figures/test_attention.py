"""What SSP attends to: each quantity against a direct formula, the pass itself untouched, and a picture of it."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ssp import build_model
from ssp.data.augment import test_view as view_of
from ssp.errors import ConfigError
from ssp.figures.attention import CHARTS, LINE, TITLE, Shown, draw_explanations, frames_of
from ssp.figures.attention import FRAMES as FRAMES_OF_A_LINE
from ssp.methods.observe import Explanation, explain_clip
from ssp.methods.prompting import HEADS, entropy_gate

BLOCKS, FRAMES, GRID, PROMPTS = 3, 4, (2, 3), 2


def make(method="ssp", lively=True, **options):
    torch.manual_seed(0)
    if method == "ssp":
        options = {"inner_dim": 10, "attn_dim": 16, "num_prompts": PROMPTS} | options
    model = build_model(
        {"embed_dim": 24, "depth": BLOCKS, "patch_size": 8}, method, 5, num_frames=FRAMES, img_size=(16, 24),
        method_options=options, drop_path=0.5,
    ).double()  # fmt: skip
    if lively:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))  # more, and every softmax is one spike
    return model, torch.randn(3, FRAMES, 16, 24, dtype=torch.float64)


def streams_of(model, clip):
    """The branch outputs (T, patches, D) that the blocks' prompts are added to, seen from outside."""
    found = []
    hooks = [model.inner_prompt.register_forward_pre_hook(lambda module, given: found.append(given[0][0].detach()))]
    with torch.no_grad():
        model.eval()(clip[None])
    hooks[0].remove()
    return found


@pytest.mark.parametrize("entropy_norm", ["fixed", "published"])
def test_quantities_by_direct_formulas(entropy_norm):
    model, clip = make(entropy_norm=entropy_norm)
    explanation = explain_clip(model, clip)
    assert explanation.strength.shape == (BLOCKS, FRAMES, *GRID)
    assert explanation.gate.shape == (BLOCKS - 1, FRAMES)
    assert explanation.attention.shape == (BLOCKS - 1, PROMPTS, FRAMES, FRAMES)
    branches = streams_of(model, clip)
    assert len(branches) == BLOCKS
    inner = model.inner_prompt
    for block, branch in enumerate(branches):
        middle = (branch @ inner.fc1.weight.T + inner.fc1.bias) * inner.conv.weight.flatten() + inner.conv.bias
        prompt = (middle @ inner.fc2.weight.T + inner.fc2.bias).detach()
        for t in range(FRAMES):
            for patch in range(GRID[0] * GRID[1]):
                f, h = prompt[t, patch].double(), branch[t, patch].double()
                expected = math.sqrt(f @ f) / math.sqrt(h @ h)
                assert explanation.strength[block, t, *divmod(patch, GRID[1])] == pytest.approx(expected, rel=1e-4)
        if block == 0:
            continue
        gate = entropy_gate(prompt[None], over_batch=False)[0]
        np.testing.assert_allclose(explanation.gate[block - 1], gate, rtol=1e-5)
        scale = model.dynamic_scales[block - 1].detach()
        summary = branch[:, -1] * (1 + scale * gate[:, None])
        for number, spread in enumerate(model.prompt_attentions):
            x = summary @ spread.down_proj.weight.T + spread.down_proj.bias
            weight, bias = spread.attention.in_proj_weight, spread.attention.in_proj_bias
            query, key, _ = (x @ weight.T + bias).unflatten(1, (3, HEADS, -1)).unbind(1)  # (T, heads, width)
            scores = torch.einsum("ihd,jhd->hij", query, key) / math.sqrt(query.shape[-1])
            expected = scores.softmax(-1).mean(0).detach()
            np.testing.assert_allclose(explanation.attention[block - 1, number], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explanation.scales, torch.cat(list(model.dynamic_scales)).detach(), rtol=1e-6)


def test_shares_sum_to_one_and_differ():
    explanation = explain_clip(*make())
    for shares in (explanation.gate, explanation.attention, explanation.mean_gate, explanation.mean_attention):
        np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert explanation.mean_strength.shape == (FRAMES, *GRID)
    # Else the tests here show nothing.
    assert np.ptp(explanation.attention) > 0.01 and explanation.attention.min() > 1e-4
    assert np.ptp(explanation.gate) > 1e-4


def test_fresh_prompts_are_nothing():
    explanation = explain_clip(*make(lively=False))
    assert not explanation.strength.any() and not explanation.scales.any()
    np.testing.assert_allclose(explanation.gate, 1 / FRAMES, rtol=1e-6)
    assert len(draw_explanations([Shown(explanation, np.zeros((FRAMES, 16, 24, 3), np.uint8))])) > 1000


def test_an_empty_branch_has_no_infinite_strength():
    """The mixers of a model whose out_proj is zero give nothing; a prompt of nothing on nothing is nothing."""
    model, clip = make(lively=False)
    with torch.no_grad():
        for block in model.layers:
            block.mixer.out_proj.weight.zero_()
    assert not explain_clip(model, clip).strength.any()


def test_the_pass_is_untouched():
    model, clip = make()
    model, clip = model.float(), clip.float()  # as explanations are, so that equal means bit-equal
    model.eval()
    with torch.no_grad():
        before = model(clip[None])[0]
    model.train()
    explanation = explain_clip(model, clip)
    assert model.training and model.method.observer is None
    np.testing.assert_array_equal(explanation.logits, before)
    with torch.no_grad():
        assert torch.equal(model.eval()(clip[None])[0], before)


def test_observer_is_gone_after_an_error():
    model, clip = make()
    with pytest.raises(ValueError, match="takes videos of shape"):
        explain_clip(model.train(), clip[:, :2])
    assert model.method.observer is None and model.training


@pytest.mark.parametrize("method", ["vpt", "linear", "full"])
def test_other_methods_are_refused_in_one_line(method):
    with pytest.raises(ConfigError, match=f"not method '{method}'; take ssp") as error:
        explain_clip(*make(method))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["gathering", "spreading", "gate"])
def test_ssp_without_a_part_is_refused_in_one_line(option):
    with pytest.raises(ConfigError, match="only SSP with gathering, spreading and gate") as error:
        explain_clip(*make(**{option: False}))
    assert "\n" not in str(error.value)


def test_other_readings_of_ssp_can_be_explained():
    options = {"kernel": 3, "shared": False, "pooling": "variance", "summary": "mean", "entropy_of": "patches"}
    explanation = explain_clip(*make(**options, joins="mixer_input"))
    assert explanation.strength.shape == (BLOCKS, FRAMES, *GRID) and explanation.strength.all()
    np.testing.assert_allclose(explanation.gate.sum(-1), 1, rtol=1e-6)
    assert explanation.attention.shape == (BLOCKS - 1, PROMPTS, FRAMES, FRAMES)


def test_frames_of_a_clip_are_its_pictures():
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 16, 16, 3), dtype=np.uint8)
    clip = view_of(torch.from_numpy(frames).permute(0, 3, 1, 2), 16, 0, 1)
    np.testing.assert_array_equal(frames_of(clip), frames)


@pytest.mark.slow
@pytest.mark.parametrize("total", [1, 4, 32])
def test_picture_shows_frames_and_where_prompts_are_strong(total):
    strength = np.full((2, total, 2, 2), 0.1, np.float32)
    strength[:, -1, 0, 1] = 0.9  # one hot patch, top right of the last frame
    shares = np.full((1, total), 1 / total, np.float32)
    explanation = Explanation(
        strength, shares, np.zeros(1, np.float32), np.full((1, 1, total, total), 1 / total, np.float32), np.zeros(3)
    )
    grey = np.full((total, 32, 32, 3), 128, np.uint8)
    title = r"$50 \off$ and {a}.mp4"  # a file may be called anything
    data = draw_explanations([Shown(explanation, grey, title)])
    assert data == draw_explanations([Shown(explanation, grey, title)]), "same input, same bytes"
    cold = draw_explanations([Shown(dataclasses.replace(explanation, strength=strength * 0), grey, title)])
    picture, other = (np.asarray(Image.open(io.BytesIO(part)).convert("RGB"), np.int16) for part in (data, cold))
    height, width = picture.shape[:2]
    assert width > 1000 and height > 500
    yellow = (picture[..., 0] > 180) & (picture[..., 1] > 170) & (picture[..., 2] > 100) & (np.ptp(picture, 2) > 15)
    strip = LINE * (2 if total > FRAMES_OF_A_LINE else 1)
    end = height * (TITLE + strip) / (TITLE + strip + CHARTS)
    rows, columns = np.nonzero(yellow[: int(end), : int(0.92 * width)])
    assert len(rows) > 100, "the hottest patch has the colour map's last colour"
    assert columns.min() > 0.4 * width and not np.array_equal(picture, other)
