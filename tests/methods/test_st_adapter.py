"""ST-Adapter against its formula in NumPy, which blocks have one, drop path, and its size."""

import numpy as np
import pytest
import torch

from ssp import build_model, parameter_counts
from ssp.errors import ConfigError
from tests.golden import plain
from tests.methods.by_hand import DIM, FRAMES, GRID, build, check, forward, lively, videos


def depthwise(weights, name, volume):
    """Volume (T, rows, columns, channels), zero outside."""
    kernel = weights[f"{name}.weight"][:, 0]
    out = np.zeros_like(volume)
    reach = [size // 2 for size in kernel.shape[1:]]
    padded = np.pad(volume, [(r, r) for r in reach] + [(0, 0)])
    for t, row, column in np.ndindex(volume.shape[:3]):
        window = padded[t : t + kernel.shape[1], row : row + kernel.shape[2], column : column + kernel.shape[3]]
        out[t, row, column] = np.einsum("trcw,wtrc->w", window, kernel)
    return out + weights[f"{name}.bias"]


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"blocks": 1}, [2]),
        ({"blocks": 2, "kernel": [3, 3, 1]}, [1, 2]),
        ({"blocks": 2, "placement": "spread", "kernel": [1, 1, 3]}, [0, 2]),
        ({}, [0, 1, 2]),
    ],
)
def test_is_its_formula(options, blocks):
    model = lively("st_adapter", width=4, **options)

    def logits(weights, video):
        def summed(layer, total, where):
            if layer in blocks:
                patches = where["patches"]
                narrow = plain.linear(weights, f"st_adapters.{layer}.down", total[patches])
                mixed = depthwise(weights, f"st_adapters.{layer}.conv", narrow.reshape(FRAMES, *GRID, -1))
                total[patches] += plain.linear(weights, f"st_adapters.{layer}.up", mixed.reshape(*patches.shape, -1))
            return total

        return forward(weights, video, summed=summed)

    ends = [f"{part}.{kind}" for part in ("down", "conv", "up") for kind in ("weight", "bias")]
    check(model, logits, [f"st_adapters.{layer}.{end}" for layer in blocks for end in ends])


@pytest.mark.parametrize(
    ("blocks", "placement", "chosen"),
    [
        (6, "last", [26, 27, 28, 29, 30, 31]),
        (4, "spread", [7, 15, 23, 31]),
        (6, "spread", [4, 9, 15, 20, 25, 31]),
        (99, "spread", list(range(32))),
        (32, "last", list(range(32))),
    ],
)
def test_which_blocks(blocks, placement, chosen):
    with torch.device("meta"):
        options = {"blocks": blocks, "placement": placement}
        model = build_model("videomamba_middle", "st_adapter", 51, method_options=options)
    assert [int(index) for index in model.st_adapters] == chosen == model.method.chosen(model)


def test_acts_where_drop_path_is_over():
    """What comes before the last block is always dropped here; its adapter still adds to the sum of the patches."""
    model, sums = lively("st_adapter", width=4, blocks=1).float().train(), []
    model.layers[2].drop_path.rate = 1.0
    model.layers[2].register_forward_hook(lambda _, given, made: sums.append((given[1], made.residual)))
    with torch.no_grad():
        model(videos().float())
    residual, total = sums[0]
    assert torch.equal(residual[:, 0], total[:, 0])  # the class token: neither branch nor adapter
    assert (residual[:, 1:] != total[:, 1:]).any(dim=-1).all()


def test_even_kernels_are_refused():
    with pytest.raises(ConfigError, match="odd"):
        build("st_adapter", kernel=[2, 1, 1])


def test_start_and_size():
    adapter = build("st_adapter", width=4).st_adapters["2"]
    zero = (adapter.conv.weight, adapter.conv.bias, adapter.down.bias, adapter.up.bias)
    assert not any(parameter.count_nonzero() for parameter in zero)
    for layer, inputs in ((adapter.down, DIM), (adapter.up, 4)):
        assert 0.7 * inputs**-0.5 < layer.weight.abs().max() <= inputs**-0.5
    with torch.device("meta"):
        model = build_model("videomamba_middle", "st_adapter", 51)
    assert parameter_counts(model)["extra"] == 2_669_184 == model.method.expected_parameters(model)
    assert parameter_counts(model)["trainable"] == 2_699_187
