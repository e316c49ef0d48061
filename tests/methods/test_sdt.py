"""SDT against its formula in NumPy, which channels and states are chosen, its sizes, what it folds into."""

import numpy as np
import pytest
import torch

from tests.methods.by_hand import DEPTH, DIM, build, check, lively
from tests.methods.inside import check_merged, counts_of_videomamba_m, forward

INNER = 2 * DIM


def places(A_log, channels, states, choose):
    """The channels, and states of each, one after the other."""
    importance = {"pretraining": (A_log - np.log(np.arange(1, 17))) ** 2, "slowest": -np.exp(A_log)}[choose]
    order = sorted(range(len(A_log)), key=lambda channel: -importance[channel].sum())[:channels]
    return [(channel, sorted(range(16), key=lambda n: -importance[channel, n])[:states]) for channel in order]


@pytest.mark.parametrize("choose", ["pretraining", "slowest"])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_is_its_formula(choose, lora_rank):
    model = lively("sdt", channels=0.1, states=0.2, choose=choose, lora_rank=lora_rank, lora_scale=0.5)

    def logits(weights, video):
        def change(layer, shared, *scans):
            for scan, key, log in zip(scans, ("scan", "scan_b"), ("A_log", "A_b_log"), strict=True):
                A_log = weights[f"layers.{layer}.mixer.{log}"].copy()
                of_A, columns = (weights[f"sdt.{layer}.{key}.{end}"] for end in ("A", "x_proj"))
                rows_B, rows_C = scan.rows_B.copy(), scan.rows_C.copy()
                for i, (channel, states) in enumerate(places(A_log, 3, 3, choose)):
                    A_log[channel, states] += of_A[i]
                    rows_B[:, channel] += columns[:16, i]
                    rows_C[:, channel] += columns[16:, i]
                scan.A, scan.rows_B, scan.rows_C = -np.exp(A_log), rows_B, rows_C
            if lora_rank:
                up, down = (weights[f"sdt.{layer}.out_proj.{end}"] for end in ("up", "down"))
                shared.out_proj = shared.out_proj + 0.5 * up @ down

        return forward(weights, video, change)

    ends = ["scan.A", "scan.x_proj", "scan_b.A", "scan_b.x_proj"]
    ends += ["out_proj.up", "out_proj.down"] if lora_rank else []
    names = {f"sdt.{layer}.{end}" for layer in range(DEPTH) for end in ends}
    check(model, logits, sorted(names - set(model.method.without_gradient(model))))


def test_chooses_where_pretraining_moved_the_decay():
    model = build("sdt", channels=0.1, states=0.1)
    mixer = model.layers[0].mixer
    with torch.no_grad():
        for channel, state, moved in ((5, 7, 0.5), (20, 3, -2.0), (20, 4, 0.1), (9, 0, 1.0)):
            mixer.A_log[channel, state] += moved
    forward_way, backward_way = mixer.weights().directions
    chosen = model.method.chosen(forward_way)
    assert chosen.channels.tolist() == [20, 9, 5]
    assert chosen.states.tolist() == [[3, 4], [0, chosen.states[1, 1]], [7, chosen.states[2, 1]]]
    assert len(model.method.chosen(backward_way).channels) == 3


def test_equals_are_chosen_in_their_order_where_nothing_was_trained():
    model = build("sdt", channels=0.1, choose="slowest")
    assert model.method.chosen(model.layers[0].mixer.weights().directions[0]).channels.tolist() == [0, 1, 2]


def test_at_least_one():
    model = build("sdt", channels=1e-6, states=1e-6)
    assert model.sdt[0]["scan"]["A"].shape == (1, 1)
    assert model.sdt[0]["scan"]["x_proj"].shape == (32, 1)


def test_size():
    assert counts_of_videomamba_m("sdt") == (467_712, 467_712)
    assert counts_of_videomamba_m("sdt", lora_rank=0)[0] == 25_344
    assert counts_of_videomamba_m("sdt", lora_rank=0, states=0.25)[0] == 64 * (12 * 4 + 2 * 16 * 12)


def test_merged():
    assert not check_merged("sdt", channels=0.1, states=0.2, lora_rank=2).added
