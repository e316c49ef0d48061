"""The count of FLOPs is that of formulas worked out by hand, for the backbone and for what methods add to it."""

import pytest
import torch
from torch import nn

from ssp import build_model
from ssp.backbone.flops import UncountedOperator, forward_flops
from ssp.scan import selective_scan
from ssp.scan.dispatch import VARIABLE

D, DEPTH, PATCH, FRAMES, GRID, CLASSES = 32, 3, 8, 4, (2, 3), 5
E, STATES, TAPS, LOW = 2 * D, 16, 4, 2  # E channels, N states, convolution, dt_rank
N = GRID[0] * GRID[1]
L = 1 + FRAMES * N


def model_of(method, **options):
    with torch.device("meta"):
        return build_model(
            {"embed_dim": D, "depth": DEPTH, "patch_size": PATCH},
            method,
            CLASSES,
            num_frames=FRAMES,
            img_size=(GRID[0] * PATCH, GRID[1] * PATCH),
            method_options=options,
        )


def dense(rows, inputs, outputs, bias=True):
    return rows * (2 * inputs * outputs + outputs * bias)


def norm(rows):
    """Square, mean (its sum), times scale, times weight: 4 a channel; epsilon and square root: 2 a row."""
    return rows * (4 * D + 2)


def scan(rows):
    """Of h: d A, exp, times h, (d u) B, sum; of y: C h, sum. d + bias, softplus, d u; D u, sum; silu(z), product."""
    return rows * E * (7 * STATES + 3 + 2 + 2)


def direction(rows):
    conv_silu = rows * E * (2 * TAPS + 1 + 1)
    A = 2 * E * STATES
    return conv_silu + dense(rows, E, LOW + 2 * STATES, False) + dense(rows, LOW, E, False) + A + scan(rows)


def block(rows):
    mixer = dense(rows, D, 2 * E, False) + 2 * direction(rows) + rows * E + dense(rows, E, D, False)
    return norm(rows) + mixer


def backbone(rows=L):
    patches = FRAMES * N
    embedding = dense(patches, 3 * PATCH * PATCH, D) + 2 * patches * D + D  # positions in space and time; class token
    sums = (DEPTH - 1) * rows * D + D
    return embedding + DEPTH * block(rows) + sums + norm(1) + dense(1, D, CLASSES)


@pytest.mark.parametrize("method", ["linear", "full"])
def test_the_backbone(method):
    assert forward_flops(model_of(method)) == backbone()


@pytest.mark.parametrize(("place", "rows"), [("suffix", 5), ("before_cls", 5), ("per_frame", 5 * FRAMES)])
def test_vpt_is_more_rows(place, rows):
    assert forward_flops(model_of("vpt", num_prompts=5, position=place)) == backbone(L + rows)


def test_adapter():
    rank = 7
    bottleneck = dense(L, D, rank) + L * rank + dense(L, rank, D) + 2 * L * D  # ReLU; scale and sum
    assert forward_flops(model_of("adapter", rank=rank)) == backbone() + DEPTH * bottleneck


def test_lora_makes_its_weights_in_each_pass_until_it_is_merged():
    rank = 3
    product = dense(2 * E, rank, D, False) + 2 * 2 * E * D  # scale and sum
    model = model_of("lora", rank=rank, targets=["in_proj"])
    assert forward_flops(model) == backbone() + DEPTH * product
    model.method.merge(model)
    assert forward_flops(model) == backbone()


def test_additional_states_are_scanned():
    more = 2
    rows = dense(L, E, 2 * more, False)  # of x_proj, in each direction
    states = rows + 7 * L * E * more + 2 * E * more  # and A of them
    assert forward_flops(model_of("additional_scan", states=more)) == backbone() + DEPTH * 2 * states


def test_ssp():
    k, a, prompts, heads, T = 6, 16, 2, 8, FRAMES
    rows = T * N
    gathering = dense(rows, D, k) + 2 * rows * k + dense(rows, k, D)  # fc1, scale and shift, fc2
    gathering += 2 * rows * k + T * k + dense(T, k, D)  # the sum over the grid, its bias, heads
    entropy = rows * D * (5 + 3 + 1) + rows  # softmax; epsilon, logarithm, product; their sum; its sign
    gate = entropy + (rows + 1) + 2 * rows + rows + 5 * T  # its maximum, clamped; ratio, difference; mean; softmax
    summary = 2 * T + T * D
    attention = dense(T, a, 3 * a) + 2 * T * a + 2 * (2 * T * T * a) + 5 * heads * T * T + dense(T, a, a)
    spreading = dense(T, D, a) + attention + dense(T, a, D) + 2 * T * D  # its scale, and times what was gathered
    later = gate + summary + prompts * spreading
    added = DEPTH * (gathering + rows * D) + (DEPTH - 1) * later
    model = model_of("ssp", inner_dim=k, attn_dim=a, num_prompts=prompts)
    assert forward_flops(model) == backbone(L + T * prompts) + added


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_no_backend_of_the_scan_changes_the_count(backend, monkeypatch):
    monkeypatch.setenv(VARIABLE, backend)
    assert forward_flops(model_of("linear")) == backbone()


def test_what_is_not_there_in_a_scan_is_not_counted():
    from torch.utils.flop_counter import FlopCounterMode

    u, B = torch.empty(2, 6, 9, device="meta"), torch.empty(2, 4, 9, device="meta")
    with FlopCounterMode(display=False) as counter:
        y = selective_scan(u, u, torch.empty(6, 4, device="meta"), B, B, delta_softplus=False, reverse=True)
    assert (y.shape, y.device.type) == (u.shape, "meta")
    assert counter.get_total_flops() == 2 * 6 * 9 * (7 * 4 + 1)


def test_a_model_keeps_its_mode():
    model = model_of("ssp", inner_dim=6, attn_dim=16).train()
    forward_flops(model)
    assert model.training


def test_an_operator_without_a_count_is_named():
    class Odd(nn.Identity):
        def forward(self, x):
            return torch.linalg.matrix_exp(x[..., :2, None].expand(-1, 2, 2)).flatten(1)[:, :1] + x

    model = model_of("linear")
    model.norm_f = Odd()
    with pytest.raises(UncountedOperator, match=r"^operator aten.linalg_matrix_exp has no count of FLOPs"):
        forward_flops(model)
