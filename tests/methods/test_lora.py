"""LoRA against its formula in NumPy, its sizes, dropout on its bottleneck, and what it folds into."""

import copy

import numpy as np
import pytest
import torch

from ssp.errors import ConfigError
from tests.methods.by_hand import DEPTH, DIM, build, check, lively, videos
from tests.methods.inside import check_merged, counts_of_videomamba_m, forward

CHOICES = [
    ["in_proj"],
    ["in_proj_x", "out_proj", "dt_proj"],
    ["in_proj_z", "x_proj"],
    ["in_proj_x", "in_proj_z", "x_proj_dt", "x_proj_C"],
    ["x_proj_B"],
]
INNER = 2 * DIM


def add(key, matrix, shared, first, second):
    """Add a matrix where a key says."""
    scan = second if key.endswith("_b") else first
    target = key.removesuffix("_b")
    if target == "in_proj":
        shared.in_proj = shared.in_proj + matrix
    elif target in ("in_proj_x", "in_proj_z"):
        halves = np.split(shared.in_proj, 2)
        halves[target == "in_proj_z"] = halves[target == "in_proj_z"] + matrix
        shared.in_proj = np.concatenate(halves)
    elif target == "out_proj":
        shared.out_proj = shared.out_proj + matrix
    elif target == "x_proj":
        rank = len(scan.rows_dt)
        scan.rows_dt, scan.rows_B, scan.rows_C = (
            own + extra
            for own, extra in zip(
                (scan.rows_dt, scan.rows_B, scan.rows_C), np.split(matrix, [rank, rank + 16]), strict=True
            )
        )
    elif target == "dt_proj":
        scan.dt_proj = scan.dt_proj + matrix
    else:
        name = f"rows_{target.removeprefix('x_proj_')}"
        setattr(scan, name, getattr(scan, name) + matrix)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("targets", CHOICES, ids="-".join)
def test_is_its_formula(targets, dropout):
    """With dropout it is evaluated, which drops nothing."""
    model = lively("lora", rank=2, targets=targets, scale=0.5, dropout=dropout)
    keys = list(model.lora[0])

    def logits(weights, video):
        def change(layer, *parts):
            for key in keys:
                up, down = (weights[f"lora.{layer}.{key}.{end}"] for end in ("up", "down"))
                add(key, 0.5 * up @ down, *parts)

        return forward(weights, video, change)

    names = [f"lora.{layer}.{key}.{end}" for layer in range(DEPTH) for key in keys for end in ("up", "down")]
    check(model, logits, names)


def test_dropout_is_on_the_middle_while_training():
    model = lively("lora", rank=2, dropout=0.5).train()
    video = videos()
    assert not torch.equal(model(video), model(video))
    torch.manual_seed(0)
    first = model(video)
    torch.manual_seed(0)
    assert torch.equal(model(video), first)
    plain = lively("lora", rank=2)
    assert torch.equal(model.eval()(video), model(video))
    torch.testing.assert_close(model(video), plain(video))


def test_a_copied_model_uses_its_own_factors():
    model = lively("lora", rank=2, dropout=0.5)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.lora[0]["in_proj"].up.zero_()
    assert not torch.allclose(twin(videos()), model(videos()))


def test_ranks_by_target():
    model = build("lora", rank=2, targets=["in_proj", "x_proj_B"], ranks={"x_proj_B": 3})
    assert model.lora[0]["in_proj"].down.shape == (2, DIM)
    assert model.lora[0]["x_proj_B"].up.shape == (16, 3) == model.lora[1]["x_proj_B_b"].up.shape


def test_start():
    for factors in build("lora", rank=4).lora:
        assert not factors["in_proj"].up.count_nonzero()
        bound = DIM**-0.5  # kaiming uniform with a = sqrt(5)
        assert 0.7 * bound < factors["in_proj"].down.abs().max() <= bound


@pytest.mark.parametrize("targets", [["in_proj", "in_proj_x"], ["x_proj_B", "x_proj"], ["dt_proj", "dt_proj"]])
def test_a_target_and_a_part_of_it_are_refused(targets):
    with pytest.raises(ConfigError, match=r"^methods\.lora\.options\.targets: "):
        build("lora", targets=targets)


@pytest.mark.parametrize(
    ("target", "rank", "size"),
    [
        ("in_proj", 16, 1_474_560),
        ("in_proj", 24, 2_211_840),
        ("in_proj", 26, 2_396_160),
        ("out_proj", 32, 1_769_472),
        ("out_proj", 43, 2_377_728),
        ("in_proj_x", 43, 2_377_728),
        ("in_proj_z", 64, 3_538_944),
        ("x_proj", 16, 1_249_280),
        ("x_proj", 30, 2_342_400),
        ("x_proj_dt", 32, 2_433_024),
        ("x_proj_B", 32, 2_392_064),
        ("x_proj_C", 32, 2_392_064),
        ("dt_proj", 1, 76_032),
    ],
)
def test_size(target, rank, size):
    assert counts_of_videomamba_m("lora", targets=[target], rank=rank) == (size, size)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("targets", CHOICES, ids="-".join)
def test_merged(targets, dropout):
    model = check_merged("lora", rank=2, targets=targets, scale=0.5, dropout=dropout)
    assert not model.added and not any(layer._forward_hooks for layer in model.modules())
