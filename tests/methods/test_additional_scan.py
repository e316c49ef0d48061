"""Additional scan against its formula in NumPy, its starts, and its sizes."""

import numpy as np
import pytest
import torch

from ssp import build_model, load_weights
from ssp.errors import ConfigError
from ssp.training.optim import decays
from tests.methods.by_hand import CLASSES, DEPTH, DIM, PATCH, SIZE, build, check, lively
from tests.methods.inside import counts_of_videomamba_m, forward

INNER = 2 * DIM


def logits(weights, video):
    """New states are states like the frozen ones."""

    def change(layer, shared, *scans):
        for way, scan in enumerate(scans):
            A_log, rows = (weights[f"additional_scan.{layer}.{way}.{end}"] for end in ("A_log", "x_proj"))
            scan.A = np.concatenate([scan.A, -np.exp(A_log)], axis=1)
            scan.rows_B = np.concatenate([scan.rows_B, rows[: len(rows) // 2]])
            scan.rows_C = np.concatenate([scan.rows_C, rows[len(rows) // 2 :]])

    return forward(weights, video, change)


def test_is_its_formula():
    model = lively("additional_scan", states=3)
    names = {f"additional_scan.{layer}.{way}.{end}" for layer in range(DEPTH) for way in (0, 1)
             for end in ("A_log", "x_proj")}  # fmt: skip
    check(model, logits, sorted(names - set(model.method.without_gradient(model))))


def test_the_mixer_s_backward_by_hand_stays_in_use():
    model = build("additional_scan", states=2)
    hidden = torch.randn(1, 5, DIM, requires_grad=True)
    tuning = model.method.mixer_tuning(type("Pass", (), {"model": model}), 0)
    assert model.layers[0].mixer(hidden, tuning).grad_fn.name() == "MixerFunctionBackward"


@pytest.mark.parametrize(("start", "column"), [("first", 0), ("last", -1)])
def test_copies_the_decay_of_the_weights_that_are_loaded(start, column):
    model = build("additional_scan", states=2, A=start)
    torch.manual_seed(7)
    source = build_model({"embed_dim": DIM, "depth": DEPTH, "patch_size": PATCH}, "linear", CLASSES, **SIZE)
    with torch.no_grad():
        for block in source.layers:
            for log in (block.mixer.A_log, block.mixer.A_b_log):
                log.add_(torch.randn_like(log))
    load_weights(model, source.state_dict())
    for block, new in zip(source.layers, model.additional_scan, strict=True):
        for log, states in zip((block.mixer.A_log, block.mixer.A_b_log), new, strict=True):
            assert torch.equal(states.A_log, log[:, column, None].expand(-1, 2))


def test_start():
    model = build("additional_scan", states=2, A="next")
    for states in (each for block in model.additional_scan for each in block):
        assert torch.equal(states.A_log, torch.log(torch.tensor([17.0, 18.0])).expand(INNER, 2))
        bound = INNER**-0.5
        assert 0.7 * bound < states.x_proj.abs().max() <= bound
    model = build("additional_scan", states=2, start="identity")
    for states in (each for block in model.additional_scan for each in block):
        assert not states.x_proj[2:].count_nonzero() and states.x_proj[:2].count_nonzero() == 2 * INNER


def test_the_decay_has_no_weight_decay():
    for name, parameter in build("additional_scan", states=2).named_parameters():
        if name.startswith("additional_scan."):
            assert decays(name, parameter) is name.endswith("x_proj")


def test_size():
    assert counts_of_videomamba_m("additional_scan") == (1_327_104, 1_327_104)
    assert counts_of_videomamba_m("additional_scan", states=10)[0] == 2_211_840


def test_is_not_merged():
    model = build("additional_scan", states=2)
    with pytest.raises(ConfigError, match=r"^additional_scan: what it learns cannot be folded into the backbone's"):
        model.method.merge(model)
