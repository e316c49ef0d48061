"""STOP against its formula in NumPy, mask and frame scores apart, its quirk, dropout, and its size."""

import numpy as np
import pytest
import torch

from ssp import build_model, parameter_counts
from ssp.errors import ConfigError
from tests.golden import plain
from tests.methods.by_hand import FRAMES, GRID, PATCH, PATCHES, build, check, forward, lively, videos

SMALL = {"heads": 2, "pixel_kernel": 3, "volume_kernel": [3, 5]}


def conv3d(weights, name, volume):
    """Volume (channels, x, y, z) to as many places, zero outside."""
    kernel = weights[f"{name}.weight"]
    padded = np.pad(volume, [(0, 0)] + [(size // 2, size // 2) for size in kernel.shape[2:]])
    out = np.zeros((len(kernel), *volume.shape[1:]))
    for x, y, z in np.ndindex(kernel.shape[2:]):
        window = padded[:, x : x + volume.shape[1], y : y + volume.shape[2], z : z + volume.shape[3]]
        out += np.einsum("oi,ixyz->oxyz", kernel[:, :, x, y, z], window)
    return out + weights[f"{name}.bias"][:, None, None, None]


def prelu(weights, name, x):
    return np.where(x > 0, x, weights[f"{name}.weight"] * x)


def mask_of(weights, video, cell, masked):
    """For each patch (T, rows, columns) whether its cell is among the highest of its frame."""
    side, scores = cell * PATCH, conv3d(weights, "intra_prompt.scores", video)[0]
    found = np.zeros((FRAMES, *GRID), bool)
    for t in range(FRAMES):
        means = {
            (r, c): scores[t, r * side : (r + 1) * side, c * side : (c + 1) * side].mean()
            for r in range(-(-GRID[0] // cell))
            for c in range(-(-GRID[1] // cell))
        }
        for r, c in sorted(means, key=means.get)[::-1][: min(masked, len(means) - 1)]:
            found[t, r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] = True
    return found


def pixels_of(weights, video, mask):
    x = conv3d(weights, "intra_prompt.convs.1", conv3d(weights, "intra_prompt.convs.0", video))
    x = conv3d(weights, "intra_prompt.convs.3", prelu(weights, "intra_prompt.convs.2", x))
    x = conv3d(weights, "intra_prompt.convs.5", prelu(weights, "intra_prompt.convs.4", x))
    x = prelu(weights, "intra_prompt.colours.1", plain.linear(weights, "intra_prompt.colours.0", np.moveaxis(x, 0, -1)))
    prompt = np.moveaxis(plain.linear(weights, "intra_prompt.colours.2", x), -1, 0)
    return video + 0.05 * prompt + 0.05 * prompt * np.kron(mask, np.ones((PATCH, PATCH)))


def volume_of(weights, patches, heads):
    """Attention over all patches (T, N, D) of a clip."""
    sequence = patches.reshape(FRAMES * PATCHES, -1)
    name = "inter_prompt.attention"
    three = sequence @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    out, size = np.empty_like(sequence), sequence.shape[1] // heads
    for head in range(heads):
        query, key, value = (part[:, head * size : (head + 1) * size] for part in np.split(three, 3, axis=1))
        out[:, head * size : (head + 1) * size] = plain.softmax(query @ key.T / size**0.5) @ value
    return plain.linear(weights, f"{name}.out_proj", out).reshape(patches.shape)


def slots_of(weights, volume):
    """(T, slots, D)."""
    x = conv3d(weights, "inter_prompt.convs.0", volume[None])
    x = conv3d(weights, "inter_prompt.convs.2", prelu(weights, "inter_prompt.convs.1", x))[0]
    x = plain.linear(weights, "inter_prompt.slots.0", x.transpose(0, 2, 1))
    return plain.linear(weights, "inter_prompt.slots.2", prelu(weights, "inter_prompt.slots.1", x)).transpose(0, 2, 1)


def scores_of(weights, volume, mask):
    """(T,), before they are brought to 0..1."""
    x = conv3d(weights, "inter_prompt.scores", volume[None])[0]
    return (x + x * mask.reshape(FRAMES, PATCHES, 1)).mean((1, 2))


def logits_of(weights, video, model, ends=None):
    options = model.method.options
    mask = mask_of(weights, video, options.cell, options.masked)
    rows = {}

    def tokens(hidden, where):
        volume = volume_of(weights, hidden[where["patches"]], options.heads)
        scores = scores_of(weights, volume, mask)
        low, high = ends or (scores.min(), scores.max())
        rows["scores"] = scores
        rows["slots"] = 0.05 * slots_of(weights, volume) * (1 + (scores - low) / (high - low))[:, None, None]

    def summed(layer, total, where):
        base = weights["base_prompts"][layer] if options.base != "none" else 0
        total[where["per_frame"]] = rows["slots"] + base
        if layer == 0 and options.global_rows:
            total[where["before_cls"]] = weights["global_prompts"]
        return total

    places = {"per_frame": options.slots, "before_cls": options.global_rows}
    found = forward(weights, pixels_of(weights, video, mask), places=places, tokens=tokens, summed=summed)
    return found, rows["scores"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cell": 1, "masked": 2}, marks=pytest.mark.slow),
        pytest.param({"cell": 2, "masked": 1, "base": "slots", "slots": 3, "global_rows": 2}, marks=pytest.mark.slow),
        {"cell": 2, "base": "none", "heads": 4},
        pytest.param({"cell": 1, "masked": 0, "pixel_kernel": 5}, marks=pytest.mark.slow),
    ],
)
def test_is_its_formula(options):
    model = lively("stop", **SMALL | {"slots": 2} | options)
    # Of the scores' bias only what differs between frames counts: nothing, or next to nothing.
    blind = {*model.method.without_gradient(model), "inter_prompt.scores.bias"}
    if options.get("base") == "none":
        blind.add("inter_prompt.scores.weight")  # here too little for differences to show; the others show it
    names = [name for name in sorted(model.added) if name not in blind]
    check(model, lambda weights, video: logits_of(weights, video, model)[0], names, clips=1)


def test_what_has_no_gradient_has_none():
    model = lively("stop", **SMALL, cell=1, masked=2)
    declared = model.method.without_gradient(model)
    assert len(declared) == 3 and all(declared.values())
    model(videos()).square().sum().backward()
    for name in ("intra_prompt.scores.weight", "intra_prompt.scores.bias"):
        assert model.get_parameter(name).grad is None
    grads = {
        name: model.get_parameter(name).grad.abs().max() for name in ("inter_prompt.scores.weight", "base_prompts")
    }
    assert model.inter_prompt.scores.bias.grad.abs().max() < 1e-13 * max(grads.values())
    # Cells at the edge that are smaller mark fewer patches in some frames: then the bias does count.
    uneven = lively("stop", **SMALL, cell=2, masked=1)
    assert "inter_prompt.scores.bias" not in uneven.method.without_gradient(uneven)


def test_published_frame_scores_depend_on_the_batch():
    """Over the whole batch, as the public code does; a clip alone is the fixed model's."""
    published, fixed = (lively("stop", **SMALL, frame_norm=norm) for norm in ("published", "fixed"))
    video = videos()
    weights = {name: value.detach().numpy() for name, value in fixed.state_dict().items()}
    scores = np.stack([logits_of(weights, clip, fixed)[1] for clip in video.numpy()])
    ends = scores.min(), scores.max()
    theirs = np.stack([logits_of(weights, clip, published, ends)[0] for clip in video.numpy()])
    with torch.no_grad():
        together, alone = published(video).numpy(), np.stack([published(clip[None])[0].numpy() for clip in video])
        np.testing.assert_allclose(together, theirs, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(alone, fixed(video).numpy(), rtol=1e-9, atol=1e-11)
    assert np.abs(together - alone).max() > 1e-9


@pytest.mark.parametrize("frames", [1, 2])
def test_one_and_two_frames(frames):
    options = {**SMALL, "masked": 1}
    model = build_model(
        {"embed_dim": 16, "depth": 2, "patch_size": 8},
        "stop",
        3,
        num_frames=frames,
        img_size=20,
        method_options=options,
    ).double()
    blind = model.method.without_gradient(model)
    assert {"inter_prompt.scores.weight", "inter_prompt.scores.bias"} <= set(blind)
    logits = model(torch.randn(2, 3, frames, 20, 20, dtype=torch.float64))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    assert model.inter_prompt.scores.weight.grad.abs().max() < 1e-13 * largest


def test_a_margin_that_is_not_embedded_counts_in_nothing():
    """22 pixels hold two patches of 8; what stands beyond may only act through the convolutions' reach."""
    model = build_model(
        {"embed_dim": 16, "depth": 2, "patch_size": 8}, "stop", 3, num_frames=3, img_size=(23, 16), method_options=SMALL
    ).eval()
    video = torch.randn(1, 3, 3, 23, 16)
    assert model.bare_layout.grid == (2, 2)
    other = video.clone()
    other[..., 22:, :] += 5  # 6 pixels from what is embedded: beyond the mask's 5 and the four convolutions' 4
    with torch.no_grad():
        torch.testing.assert_close(model(other), model(video))


def test_dropout_is_on_in_training_alone():
    model, video = lively("stop", **SMALL), videos()
    with torch.no_grad():
        assert torch.equal(model(video), model(video))
        assert not torch.equal(model.train()(video), model(video))
        none = lively("stop", **SMALL, dropout=0.0)
        torch.testing.assert_close(none.train()(video), none.eval()(video))


def test_what_it_refuses():
    with pytest.raises(ConfigError, match=r"^methods\.stop\.options\.heads: 12 does not divide the width, 16$"):
        build("stop")
    with pytest.raises(ConfigError, match="odd"):
        build("stop", heads=2, pixel_kernel=4)


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({}, 1_494_992),
        ({"base": "none"}, 1_476_560),
        ({"base": "slots"}, 1_550_288),
        ({"base": "none", "global_rows": 8}, 1_476_560 + 4_608),
    ],
)
def test_sizes(options, extra):
    with torch.device("meta"):
        model = build_model("videomamba_middle", "stop", 51, method_options=options)
    assert parameter_counts(model)["extra"] == extra == model.method.expected_parameters(model)
    intra = sum(p.numel() for p in model.intra_prompt.parameters())
    assert intra == 123_064
