"""The generated scenes: what tells classes apart, and what must not."""

import numpy as np
import pytest

from ssp.data.synthetic import scenes, source
from ssp.data.synthetic.motions import MOTIONS, SOURCE_MOTIONS
from ssp.data.synthetic.render import View, backdrop, render
from ssp.data.synthetic.shapes import HUES, SHAPES
from ssp.data.synthetic.staging import stage


def film(dataset, label, *, take=1, camera=2, frames=12, **changes):
    return stage(
        dataset,
        label,
        frames=frames,
        fps=8,
        size=(40, 32),
        scene=(3,),
        take=np.random.default_rng(take),
        camera=np.random.default_rng(camera),
        **changes,
    )


@pytest.mark.parametrize("dataset", ["source", *scenes.CLASSES])
def test_a_clip_is_a_function_of_its_seeds(dataset):
    clip = film(dataset, 1)
    assert clip.shape == (12, 32, 40, 3)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, film(dataset, 1))
    assert not np.array_equal(clip, film(dataset, 1, take=5))
    assert not np.array_equal(clip, film(dataset, 1, camera=5))
    assert not np.array_equal(clip, film(dataset, 0))


def test_source_classes_share_nothing_with_the_targets():
    # SSv2-like objects vary over looks by design; its classes are events, whose motions the test covers.
    targets = [*scenes.HMDB51, *scenes.UCF101, *scenes.BREAKFAST_STEPS]
    motions = {action.motion for action in targets} | set(scenes.EVENT_MOTIONS.values())
    assert motions.isdisjoint(SOURCE_MOTIONS)
    assert {action.motion for action in scenes.SOURCE} == set(SOURCE_MOTIONS)
    looks = {(action.hue, action.shape) for action in targets}
    assert looks.isdisjoint((action.hue, action.shape) for action in scenes.SOURCE)
    assert len(set(scenes.SOURCE)) == source.CLASSES == 24


def test_the_vocabulary_exists():
    for action in [*scenes.HMDB51, *scenes.UCF101, *scenes.BREAKFAST_STEPS, *scenes.SOURCE]:
        assert action.hue in HUES
        assert action.shape in SHAPES
        assert action.motion in MOTIONS
    assert len(set(scenes.HMDB51)) == scenes.CLASSES["hmdb51"]
    assert len(set(scenes.UCF101)) == scenes.CLASSES["ucf101"]
    assert len({scenes.template(label) for label in range(scenes.CLASSES["ssv2"])}) == scenes.CLASSES["ssv2"]


@pytest.mark.parametrize("label", [0, 2, 4, 6])
def test_ssv2_like_classes_are_the_same_scene_reversed_in_time(label):
    assert np.array_equal(film("ssv2", label), film("ssv2", label + 1)[::-1])
    assert not np.array_equal(film("ssv2", label), film("ssv2", label)[::-1])


def test_breakfast_like_classes_are_orders_of_the_same_steps_with_reverses():
    orders = scenes.BREAKFAST_ORDERS
    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == list(range(len(scenes.BREAKFAST_STEPS))) for order in orders)
    assert all(tuple(reversed(order)) in orders for order in orders)


def hues_over_time(clip, names):
    """Which of the named hues has the most strongly coloured pixels, per frame."""
    pixels = clip.astype(float) / 255
    high, low = pixels.max(-1), pixels.min(-1)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi) % 1
    strong = high - low > 0.35
    votes = [(strong & (np.abs((hue - HUES[name] + 0.5) % 1 - 0.5) < 0.06)).sum((1, 2)) for name in names]
    return np.argmax(votes, axis=0)


def test_a_breakfast_like_take_shows_its_steps_in_order_to_every_camera():
    names = [step.hue for step in scenes.BREAKFAST_STEPS]
    easy = scenes.Difficulty(distractors=0, noise=0, radius=(0.22, 0.22))
    for label, order in enumerate(scenes.BREAKFAST_ORDERS):
        for camera in (1, 2, 3):
            seen = hues_over_time(film("breakfast", label, camera=camera, frames=40, difficulty=easy), names)
            # Each step in the middle of its fair share of the time; lengths vary by less than that.
            first, last = seen[2], seen[-3]
            assert (first, last) == (order[0], order[-1])


def test_cameras_see_the_same_take_differently_and_never_mirrored():
    rng = np.random.default_rng(0)
    views = [View.draw(rng) for _ in range(50)]
    assert len({view.zoom for view in views}) == 50
    assert all(view.zoom > 0 and abs(view.roll) < np.pi / 4 for view in views)
    assert not np.array_equal(film("breakfast", 0, view=views[0]), film("breakfast", 0, view=views[1]))


def test_the_backdrop_moves_and_wraps():
    still, view = np.zeros((3, 2)), View()
    moving = np.array([[0.0, 0.0], [3.0, 0.0], [96.0, 96.0]])

    def draw(scroll):
        return render([], backdrop((7,)), scroll, (40, 32), view, 0.0, np.random.default_rng(0))

    frames = draw(moving)
    assert np.array_equal(draw(still)[0], draw(still)[2])
    assert np.array_equal(frames[1][:-3], frames[0][3:])
    assert np.array_equal(frames[2], frames[0])
    assert not np.array_equal(backdrop((7,)), backdrop((8,)))


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_shapes_cover_similar_areas(shape):
    u, v = np.meshgrid(np.linspace(-2, 2, 200), np.linspace(-2, 2, 200))
    area = (SHAPES[shape](u, v) < 0).mean() * 16
    assert 1.2 < area < 3.2


@pytest.mark.parametrize("motion", sorted(MOTIONS))
def test_motions_stay_near_the_picture_and_move(motion):
    path = MOTIONS[motion](np.linspace(0, 3, 61))
    assert max(np.abs(path.x).max(), np.abs(path.y).max()) < 0.7
    moves = any(np.ptp(part) > 0.3 for part in (path.x, path.y, path.growth, path.angle))
    assert moves == (motion != "rest")
    # Phase 1 is the end of the first cycle, so that a motion shown once does not jump back in its last frame.
    once = MOTIONS[motion](np.array([0.97, 1.0]))
    assert max(abs(np.diff(once.x)[0]), abs(np.diff(once.y)[0]), abs(np.diff(once.growth)[0])) < 0.3


def test_source_clips_take_turns_and_held_out_clips_are_others():
    clips = [source.source_clip(5, False, i, frames=8, image_size=32) for i in range(3)]
    assert [label for _, label in clips] == [0, 1, 2]
    assert clips[0][0].shape == (8, 32, 32, 3)
    assert not np.array_equal(clips[0][0], source.source_clip(5, True, 0, frames=8, image_size=32)[0])
    assert np.array_equal(clips[0][0], source.source_clip(5, False, 0, frames=8, image_size=32)[0])
