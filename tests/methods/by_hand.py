"""A method's formula, written out in NumPy by its test, between plain formulas of the backbone; what it is held to.

One clip, no batch, no modules. The backbone here is `tests/golden/plain.py`, which meets the published code's numbers.
"""

import numpy as np
import torch

from ssp import build_model
from tests.golden import plain

DIM, DEPTH, PATCH, CLASSES = 16, 3, 8, 5
FRAMES, GRID = 3, (2, 3)
PATCHES = GRID[0] * GRID[1]
STEPS = (1e-4, 1e-5, 1e-6, 1e-3)
SIZE = {"num_frames": FRAMES, "img_size": (GRID[0] * PATCH, GRID[1] * PATCH)}


def build(method, *, drop_path=0.0, depth=DEPTH, **options):
    """The small model of these tests; its image is not square."""
    torch.manual_seed(0)
    architecture = {"embed_dim": DIM, "depth": depth, "patch_size": PATCH}
    return build_model(architecture, method, CLASSES, **SIZE, drop_path=drop_path, method_options=options)


def lively(method, **options):
    """In float64, with all parameters moved, so that each matters and rows act on each other."""
    model, generator = build(method, **options).double().eval(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def videos(clips=2):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(clips, 3, FRAMES, *SIZE["img_size"], generator=generator, dtype=torch.float64)


def nothing(layer, rows, where):
    """A hook that leaves rows as they are."""
    return rows


def forward(weights, video, *, places=None, tokens=None, before=nothing, summed=nothing, normed=nothing, after=None):
    """Logits of one clip (3, T, H, W).

    Args:
        weights: float64 arrays under parameter names.
        video: the clip.
        places: how many rows a place of the layout has ("before_cls", "after_cls", "per_frame", "suffix").
        tokens: shown the embedded rows and `where`.
        before: (layer, what the last mixer gave, where) to the same, before drop path and sum.
        summed: (layer, the sum, where) to the same, before the norm.
        normed: (layer, the normed sum, where) to the same, before the mixer.
        after: (layer, what the mixer gave, the sum, where) to both.

    `where` has the numbers of rows: of each place, "cls" (1,), "patches" (T, N), "per_frame" (T, count).
    """
    bare = plain.embedding(weights, video, PATCH, 0)
    where, order = arrange(places or {})
    hidden = np.zeros((len(order), DIM))
    for row, source in enumerate(order):
        if source is not None:
            hidden[row] = bare[source]
    if tokens:
        tokens(hidden, where)
    residual = np.zeros_like(hidden)
    for layer in range(sum(name.endswith(".mixer.D") for name in weights)):
        hidden = before(layer, hidden.copy(), where)
        residual = summed(layer, residual + hidden, where)
        rows = normed(layer, plain.norm(residual, weights[f"layers.{layer}.norm.weight"]), where)
        hidden = plain.mixer(weights, f"layers.{layer}.mixer.", rows)
        if after:
            hidden, residual = after(layer, hidden, residual, where)
    return plain.linear(weights, "head", plain.norm((residual + hidden)[where["cls"][0]], weights["norm_f.weight"]))


def arrange(places):
    """Row numbers of everything, and for each row the row of the bare backbone, or None."""
    order, where = [], {}

    def take(name, sources):
        where.setdefault(name, []).append(list(range(len(order), len(order) + len(sources))))
        order.extend(sources)

    take("before_cls", [None] * places.get("before_cls", 0))
    take("cls", [0])
    take("after_cls", [None] * places.get("after_cls", 0))
    for t in range(FRAMES):
        take("patches", range(1 + t * PATCHES, 1 + (t + 1) * PATCHES))
        take("per_frame", [None] * places.get("per_frame", 0))
    take("suffix", [None] * places.get("suffix", 0))
    whole = ("patches", "per_frame")
    return {name: np.array(rows if name in whole else rows[0], int) for name, rows in where.items()}, order


def check(model, logits, names, clips=2):
    """Hold a model to `logits(weights, video)`: every clip, and the slope of a sum of logits along each parameter.

    The slope is that of the formula, by differences, along a random direction; the model's is by its backward. A step
    must be small beside the kinks of an activation and large beside rounding: that one of a few agrees is enough.
    """
    video = videos(clips)
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    ours, random = model(video), np.random.default_rng(3)
    theirs = np.stack([logits(weights, clip) for clip in video.numpy()])
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9, atol=1e-11)
    share = random.normal(size=CLASSES)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(ours[0] @ torch.from_numpy(share), [parameters[name] for name in names])
    for name, gradient in zip(names, found, strict=True):
        direction = random.normal(size=gradient.shape)
        slope = (gradient.numpy() * direction).sum()
        assert slope != 0, name
        tried = []
        for length in STEPS:
            step = length / np.linalg.norm(direction) * direction
            ends = [logits(weights | {name: weights[name] + sign * step}, video[0].numpy()) @ share for sign in (1, -1)]
            tried.append((ends[0] - ends[1]) * np.linalg.norm(direction) / (2 * length))
            if abs(tried[-1] - slope) < 1e-4 * abs(slope):
                break
        else:
            raise AssertionError(f"{name}: the model's slope is {slope}, the formula's {tried}")
