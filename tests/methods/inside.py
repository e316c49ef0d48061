"""A mixer written out in NumPy with what methods change inside it, between plain formulas of the backbone.

One clip, no batch, no modules; `by_hand.check` holds a model to it. A mixer's weights are taken apart into an
`InOut` and two `Scan`s, which a test changes by the formula of a method.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ssp import build_model, parameter_counts
from tests.golden import plain
from tests.methods.by_hand import CLASSES, PATCH, lively, videos


@dataclass
class InOut:
    """What both directions share."""

    in_proj: np.ndarray
    out_proj: np.ndarray
    in_bias: np.ndarray | float = 0.0
    out_bias: np.ndarray | float = 0.0


@dataclass
class Scan:
    """One direction: its weights, and what a method puts beside them."""

    conv: np.ndarray  # (E, K)
    conv_bias: np.ndarray
    rows_dt: np.ndarray  # of x_proj
    rows_B: np.ndarray
    rows_C: np.ndarray
    dt_proj: np.ndarray
    dt_bias: np.ndarray
    A: np.ndarray
    D: np.ndarray
    bias_dt: np.ndarray | float = 0.0
    bias_B: np.ndarray | float = 0.0
    bias_C: np.ndarray | float = 0.0
    columns: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))  # (k, 2E) in front
    start: np.ndarray | float = 0.0  # state before the first token
    offset: np.ndarray | float = 0.0  # of the state that C reads
    output: np.ndarray | float = 0.0  # of what is read


def take_apart(weights, layer):
    """The parts of one mixer: InOut, forward Scan, backward Scan."""
    name = f"layers.{layer}.mixer."
    shared = InOut(weights[f"{name}in_proj.weight"], weights[f"{name}out_proj.weight"])
    scans = []
    for end, A_log in (("", "A_log"), ("_b", "A_b_log")):
        dt_proj = weights[f"{name}dt_proj{end}.weight"]
        rank = dt_proj.shape[1]
        rows = np.split(weights[f"{name}x_proj{end}.weight"], [rank, rank + plain.STATES])
        conv, bias = weights[f"{name}conv1d{end}.weight"][:, 0], weights[f"{name}conv1d{end}.bias"]
        scans.append(
            Scan(
                conv, bias, *rows, dt_proj, weights[f"{name}dt_proj{end}.bias"],
                -np.exp(weights[name + A_log]), weights[f"{name}D{end}"],
            )
        )  # fmt: skip
    return shared, *scans


def run(scan, x, z):
    """One direction over x, z (L, E), in the order of its scan."""
    tokens, inner = x.shape
    if len(scan.columns):
        front = np.zeros((len(scan.columns), 2 * inner))
        front[:, : scan.columns.shape[1]] = scan.columns
        x, z = np.concatenate([front[:, :inner], x]), np.concatenate([front[:, inner:], z])
    taps = scan.conv.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, inner)), x])
    state, out = np.zeros_like(scan.A) + scan.start, np.empty_like(x)
    for t in range(len(x)):
        u = plain.silu((padded[t : t + taps].T * scan.conv).sum(1) + scan.conv_bias)
        low, B, C = scan.rows_dt @ u + scan.bias_dt, scan.rows_B @ u + scan.bias_B, scan.rows_C @ u + scan.bias_C
        step = np.log1p(np.exp(scan.dt_proj @ low + scan.dt_bias))
        state = np.exp(step[:, None] * scan.A) * state + (step * u)[:, None] * B
        out[t] = ((state + scan.offset) @ C + scan.output + scan.D * u) * plain.silu(z[t])
    return out[-tokens:]


def forward(weights, video, change):
    """Logits of one clip; `change(layer, InOut, forward Scan, backward Scan, weights)` changes the parts of a mixer."""
    hidden, residual = plain.embedding(weights, video, PATCH, 0), 0.0
    for layer in range(sum(name.endswith(".mixer.D") for name in weights)):
        residual = residual + hidden
        normed = plain.norm(residual, weights[f"layers.{layer}.norm.weight"])
        shared, first, second = take_apart(weights, layer)
        change(layer, shared, first, second)
        x, z = np.split(normed @ shared.in_proj.T + shared.in_bias, 2, axis=1)
        both = run(first, x, z) + run(second, x[::-1], z[::-1])[::-1]
        hidden = both @ shared.out_proj.T + shared.out_bias
    return plain.linear(weights, "head", plain.norm((residual + hidden)[0], weights["norm_f.weight"]))


def counts_of_videomamba_m(method, **options):
    """Added and tuned parameters on VideoMamba-M, the analytic number held to the model's."""
    with torch.device("meta"):
        model = build_model("videomamba_middle", method, 51, method_options=options)
    counts = parameter_counts(model)
    assert counts["extra"] == model.method.expected_parameters(model)
    return counts["extra"], counts["tuned"]


def check_merged(method, **options):
    """Merged logits are the unmerged ones, in both precisions, and the model is a linear probe of published shape."""
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        model = lively(method, **options).to(dtype)
        video = videos().to(dtype)
        with torch.no_grad():
            before = model(video)
            assert model.method.mergeable
            model.method.merge(model)
            after = model(video)
        assert (after - before).abs().max() <= tolerance * before.abs().max().clamp(min=1)
    bare = {name: p.shape for name, p in lively("linear").named_parameters()}
    merged = {name: p.shape for name, p in model.named_parameters()}
    assert bare.items() <= merged.items() and merged.keys() - bare.keys() == model.added
    assert model.method.name == "linear"
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == {name for name in merged if name.startswith(("head.", "norm_f."))}
    assert model(video).shape == (len(video), CLASSES)
    return model
