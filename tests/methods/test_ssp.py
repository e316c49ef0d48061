"""SSP's parts and the paper's words for them, each option against its formula in NumPy; sizes; the blank start."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssp.errors import ConfigError
from ssp.methods.method import TuningMethod
from tests.golden import plain
from tests.methods.by_hand import DEPTH, GRID, build, check, forward, lively, videos
from tests.methods.inside import counts_of_videomamba_m

SIZES = {"inner_dim": 6, "attn_dim": 8, "num_prompts": 2}


def logits_of(**options):
    """Logits as a function of weights and clip, written from the formulas; options as the method's.

    What the method takes no gradient through keeps the value that it had with the first weights that were given.
    """
    chosen = {"gathering": True, "spreading": True, "gate": True, "kernel": 1, "shared": True, "pooling": "learned"}
    chosen |= {"attached": False, "summary": "last_patch", "entropy_of": "prompt", "joins": "branch"}
    chosen |= SIZES | options
    kept = {}

    def logits(weights, video):
        def stopped(layer, what, value):
            return kept.setdefault((video.flat[0], layer, what), value)

        def prompted(layer, rows, where):
            rows, patches, factors = rows.copy(), rows[where["patches"]], []  # patches (T, N, D)
            prompt = None
            if chosen["gathering"]:
                name = "inner_prompt" if chosen["shared"] else f"inner_prompt.{layer}"
                middle = plain.linear(weights, f"{name}.fc1", patches)
                middle = convolved(middle, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"])
                prompt = plain.linear(weights, f"{name}.fc2", middle)
                rows[where["patches"]] = patches + prompt
            if layer == 0 or not chosen["num_prompts"]:
                return rows
            if chosen["gathering"]:
                seen = middle if chosen["attached"] else stopped(layer, "middle", middle)
                if chosen["pooling"] == "variance":
                    pooled = ((seen - seen.mean(1, keepdims=True)) ** 2).mean(1)
                else:
                    grid = weights[f"{name}.inter.convs.weight"].reshape(SIZES["inner_dim"], -1)
                    pooled = np.stack([(frame * grid.T).sum(0) for frame in seen])
                    pooled += weights[f"{name}.inter.convs.bias"]
                factors.append(plain.linear(weights, f"{name}.inter.heads", pooled)[:, None])
            if chosen["spreading"]:
                frames = len(patches)
                summary = {
                    "last_patch": patches[:, -1],
                    "mean": patches.sum(1) / patches.shape[1],
                    "cls": np.stack([rows[where["cls"][0]]] * frames),
                }[chosen["summary"]]
                source = prompt if chosen["entropy_of"] == "prompt" else patches
                if chosen["gate"] and source is not None:
                    entropy = np.array([[-(s * np.log(s + 1e-10)).sum() for s in plain.softmax(f)] for f in source])
                    gate = stopped(layer, "gate", plain.softmax((1 - entropy / entropy.max()).mean(1)))
                    summary = summary * (1 + weights[f"dynamic_scales.{layer - 1}"] * gate[:, None])
                spread = [plain.attention(weights, f"prompt_attentions.{i}.", summary) for i in range(2)]
                factors.append(np.stack(spread, axis=1))  # (T, P, D)
            made = 1.0
            for factor in factors:
                made = made * factor
            rows[where["per_frame"]] = made
            return rows

        joins = {"branch": "before", "mixer_input": "normed"}[chosen["joins"]]
        return forward(weights, video, places={"per_frame": chosen["num_prompts"]}, **{joins: prompted})

    return logits


def convolved(middle, kernel, bias):
    """Depthwise over the patch grid of each frame, zeros beyond its edge; middle (T, N, C), kernel (C, 1, 1, k, k)."""
    frames, _, channels = middle.shape
    side, planes = kernel.shape[-1], middle.reshape(frames, *GRID, channels)
    out, reach = np.zeros_like(planes), kernel.shape[-1] // 2
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            for i in range(side):
                for j in range(side):
                    y, x = row + i - reach, column + j - reach
                    if 0 <= y < GRID[0] and 0 <= x < GRID[1]:
                        out[:, row, column] += planes[:, y, x] * kernel[:, 0, 0, i, j]
    return out.reshape(middle.shape) + bias


LOW = ["inner_prompt.fc1.weight", "inner_prompt.conv.weight", "inner_prompt.fc2.bias"]
GATHERED = ["inner_prompt.inter.convs.weight", "inner_prompt.inter.heads.weight"]
SPREAD = ["prompt_attentions.0.down_proj.weight", "prompt_attentions.1.up_proj.bias"]
GATE = ["dynamic_scales.0"]
PUBLISHED = [*LOW, *GATHERED, *SPREAD, *GATE]
CASES = [
    ({}, PUBLISHED),
    ({"num_prompts": 0}, LOW),
    ({"gathering": False}, SPREAD),
    ({"gathering": False, "entropy_of": "patches"}, [*SPREAD, *GATE]),
    ({"spreading": False}, [*LOW, *GATHERED]),
    ({"gate": False}, [*LOW, *GATHERED, *SPREAD]),
    ({"kernel": 3}, PUBLISHED),
    ({"attached": True}, PUBLISHED),
    ({"shared": False}, [f"inner_prompt.{i}.fc1.weight" for i in range(DEPTH)] + ["inner_prompt.1.inter.heads.weight"]),
    ({"pooling": "variance"}, [*LOW, "inner_prompt.inter.heads.weight", *SPREAD, *GATE]),
    ({"summary": "mean"}, PUBLISHED),
    ({"summary": "cls"}, PUBLISHED),
    ({"entropy_of": "patches"}, PUBLISHED),
    ({"joins": "mixer_input"}, PUBLISHED),
    # All of the paper's words at once.
    (
        {"kernel": 3, "shared": False, "pooling": "variance", "summary": "mean", "entropy_of": "patches"}
        | {"joins": "mixer_input", "attached": True},
        ["inner_prompt.1.conv.weight", "inner_prompt.2.inter.heads.weight", *SPREAD, *GATE],
    ),
]


def named(case):
    return ("+".join(case) or "defaults") if isinstance(case, dict) else ""


@pytest.mark.parametrize(("options", "names"), CASES, ids=named)
def test_is_its_formula(options, names):
    model = lively("ssp", **(SIZES | options))
    added = {name for name in model.added if name.startswith(("inner_prompt", "prompt_attentions", "dynamic_scales"))}
    assert added == model.added and set(names) <= added
    check(model, logits_of(**options), names)


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({}, 2_418_274),
        ({"num_prompts": 0}, 444_096),
        ({"num_prompts": 5}, 2_418_274 + 2 * 558_913),
        ({"gathering": False}, 3 * 558_913),
        ({"gathering": False, "entropy_of": "patches"}, 3 * 558_913 + 31),
        ({"spreading": False}, 741_504),
        ({"gate": False}, 2_418_243),
        ({"kernel": 3}, 2_418_274 + 8 * 384),
        ({"shared": False}, 32 * 444_096 + 31 * 297_408 + 3 * 558_913 + 31),
        ({"shared": False, "num_prompts": 0, "kernel": 3}, 32 * (444_096 + 8 * 384)),
        ({"pooling": "variance"}, 2_418_274 - 75_648),
        ({"attached": True, "summary": "cls", "entropy_of": "patches", "joins": "mixer_input"}, 2_418_274),
    ],
    ids=named,
)
def test_sizes(options, extra):
    assert counts_of_videomamba_m("ssp", **options)[0] == extra


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spreading": False},
        {"gate": False},
        {"kernel": 3},
        {"shared": False},
        {"pooling": "variance"},
        {"summary": "cls"},
        {"entropy_of": "patches"},
        {"joins": "mixer_input"},
    ],
    ids=named,
)
def test_with_gathering_it_starts_as_the_backbone_with_blank_rows(options):
    class Blank(TuningMethod):
        def layout(self, layout):
            return replace(layout, per_frame=2)

    model = build("ssp", **SIZES, **options).double().eval()
    with torch.no_grad():
        fresh = model(videos())
        model.method = Blank()
        assert torch.equal(model(videos()), fresh)
        model.method = TuningMethod()
        assert (model(videos()) - fresh).abs().max() > 1e-9, "blank rows are not the same as no rows"


def test_options_of_what_is_off_have_no_effect():
    torch.manual_seed(0)
    for off, idle in (
        ({"gathering": False}, {"kernel": 3, "shared": False, "pooling": "variance", "attached": True, "gate": False}),
        ({"num_prompts": 0}, {"spreading": False, "gate": False, "summary": "mean", "attn_dim": 16}),
        ({"gate": False}, {"entropy_of": "patches", "entropy_norm": "published"}),
    ):
        plainly, model = lively("ssp", **(SIZES | off)), lively("ssp", **(SIZES | off | idle))
        with torch.no_grad():
            assert torch.equal(plainly(videos()), model(videos()))


@pytest.mark.parametrize("rest", [{"num_prompts": 0}, {"spreading": False}], ids=named)
def test_something_has_to_be_left(rest):
    with pytest.raises(ConfigError, match="nothing is left without gathering and spreading") as error:
        build("ssp", gathering=False, **rest)
    assert "\n" not in str(error.value)


def test_a_gate_over_the_batch_can_read_the_patches():
    model, video = lively("ssp", **SIZES, entropy_of="patches", entropy_norm="published"), videos(3)
    with torch.no_grad():
        alone = torch.cat([model(clip[None]) for clip in video])
        assert (model(video) - alone).abs().max() > 1e-9
