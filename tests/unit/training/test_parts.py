"""Mixing, optimizer groups, schedule, seeds and precision: the parts that the training loop is made of."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from ssp.config import Augmentation
from ssp.training.mixing import Mix, draw_mix, draw_step, mixed_targets, neighbours
from ssp.training.optim import Schedule, decays, make_optimizer, set_learning_rate
from tests.unit.toy import FRAMES, SIZE, small_model


def test_neighbours_swap_and_never_straddle_even_pieces():
    assert neighbours(6).tolist() == [1, 0, 3, 2, 5, 4]
    assert neighbours(5).tolist() == [1, 0, 3, 2, 4]
    assert neighbours(0).tolist() == []


def test_mixup_keeps_its_share():
    clips = torch.arange(4.0).reshape(4, 1, 1, 1, 1, 1).expand(4, 2, 3, 2, 8, 8)
    mixed, keep = Mix(0.75).clips(clips)
    assert keep == 0.75
    assert mixed[:, 0, 0, 0, 0, 0].tolist() == [0.25, 0.75, 2.25, 2.75]


@pytest.mark.parametrize(
    ("centre", "keep"), [((0.5, 0.5), 0.75), ((0.0, 0.9), 0.6), ((0.3, 0.3), 0.0), ((0.5, 0.5), 1.0)]
)
def test_cutmix_lambda_is_the_share_of_pixels_left(centre, keep):
    clips = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1, 1).expand(2, 2, 3, 4, 10, 14)
    mixed, share = Mix(keep, centre).clips(clips)
    assert 1 - mixed[0].mean().item() == pytest.approx(share)
    assert mixed[1].mean().item() == pytest.approx(share)
    frames = mixed[0].reshape(-1, 10, 14)
    assert (frames == frames[0]).all()  # one box for all repeats, channels and frames
    if centre == (0.5, 0.5):
        assert share == pytest.approx(keep, abs=0.06)


def test_mixed_targets():
    labels = torch.tensor([0, 2, 1])
    shares = torch.tensor([0.7, 0.7, 0.6], dtype=torch.float64)
    assert mixed_targets(labels, 3, shares).tolist() == pytest.approx(
        [pytest.approx([0.7, 0, 0.3]), pytest.approx([0.3, 0, 0.7]), pytest.approx([0, 1, 0])]
    )
    assert mixed_targets(labels, 3, torch.ones(3)).argmax(1).tolist() == [0, 2, 1]


def test_draws_are_functions_of_seed_epoch_and_step():
    both = Augmentation(mixup=0.8, cutmix=1.0)
    draws = [draw_mix(both, 0, epoch, step) for epoch in range(10) for step in range(50)]
    assert draws == [draw_mix(both, 0, epoch, step) for epoch in range(10) for step in range(50)]
    assert len(set(draws)) == 500 and draws[0] != draw_mix(both, 1, 0, 0)
    assert 200 < sum(draw.centre is None for draw in draws) < 300
    assert all(draw_mix(Augmentation(mixup=0.8), 0, 0, step).centre is None for step in range(20))
    assert all(draw_mix(Augmentation(cutmix=1.0), 0, 0, step).centre for step in range(20))
    assert draw_step(Augmentation(), 0, 0, 0, 8) is None
    keeps = [draw_mix(Augmentation(mixup=0.8), 0, 0, step).keep for step in range(2000)]
    assert np.mean(keeps) == pytest.approx(0.5, abs=0.03)
    assert np.var(keeps) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.1)  # of Beta(0.8, 0.8)


def test_videos_that_share_a_draw():
    together = Augmentation(mixup=0.8, cutmix=1.0)
    whole = draw_step(together, 0, 1, 2, 10)
    assert whole.draws == (draw_mix(together, 0, 1, 2),) and whole.videos == 10
    apart = draw_step(together.model_copy(update={"mix_videos": 4}), 0, 1, 2, 10)
    assert len(set(apart.draws)) == 3 and apart.videos == 4
    clips = torch.rand(10, 2, 3, 2, 6, 6)
    by_hand = [apart.draws[i].clips(clips[4 * i : 4 * i + 4]) for i in range(3)]
    for cut in (2, 4, 6, 8, 10):  # divisors, multiples, and sizes that fit nowhere
        pieces = [apart.clips(clips[i : i + cut], i) for i in range(0, 10, cut)]
        assert torch.equal(torch.cat([mixed for mixed, _ in pieces]), torch.cat([mixed for mixed, _ in by_hand]))
        assert torch.cat([keep for _, keep in pieces]).tolist() == [by_hand[i // 4][1] for i in range(10)]


def test_an_odd_number_of_videos_cannot_share_a_draw():
    with pytest.raises(ValueError, match="tears mixing pairs apart; give an even number"):
        Augmentation(mixup=0.8, mix_videos=3)


def test_mirrored_partners_are_no_other_mixing():
    """Which two videos meet: equally often each pair, whether neighbours or, as published, first with last."""
    order = [torch.randperm(4, generator=torch.Generator().manual_seed(i)).tolist() for i in range(6000)]
    met = {
        name: np.bincount([16 * min(p) + max(p) for o in order for p in pairs(o)], minlength=60)
        for name, pairs in {
            "neighbours": lambda o: [(o[i], o[neighbours(4)[i]]) for i in range(4)],
            "mirrored": lambda o: [(o[i], o[3 - i]) for i in range(4)],
        }.items()
    }
    for counts in met.values():
        assert counts[counts > 0] == pytest.approx(np.full(6, 4000), rel=0.06)


def test_weight_decay_spares_what_has_no_zero_to_shrink_to():
    model = small_model("full")
    model.head.weight.no_weight_decay = True
    optimizer = make_optimizer(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0.1 for p in g["params"]}
    spared = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0.0 for p in g["params"]}
    assert decayed | spared == set(names.values()) and not decayed & spared
    first = {name.removeprefix("layers.0.mixer.") for name in decayed if name.startswith("layers.0.")}
    assert first == {
        "in_proj.weight",
        "out_proj.weight",
        "conv1d.weight",
        "conv1d_b.weight",
        "x_proj.weight",
        "x_proj_b.weight",
        "dt_proj.weight",
        "dt_proj_b.weight",
    }
    assert {"pos_embed", "cls_token", "temporal_pos_embedding", "norm_f.weight", "head.weight", "head.bias"} <= spared
    assert {"layers.0.mixer.A_log", "layers.0.mixer.A_b_log", "layers.1.mixer.D", "layers.1.mixer.D_b"} <= spared


def test_layer_decay_slows_down_the_embeddings_of_full_fine_tuning():
    """As published: 0.8 to the power of the blocks plus one, for what is layer 0 there, and nothing else."""
    plain, slowed = small_model("full"), small_model("full", layer_decay=0.8)
    rates = []
    for model in (plain, slowed):
        optimizer = make_optimizer(model, 0.1)
        set_learning_rate(optimizer, 2.0)
        rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        rates.append({name: rate[id(p)] for name, p in model.named_parameters()})
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert all(decay[id(p)] == (0.1 if decays(name, p) else 0) for name, p in model.named_parameters())
    assert set(rates[0].values()) == {2.0}
    first = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {name for name in rates[1] if rates[1][name] != 2.0} == first
    assert {rates[1][name] for name in first} == {2.0 * 0.8**3}  # two blocks


def test_layer_decay_moves_the_embeddings_less():
    moved = []
    for options in ({}, {"layer_decay": 0.1}):
        model = small_model("full", **options)
        before = model.pos_embed.detach().clone()
        optimizer = make_optimizer(model, 0.0)
        set_learning_rate(optimizer, 0.01)
        model(torch.rand(2, 3, FRAMES, SIZE, SIZE)).square().sum().backward()
        optimizer.step()
        moved.append((model.pos_embed - before).abs().mean().item())
    assert moved[1] == pytest.approx(moved[0] * 0.1**3, rel=0.01)


def test_only_what_trains_is_optimised():
    model = small_model("linear")
    optimized = {id(p) for group in make_optimizer(model, 0.1).param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.parameters() if p.requires_grad}
    assert decays("head.weight", model.head.weight) and not decays("head.bias", model.head.bias)


def test_schedule_warms_up_and_falls_to_zero():
    schedule = Schedule(peak=2.0, steps=100, warmup=10)
    rates = [schedule(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == 2.0 and rates[55] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.01
    assert Schedule(1.0, 4, 0)(0) == 1.0
    assert math.isclose(Schedule(1.0, 2, 2)(1), 1.0)
