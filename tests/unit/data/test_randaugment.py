"""RandAugment: its policy, its operations beside torchvision's, and that a part alone is a part of the whole."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ssp.data.operations import OPERATIONS, Box
from ssp.data.randaugment import Change, RandAugment, changed
from ssp.errors import ConfigError
from tests.unit.made_clips import clip_of, rng

LINEAR, MARGIN = InterpolationMode.BILINEAR, 60
BY_TORCHVISION = {
    "Rotate": lambda clip, level, sign: on_grey(clip, lambda wide: F.rotate(wide, sign * 30 * level, LINEAR)),
    "ShearX": lambda clip, level, sign: affine(clip, shear=[math.degrees(math.atan(sign * 0.3 * level)), 0.0]),
    "ShearY": lambda clip, level, sign: affine(clip, shear=[0.0, math.degrees(math.atan(sign * 0.3 * level))]),
    "TranslateX": lambda clip, level, sign: affine(clip, translate=[sign * 0.45 * level * clip.shape[-1], 0.0]),
    "TranslateY": lambda clip, level, sign: affine(clip, translate=[0.0, sign * 0.45 * level * clip.shape[-2]]),
    "Solarize": lambda clip, level, sign: F.solarize(clip, 256 - int(256 * level)) if level else clip,
    "AutoContrast": lambda clip, level, sign: F.autocontrast(clip),
    "Equalize": lambda clip, level, sign: F.equalize(clip),
    "Invert": lambda clip, level, sign: F.invert(clip),
    "Posterize": lambda clip, level, sign: F.posterize(clip, 4 - int(4 * level)),
    "Color": lambda clip, level, sign: F.adjust_saturation(clip, 1 + sign * 0.9 * level),
    "Contrast": lambda clip, level, sign: F.adjust_contrast(clip, 1 + sign * 0.9 * level),
    "Brightness": lambda clip, level, sign: F.adjust_brightness(clip, 1 + sign * 0.9 * level),
    "Sharpness": lambda clip, level, sign: F.adjust_sharpness(clip, 1 + sign * 0.9 * level),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_frames_get_the_same_parameters(name):
    """A clip of one repeated frame stays a clip of one repeated frame, and frames do not influence each other."""
    frame = 40 + clip_of(48, 64, frames=1) // 2
    for level, sign in ((0.0, 1.0), (0.7, 1.0), (0.7, -1.0), (1.0, -1.0)):
        done = OPERATIONS[name](frame.expand(4, -1, -1, -1), level, sign)
        assert done.dtype == torch.uint8
        assert done.shape == (4, 3, 48, 64)
        assert (done == done[:1]).all()
    mixed = torch.cat([frame, clip_of(48, 64, frames=2) // 2])
    torch.testing.assert_close(OPERATIONS[name](mixed, 0.7, 1.0)[:1], OPERATIONS[name](frame, 0.7, 1.0))
    assert (OPERATIONS[name](frame, 0.7, 1.0) != frame).any()


def test_randaugment_draws():
    policy = RandAugment.parse("rand-m7-n4-mstd0.5-inc1")
    assert policy == RandAugment(magnitude=7, operations=4, spread=0.5, probability=0.5)
    clip = clip_of(32, 40)
    draws = [policy.draw(rng(seed)) for seed in range(160)]
    assert 2 <= sum(not changes for changes in draws) <= 25  # none of four operations at probability 1/2: 1 in 16
    assert max(map(len, draws)) == 4
    assert {change.operation for changes in draws for change in changes} == set(OPERATIONS.values())
    assert {change.sign for changes in draws for change in changes} == {-1.0, 1.0}
    levels = np.array([change.level for changes in draws for change in changes])
    assert abs(levels.mean() - 0.7) < 0.02
    assert abs(levels.std() - 0.05) < 0.02
    torch.testing.assert_close(changed(clip, policy.draw(rng(1))), changed(clip, policy.draw(rng(1))))
    assert (changed(clip, draws[0][:1]) == draws[0][0].operation(clip, *draws[0][0][1:])).all()
    assert RandAugment.parse("rand-m9-n2-p1.0-inc1").probability == 1


@pytest.mark.parametrize("text", ["rand-m7-n4", "rand-m11-n4-inc1", "augmix-m3", "", "rand-m7-n4-mstd0.5-inc1-x"])
def test_randaugment_of_another_form(text):
    with pytest.raises(ConfigError, match=r"recipe\.augmentation\.randaugment: "):
        RandAugment.parse(text)


def on_grey(clip, transform):
    """A transform of the clip in a wide grey frame: torchvision's own fill weighs pixels of the border twice."""
    moved = transform(torch.nn.functional.pad(clip, (MARGIN,) * 4, value=128))
    return moved[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def affine(clip, translate=(0.0, 0.0), shear=(0.0, 0.0)):
    """About the top left corner, as the published code does it."""
    centre = [float(MARGIN), float(MARGIN)]
    return on_grey(clip, lambda wide: F.affine(wide, 0.0, list(translate), 1.0, list(shear), LINEAR, None, centre))


@pytest.mark.parametrize("name", BY_TORCHVISION)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_equal_torchvisions(name, sign):
    noise = clip_of(32, 44, frames=2)  # shifts of half a pixel would be ties of rounding
    dim, flat = 60 + noise // 5, torch.full_like(noise, 77)
    dark = (noise.int() ** 3 // 255**2).to(torch.uint8)
    for clip in (noise, dim, dark, flat, torch.cat([noise[:1], flat[:1]]).contiguous()):
        for level in (0.0, 0.31, 0.7, 1.0):
            ours = OPERATIONS[name](clip, level, sign).int()
            theirs = BY_TORCHVISION[name](clip, level, sign).int()
            assert (ours - theirs).abs().max() <= 1, level  # of 255: rounding
            assert ((ours - theirs) != 0).float().mean() < 0.05, level


@st.composite
def part_of_a_frame(draw, height=33, width=46):
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Box(top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.floats(0, 1), st.sampled_from([-1.0, 1.0])), max_size=3),
    part_of_a_frame(),
)
def test_a_part_alone_equals_the_part_of_the_whole(names, want):
    """Whatever the operations: the crop that follows RandAugment may be made first."""
    clip = clip_of(33, 46, frames=2)
    changes = [Change(OPERATIONS[name], level, sign) for name, level, sign in names]
    part, all_of_it = changed(clip, changes, want), changed(clip, changes)
    expected = all_of_it[..., want.top : want.top + want.height, want.left : want.left + want.width]
    assert all_of_it.shape == clip.shape
    assert part.shape == expected.shape
    assert (part == expected).all()


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_parts_of_large_frames_are_exact_too(name):
    clip, want, change = clip_of(720, 1290, frames=1), Box(301, 411, 137, 205), [Change(OPERATIONS[name], 0.37, 1.0)]
    assert torch.equal(changed(clip, change, want), want.of(changed(clip, change), Box(0, 0, 720, 1290)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_outside_its_reach_matters(name):
    """And less than the frame is reached, except by operations on the whole frame."""
    clip, want = clip_of(33, 46, frames=2), Box(20, 9, 6, 5)
    reach = OPERATIONS[name].reach(want, (33, 46), 0.7, -1.0)
    other = 255 - clip
    other[..., reach.top : reach.top + reach.height, reach.left : reach.left + reach.width] = reach.of(
        clip, Box(0, 0, 33, 46)
    )
    change = [Change(OPERATIONS[name], 0.7, -1.0)]
    assert (changed(clip, change, want) == changed(other, change, want)).all()
    if name in ("AutoContrast", "Equalize", "Contrast"):
        assert reach == (0, 0, 33, 46)
    else:
        assert reach.height * reach.width < 130


def test_translation_moves_and_fills_with_grey():
    clip = torch.full((2, 3, 20, 20), 10, dtype=torch.uint8)
    moved = OPERATIONS["TranslateX"](clip, 1.0, 1.0)  # 45 % of 20 pixels
    assert (moved[..., :9] == 128).all()
    assert (moved[..., 10:] == 10).all()


def test_solarize_add_brightens_what_is_dark():
    clip = torch.tensor([0, 100, 127, 128, 200], dtype=torch.uint8).expand(1, 3, 1, 5)
    assert OPERATIONS["SolarizeAdd"](clip, 1.0, 1.0)[0, 0, 0].tolist() == [110, 210, 237, 128, 200]
