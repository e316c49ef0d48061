"""Equal to the published implementation, number for number.

The two .npz files were computed in float64 with the published VideoMamba and SSP code on a small configuration (key
`config`). Differences are relative to the largest value of each array; gradients relative to the largest absolute
gradient over all tensors, because some are nothing by construction (the scale of prompts that a norm follows).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssp import build_model, load_weights
from ssp.scan.dispatch import VARIABLE, available_backends, load

FILES = ("videomamba", "ssp")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
RUNS = [
    (dtype, backend)
    for dtype in TOLERANCE
    for backend in available_backends()
    if load(backend).unsupported(dtype, torch.device("cpu")) is None
]


@cache
def golden(name):
    with np.load(Path(__file__).with_name(f"{name}_published.npz")) as file:
        return dict(file)


def loaded_model(name, dtype):
    numbers = golden(name)
    config = json.loads(bytes(numbers["config"]))
    options = {key: config[key] for key in ("inner_dim", "attn_dim", "num_prompts")} | {"entropy_norm": "published"}
    model = build_model(
        {"embed_dim": config["embed_dim"], "depth": config["depth"]},
        "ssp" if config["ssp"] else "full",
        config["num_classes"],
        num_frames=config["num_frames"],
        img_size=config["img_size"],
        method_options=options if config["ssp"] else None,
    ).to(dtype)
    load_weights(model, {key.removeprefix("state/"): numbers[key] for key in numbers if key.startswith("state/")})
    return model


@pytest.fixture(params=RUNS, ids=lambda run: f"{str(run[0]).removeprefix('torch.')}-{run[1]}")
def run(request, monkeypatch):
    dtype, backend = request.param
    monkeypatch.setenv(VARIABLE, backend)
    return dtype


@pytest.mark.parametrize("name", FILES)
def test_every_published_number(name, run):
    numbers, model = golden(name), loaded_model(name, run)
    ours = {}
    for i, block in enumerate(model.layers):
        block.register_forward_hook(
            lambda _, given, made, i=i: ours.update(
                {f"block_input/{i}": given[0], f"hidden/{i}": made[0], f"residual/{i}": made[1]}
            )
        )
    ours["logits"] = model(torch.from_numpy(numbers["video"]).to(run))
    ours["loss"] = F.cross_entropy(ours["logits"], torch.from_numpy(numbers["labels"]))
    ours["loss"].backward()

    values = {key for key in numbers if key.startswith(("block_input/", "hidden/", "residual/"))} | {"logits", "loss"}
    assert set(ours) == values
    for key in values:
        assert_close(ours[key], numbers[key], np.abs(numbers[key]).max(), run, key)

    gradients = {f"grad/{key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == {key for key in numbers if key.startswith("grad/")}
    largest = max(np.abs(numbers[key]).max() for key in gradients)
    for key, gradient in gradients.items():
        assert_close(gradient, numbers[key], largest, run, key)


@pytest.mark.parametrize("name", FILES)
def test_one_clip_at_a_time(name, run):
    numbers, model = golden(name), loaded_model(name, run)
    with torch.no_grad():
        logits = torch.cat([model(clip[None].to(run)) for clip in torch.from_numpy(numbers["video"])])
    expected = numbers["logits_one_clip_at_a_time"]
    assert_close(logits, expected, np.abs(expected).max(), run, "logits_one_clip_at_a_time")


def test_the_published_gate_sees_the_batch():
    """The file itself shows the quirk: one clip at a time gives other logits, by more than any tolerance here."""
    numbers = golden("ssp")
    assert np.abs(numbers["logits"] - numbers["logits_one_clip_at_a_time"]).max() > 1e-7


def assert_close(ours, expected, largest, dtype, key):
    difference = np.abs(ours.detach().double().numpy() - expected).max() / largest
    assert difference < TOLERANCE[dtype], f"{key}: {difference:.1e}"
