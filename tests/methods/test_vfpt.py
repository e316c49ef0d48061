"""VFPT against its formula in NumPy (sums of cosines, no transform of any library), and its size."""

import numpy as np
import pytest
import torch

from ssp import build_model, parameter_counts
from tests.methods.by_hand import DIM, build, check, lively, videos
from tests.methods.test_vpt import expected


def waves(rows, axes):
    """Real part of the discrete Fourier transform of (n, D) along the axes: one cosine for each pair of frequencies."""
    count, dim = rows.shape
    out = np.empty_like(rows)
    for k, c in np.ndindex(rows.shape):
        along_rows = np.arange(count) * k / count if axes != "channels" else np.where(np.arange(count) == k, 0, np.nan)
        along_channels = np.arange(dim) * c / dim if axes != "rows" else np.where(np.arange(dim) == c, 0, np.nan)
        out[k, c] = np.nansum(rows * np.cos(2 * np.pi * (along_rows[:, None] + along_channels)))
    return out


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "shallow"])
@pytest.mark.parametrize(
    ("options", "transformed"),
    [
        ({}, slice(0, 2)),
        ({"fourier": 0.4}, slice(0, 2)),
        ({"fourier": 0.6, "axes": "channels", "first": False}, slice(2, 5)),
        ({"fourier": 0.99, "axes": "rows"}, slice(0, 4)),
        ({"fourier": 1.0, "first": False}, slice(0, 5)),
        ({"fourier": 0.1}, slice(0, 0)),
    ],
)
def test_is_its_formula(options, transformed, deep):
    def rows_of(prompts):
        rows = prompts.copy()
        rows[transformed] = waves(prompts[transformed], options.get("axes", "both"))
        return rows

    model = lively("vfpt", num_prompts=5, position="before_cls", deep=deep, **options)
    check(model, expected(deep, "before_cls", rows_of), ["prompt_embeddings"], clips=1)


def test_half_precision_is_transformed_in_float32():
    model = build("vfpt", num_prompts=6).bfloat16()
    made = model.method.rows(model.prompt_embeddings[0])
    assert made.dtype == torch.float32
    assert model(videos().bfloat16()).isfinite().all()


def test_same_start_place_and_size_as_vpt():
    for place in ("after_cls", "per_frame"):
        ours, vpt = (build(name, num_prompts=4, position=place) for name in ("vfpt", "vpt"))
        assert torch.equal(ours.prompt_embeddings, vpt.prompt_embeddings)
        assert ours.method.sweep_space() == vpt.method.sweep_space()
    with torch.device("meta"):
        model = build_model("videomamba_middle", "vfpt", 51)
    assert parameter_counts(model)["extra"] == 1_474_560 == model.method.expected_parameters(model)
    assert model.method.options.fourier == 0.5


def test_transformed_rows_are_long_at_the_start():
    """As published, nothing is normalised: sqrt(rows * channels / 2) times the length of plain rows."""
    prompts = build("vfpt", num_prompts=400).method.rows(build("vfpt", num_prompts=400).prompt_embeddings[0]).detach()
    ratio = prompts[:200].std() / prompts[200:].std()
    assert ratio.item() == pytest.approx((200 * DIM / 2) ** 0.5, rel=0.1)
