"""Sizes that the golden files do not have, against the plain formulas (which meet the golden files too)."""

import json

import numpy as np
import pytest
import torch

from ssp import build_model, load_weights
from tests.golden import plain
from tests.golden.test_golden import FILES, golden

# dim, depth, image (height, width), patch, frames, clips, inner, attention, prompts
SIZES = {
    "dt_rank-rounds-up": (40, 3, (96, 96), 16, 3, 2, 7, 8, 1),
    "five-prompts": (16, 2, (48, 48), 16, 8, 3, 24, 40, 5),
    "224-pixels": (16, 1, (224, 224), 16, 3, 1, 6, 16, 3),
    "32-frames": (24, 2, (32, 32), 8, 32, 1, 9, 8, 4),
    "grid-not-square": (24, 4, (64, 32), 16, 5, 2, 10, 24, 2),
    "margin-and-one-frame": (16, 2, (50, 40), 16, 1, 2, 9, 8, 3),
}


def double(state):
    return {name: np.asarray(value, np.float64) for name, value in state.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_plain_formulas_meet_the_golden_numbers(name):
    numbers = golden(name)
    config = json.loads(bytes(numbers["config"]))
    weights = double({key.removeprefix("state/"): numbers[key] for key in numbers if key.startswith("state/")})
    prompts = config["num_prompts"] if config["ssp"] else 0
    ours = [plain.logits(weights, clip, config["depth"], 16, prompts) for clip in numbers["video"]]
    np.testing.assert_allclose(ours, numbers["logits_one_clip_at_a_time"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["linear", "ssp"])
@pytest.mark.parametrize("size", SIZES)
def test_other_sizes(size, method):
    dim, depth, image, patch, frames, clips, inner, attention, prompts = SIZES[size]
    options = {"inner_dim": inner, "attn_dim": attention, "num_prompts": prompts}
    model = build_model(
        {"embed_dim": dim, "depth": depth, "patch_size": patch},
        method,
        9,
        num_frames=frames,
        img_size=image,
        method_options=options if method == "ssp" else None,
    )
    generator, state = torch.Generator().manual_seed(0), {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        state[name] = value + noise * (0.3 if value.ndim < 2 else value[0].numel() ** -0.5)
    load_weights(model, state)
    video = torch.randn(clips, 3, frames, *image, generator=generator)
    weights = double({name: value.numpy() for name, value in state.items()})
    rows = prompts if method == "ssp" else 0
    expected = np.stack([plain.logits(weights, clip.double().numpy(), depth, patch, rows) for clip in video])
    for dtype, tolerance in {torch.float32: 1e-4, torch.float64: 1e-9}.items():
        with torch.no_grad():
            ours = model.to(dtype)(video.to(dtype)).double().numpy()
        assert np.abs(ours - expected).max() < tolerance * np.abs(expected).max()
