"""SSF against scales and shifts of every layer's output in NumPy, its starts, its sizes, what it folds into."""

import numpy as np
import pytest
import torch

from tests.golden import plain
from tests.methods.by_hand import CLASSES, DEPTH, DIM, PATCH, build, check, lively, videos
from tests.methods.inside import check_merged, counts_of_videomamba_m

ALL = ["norm", "in_proj", "out_proj", "conv1d", "x_proj", "dt_proj"]
TWICE = ("conv1d", "x_proj", "dt_proj")


def logits(weights, video):
    """Layer by layer; nothing is folded into anything."""

    def changed(layer, key, y):
        name = f"ssf.{layer}.{key}"
        return y * weights[f"{name}.scale"] + weights[f"{name}.shift"] if f"{name}.scale" in weights else y

    def scan(layer, end, x, z):
        name = f"layers.{layer}.mixer."
        A = -np.exp(weights[name + ("A_b_log" if end else "A_log")])
        kernel, bias = weights[f"{name}conv1d{end}.weight"][:, 0], weights[f"{name}conv1d{end}.bias"]
        padded = np.concatenate([np.zeros((3, x.shape[1])), x])
        u = np.stack([(padded[t : t + 4].T * kernel).sum(1) + bias for t in range(len(x))])
        u = plain.silu(changed(layer, f"conv1d{end}", u))
        projected = changed(layer, f"x_proj{end}", u @ weights[f"{name}x_proj{end}.weight"].T)
        rank = weights[f"{name}dt_proj{end}.weight"].shape[1]
        low, B, C = np.split(projected, [rank, rank + plain.STATES], axis=1)
        steps = np.log1p(np.exp(changed(layer, f"dt_proj{end}", plain.linear(weights, f"{name}dt_proj{end}", low))))
        state, out = np.zeros_like(A), np.empty_like(x)
        for t in range(len(x)):
            state = np.exp(steps[t][:, None] * A) * state + (steps[t] * u[t])[:, None] * B[t]
            out[t] = (state @ C[t] + weights[f"{name}D{end}"] * u[t]) * plain.silu(z[t])
        return out

    hidden, residual = plain.embedding(weights, video, PATCH, 0), 0.0
    for layer in range(DEPTH):
        residual = residual + hidden
        normed = changed(layer, "norm", plain.norm(residual, weights[f"layers.{layer}.norm.weight"]))
        xz = changed(layer, "in_proj", normed @ weights[f"layers.{layer}.mixer.in_proj.weight"].T)
        x, z = np.split(xz, 2, axis=1)
        both = scan(layer, "", x, z) + scan(layer, "_b", x[::-1], z[::-1])[::-1]
        hidden = changed(layer, "out_proj", both @ weights[f"layers.{layer}.mixer.out_proj.weight"].T)
    return plain.linear(weights, "head", plain.norm((residual + hidden)[0], weights["norm_f.weight"]))


@pytest.mark.parametrize("layers", [["norm"], ["in_proj", "x_proj"], ALL], ids="-".join)
def test_is_its_formula(layers):
    model = lively("ssf", layers=layers)
    keys = [f"{layer}{end}" for layer in layers for end in (("", "_b") if layer in TWICE else ("",))]
    assert set(model.ssf[0]) == set(keys)
    names = [f"ssf.{i}.{key}.{end}" for i in range(DEPTH) for key in keys for end in ("scale", "shift")]
    check(model, logits, names)


def test_start():
    drawn = torch.cat([torch.stack([each.scale - 1, each.shift]) for each in build("ssf").ssf[0].values()], dim=1)
    assert drawn.shape == (2, 6 * DIM)
    assert (abs(drawn.std(dim=1) - 0.02) < 0.005).all() and (abs(drawn.mean(dim=1)) < 0.01).all()
    exact = build("ssf", start="identity")
    assert all((each.scale == 1).all() and not each.shift.count_nonzero() for each in exact.ssf[0].values())
    assert exact.method.identity_at_start and not build("ssf").method.identity_at_start


def test_size():
    assert counts_of_videomamba_m("ssf") == (221_184, 221_184)
    assert counts_of_videomamba_m("ssf", layers=ALL)[0] == 524_800


@pytest.mark.parametrize(
    ("layers", "biases"),
    [
        (["norm"], ["in_proj"]),
        (["conv1d", "dt_proj"], []),
        (ALL, ["in_proj", "out_proj", "x_proj", "x_proj_b"]),
    ],
)
def test_merged(layers, biases):
    """Where a layer has no bias, the shift is one from then on."""
    model = check_merged("ssf", layers=layers)
    assert model.added == {f"layers.{layer}.mixer.{name}.bias" for layer in range(DEPTH) for name in biases}
    assert model(videos().float()).shape == (2, CLASSES)
