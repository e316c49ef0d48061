"""Sampling as published; augmentation the same for all frames; clips that depend on (seed, epoch, sample) only."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ssp.config import Augmentation, Clips
from ssp.data.augment import (
    MEAN,
    STD,
    TrainTransform,
    channels_first,
    crop_box,
    draw_erasing,
    erase,
    noise,
    normalised,
    validation_view,
)
from ssp.data.augment import test_view as view_of_test
from ssp.data.clips import ClipDataset
from ssp.data.sampling import test_indices as indices_of_test
from ssp.data.sampling import train_indices, validation_indices
from tests.unit.made_clips import clip_of, rng

DENSE = Clips(sampling="dense", num_frames=8, stride=4, test_segments=4, test_crops=3)
SPARSE = Clips(sampling="sparse", num_frames=8, test_segments=2, test_crops=3)
KINETICS = Clips(sampling="kinetics_sparse", num_frames=32, test_segments=8, test_crops=3)


# -- sampling --------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 400), st.sampled_from([DENSE, SPARSE, KINETICS]), st.integers(0, 5))
def test_samples_are_frames_of_the_video_in_order(length, clips, seed):
    drawn = [train_indices(length, clips, rng(seed)), validation_indices(length, clips)]
    drawn += [indices_of_test(length, clips, segment) for segment in range(clips.test_segments)]
    for indices in drawn:
        assert indices.shape == (clips.num_frames,)
        assert indices.dtype == np.int64
        assert indices.min() >= 0
        assert indices.max() < length
        assert (np.diff(indices) >= 0).all()
    published = validation_indices(length, clips, "published")
    assert published.min() >= 0
    assert published.max() < length


def test_dense_training_windows():
    starts = {int(train_indices(100, DENSE, rng(seed))[0]) for seed in range(400)}
    assert min(starts) == 0
    assert max(starts) == 67  # the end is drawn below the length, so the last frame is never in a window
    indices = train_indices(100, DENSE, rng(1))
    assert indices[-1] - indices[0] == 31
    assert set(np.diff(indices)) == {4, 5}  # linspace over the window, not a stride


def test_dense_short_videos_are_stretched_and_end_in_repeats():
    np.testing.assert_array_equal(train_indices(16, DENSE, rng()), [0, 5, 10, 15, 15, 15, 15, 15])
    np.testing.assert_array_equal(train_indices(32, DENSE, rng()), [0, 4, 9, 13, 18, 22, 27, 31])
    np.testing.assert_array_equal(validation_indices(16, DENSE), train_indices(16, DENSE, rng()))
    np.testing.assert_array_equal(train_indices(1, DENSE, rng()), [0] * 8)


def test_dense_validation_window_published_wraps_and_fixed_is_central():
    np.testing.assert_array_equal(validation_indices(64, DENSE, "published"), [48, 53, 58, 62, 2, 6, 11, 15])
    fixed = validation_indices(64, DENSE, "fixed")
    assert (fixed[0], fixed[-1]) == (16, 47)
    assert validation_indices(96, DENSE, "published")[0] == 0
    np.testing.assert_array_equal(
        validation_indices(200, DENSE, "published"), validation_indices(200, DENSE, "fixed") - 32
    )


def test_dense_test_views():
    np.testing.assert_array_equal(indices_of_test(62, DENSE, 0), np.arange(0, 32, 4))
    np.testing.assert_array_equal(indices_of_test(62, DENSE, 1), np.arange(10, 42, 4))
    np.testing.assert_array_equal(indices_of_test(62, DENSE, 3), np.arange(30, 62, 4))
    for segment in range(4):  # short videos: all views are the same, padded with the last frame on the stride
        np.testing.assert_array_equal(indices_of_test(15, DENSE, segment), [0, 4, 8, 12, 12, 12, 12, 12])
    one = DENSE.model_copy(update={"test_segments": 1})
    np.testing.assert_array_equal(indices_of_test(62, one, 0), np.arange(15, 47, 4))


def test_sparse():
    np.testing.assert_array_equal(validation_indices(50, SPARSE), 6 * np.arange(8) + 3)  # the tail is unused
    drawn = np.stack([train_indices(50, SPARSE, rng(seed)) for seed in range(300)])
    np.testing.assert_array_equal(drawn.min(0), 6 * np.arange(8))
    np.testing.assert_array_equal(drawn.max(0), 6 * np.arange(8) + 5)
    both = sorted(
        [int(5 / 2 + 5 * x) for x in range(8)] + [5 * x for x in range(8)]
    )  # as the published code lists them
    np.testing.assert_array_equal(indices_of_test(40, SPARSE, 0), both[0::2])
    np.testing.assert_array_equal(indices_of_test(40, SPARSE, 1), both[1::2])


def test_sparse_clips_of_short_videos_published_and_fixed():
    for length in range(1, 8):
        in_order = [length * i // 8 for i in range(8)]
        assert train_indices(length, SPARSE, rng()).tolist() == in_order
        assert validation_indices(length, SPARSE).tolist() == in_order
        assert not train_indices(length, SPARSE, rng(), "published").any()
        assert not validation_indices(length, SPARSE, short_videos="published").any()
    np.testing.assert_array_equal(train_indices(8, SPARSE, rng(), "published"), np.arange(8))


def test_kinetics_sparse():
    length, segment = 500, 499 / 32
    starts = [int(np.round(segment * i)) for i in range(33)]
    drawn = np.stack([train_indices(length, KINETICS, rng(seed)) for seed in range(600)])
    np.testing.assert_array_equal(drawn.min(0), starts[:-1])
    np.testing.assert_array_equal(drawn.max(0), starts[1:])  # both ends of a segment can be drawn
    np.testing.assert_array_equal(validation_indices(length, KINETICS), [s + int(segment / 2) for s in starts[:-1]])
    for view in range(8):
        expected = [s + int(segment / 9 * (view + 1)) for s in starts[:-1]]
        np.testing.assert_array_equal(indices_of_test(length, KINETICS, view), expected)


# -- transforms ------------------------------------------------------------------------------------------------------


def test_normalisation():
    clip = clip_of(5, 7)
    expected = (clip.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(normalised(channels_first(clip)).double(), expected.transpose(0, 1), atol=1e-6, rtol=0)
    batch = torch.stack([channels_first(clip)] * 6).unflatten(0, (2, 3))
    assert (normalised(batch) == normalised(channels_first(clip))).all()


def test_crops_at_test_walk_along_the_long_side():
    wide = torch.arange(100).to(torch.uint8).expand(2, 3, 40, 100)
    starts = [view_of_test(wide, 40, crop, 4)[0, 0, 0, 0] for crop in range(4)]
    expected = [channels_first(wide)[0, 0, 0, left] for left in (0, 20, 40, 60)]
    assert starts == expected
    assert view_of_test(wide, 40, 0, 1)[0, 0, 0, 0] == channels_first(wide)[0, 0, 0, 30]
    torch.testing.assert_close(validation_view(wide, 40), view_of_test(wide, 40, 0, 1))
    tall = wide.transpose(2, 3)
    torch.testing.assert_close(view_of_test(tall, 40, 2, 4), view_of_test(wide, 40, 2, 4).transpose(2, 3))


@pytest.mark.parametrize("size", [(32, 32), (32, 57), (120, 33), (240, 320)])
def test_every_view_has_the_asked_size(size):
    for crop in range(3):
        assert view_of_test(clip_of(*size), 32, crop, 3).shape == (3, 4, 32, 32)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 100))
def test_random_crops_are_inside(height, width, seed):
    top, left, h, w = crop_box(height, width, (0.08, 1.0), (0.75, 4 / 3), rng(seed))
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h > 0 < w


def test_random_crops_have_the_asked_area_and_shape():
    boxes = [crop_box(240, 320, (0.3, 0.5), (0.75, 4 / 3), rng(seed)) for seed in range(300)]
    areas = np.array([h * w / (240 * 320) for _, _, h, w in boxes])
    ratios = np.array([w / h for _, _, h, w in boxes])
    assert (areas.min() > 0.29) and (areas.max() < 0.51) and (areas.std() > 0.03)
    assert (ratios.min() > 0.74) and (ratios.max() < 1.35)


def test_a_crop_of_everything_changes_nothing():
    transform = TrainTransform(Augmentation(scale=(1, 1), ratio=(1, 1), flip=0), 32)
    clip = clip_of(32, 32)
    assert torch.equal(transform(clip, rng())[0], channels_first(clip))
    flipped, erasing = TrainTransform(Augmentation(scale=(1, 1), ratio=(1, 1), flip=1), 32)(clip, rng())
    assert torch.equal(flipped, channels_first(clip).flip(-1))
    assert not erasing.any()


def test_all_frames_get_the_same_crop_and_flip():
    frame = 40 + clip_of(48, 64, frames=1) // 2
    done, _ = TrainTransform(Augmentation(), 32)(frame.expand(4, -1, -1, -1), rng(3))
    assert (done == done[:, :1]).all()


def erased(seed, frames=4, size=32):
    """A clip after random erasing, and what of it was erased."""
    clips = torch.full((1, 3, frames, size, size), 99.0)
    erase(clips, torch.tensor([draw_erasing(size, size, rng(seed))]))
    clip = clips[0].transpose(0, 1)
    return clip, clip != 99


def test_erasing_takes_one_box_with_fresh_noise():
    shares = []
    for seed in range(60):
        clip, box = erased(seed)
        assert (box == box[:1, :1]).all()  # the same box in all frames
        rows, columns = box[0, 0].any(1).nonzero(), box[0, 0].any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert box[0, 0].sum() == height * width
        assert (clip[0][box[0]] != clip[1][box[1]]).any()  # the noise is not
        assert abs(clip[box].mean()) < 1
        shares.append(float(box[0, 0].float().mean()))
    assert min(shares) > 0.01 and max(shares) < 0.36 and np.std(shares) > 0.05


def test_erasing_is_drawn_with_the_clip_and_done_to_it_alone():
    transform = TrainTransform(Augmentation(scale=(1, 1), ratio=(1, 1), flip=0, erasing=1.0), 32)
    (clip, erasing), (other, others) = (transform(clip_of(32, 32), rng(seed)) for seed in (0, 1))
    clips = normalised(torch.stack([clip, other, clip]))
    before = clips.clone()
    erase(clips, torch.stack([erasing, torch.zeros(5, dtype=torch.int64), others]))
    top, left, height, width, _ = erasing.tolist()
    changed = clips != before
    assert changed[0, ..., top : top + height, left : left + width].float().mean() > 0.99
    assert changed[0].sum() == changed[0, ..., top : top + height, left : left + width].sum()
    assert not changed[1].any() and changed[2].any()


def test_noise_is_normal_and_a_function_of_its_seed():
    """Against a reading of SplitMix64 in Python's own integers, and by its distribution."""

    def splitmix(state):
        z = state % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    seed = 2**61 + 12345
    for i, found in enumerate(noise(seed, 50, "cpu").tolist(), 1):
        z = splitmix(seed + i * 0x9E3779B97F4A7C15)
        radius = np.sqrt(-2 * np.log(((z >> 40) + 1) / 2**24))
        assert found == pytest.approx(radius * np.cos(2 * np.pi * (z & 0xFFFFFF) / 2**24), abs=2e-6)
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first number of seed 0 as published
    many = noise(7, 200_000, "cpu")
    assert scipy.stats.kstest(many.numpy(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(many[:-1], many[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(many, noise(8, 200_000, "cpu"))[0, 1]) < 0.01


# -- the data set ----------------------------------------------------------------------------------------------------


class Memory:
    """A frame store in memory: frame i of video v is filled with the value 10 v + i."""

    def __init__(self, lengths, size=(32, 48)):
        self.lengths, self.size, self.reads = lengths, size, 0

    def length(self, row):
        return self.lengths[row]

    def read(self, row, indices):
        self.reads += 1
        values = np.array([10 * row + i for i in indices], np.uint8)
        noise = np.random.default_rng(row).integers(0, 5, (1, *self.size, 3), dtype=np.uint8)
        return values[:, None, None, None] + noise


ROWS = pd.DataFrame({"row": [3, 1, 0], "label": [7, 8, 9], "id": ["c", "b", "a"]})
LENGTHS = {0: 60, 1: 9, 3: 40}


def data_set(mode, clips=DENSE, **options):
    options = {"image_size": 32, "seed": 0, "augmentation": Augmentation() if mode == "train" else None} | options
    return ClipDataset(ROWS, Memory(LENGTHS), clips, mode=mode, **options)


def grey(clip, frame=0):
    """The grey level of a frame of a clip."""
    return float(clip[0, frame].float().mean())


def test_items_of_every_mode():
    clip, label, row, view = data_set("val")[1]
    assert (tuple(clip.shape), clip.dtype, label, row, view) == ((3, 8, 32, 32), torch.uint8, 8, 1, 0)
    assert len(data_set("val")) == len(data_set("train")) == 3
    assert data_set("train")[2][0].shape == (1, 3, 8, 32, 32)
    for mode in ("train", "val", "test"):
        assert data_set(mode).clip_bytes == data_set(mode)[0][0].nbytes
    twice = data_set("train", augmentation=Augmentation(repeats=2))
    assert twice.clip_bytes == twice[0][0].nbytes
    test = data_set("test")
    assert len(test) == 3 * 4 * 3
    assert [test[i][1:] for i in (0, 1, 11, 12, 35)] == [(7, 0, 0), (7, 0, 1), (7, 0, 11), (8, 1, 0), (9, 2, 11)]
    with pytest.raises(IndexError):
        test[36]


def test_clips_hold_the_sampled_frames_of_their_video():
    values = [round(grey(data_set("val")[0][0], t)) for t in range(8)]
    np.testing.assert_array_equal(np.array(values) - 32, validation_indices(40, DENSE))  # 30, and 2 of noise
    test = data_set("test")
    for view in range(12):
        indices = indices_of_test(40, DENSE, view // 3)
        values = [round(grey(test[view][0], t)) for t in range(8)]
        np.testing.assert_array_equal(np.array(values) - 32, indices)


def test_the_quirk_reaches_the_sampler():
    fixed, published = data_set("val"), data_set("val", validation_window="published")
    assert round(grey(fixed[0][0])) - 32 == 4
    assert round(grey(published[0][0])) - 32 == validation_indices(40, DENSE, "published")[0]


@pytest.mark.parametrize("mode", ["train", "val"])
def test_the_quirk_of_short_videos_reaches_the_sampler(mode):
    def last_frame(quirk):
        clips = data_set(mode, SPARSE.model_copy(update={"num_frames": 16}), augmentation=None, short_videos=quirk)
        clip = clips[1][0]  # 9 frames
        return round(grey(clip if mode == "val" else clip[0], 15)) - 12

    assert (last_frame("fixed"), last_frame("published")) == (8, 0)


def test_a_clip_stays_the_same_when_another_video_cannot_be_read():
    options = {"image_size": 32, "mode": "train", "seed": 0, "augmentation": Augmentation()}
    without = ClipDataset(ROWS[1:], Memory(LENGTHS), DENSE, **options)
    torch.testing.assert_close(without[0][0], data_set("train")[1][0], rtol=0, atol=0)


def test_crops_of_a_segment_share_one_read():
    test = data_set("test")
    clips = [test[i][0] for i in range(12)]
    assert test.store.reads == 4
    np.testing.assert_array_equal(clips[4], data_set("test")[4][0])  # whatever was read before


def test_a_clip_depends_on_seed_epoch_and_sample_alone():
    one, two = data_set("train"), data_set("train")
    _ = [two[i] for i in (2, 1, 1)]
    for index in range(3):
        torch.testing.assert_close(one[index][0], two[index][0], rtol=0, atol=0)
    assert (one[0][0] != data_set("train", seed=1)[0][0]).any()
    before = one[0][0]
    one.set_epoch(1)
    assert (one[0][0] != before).any()
    one.set_epoch(0)
    torch.testing.assert_close(one[0][0], before, rtol=0, atol=0)


def test_repeats_share_their_frames_and_differ_in_augmentation():
    clip = data_set("train", augmentation=Augmentation(repeats=3))[0][0]
    assert clip.shape == (3, 3, 8, 32, 32)
    assert (clip[0] != clip[1]).any()
    assert [round(grey(clip[0], t)) for t in range(8)] == [round(grey(clip[2], t)) for t in range(8)]


def test_training_without_augmentation_is_a_random_window_in_the_centre():
    clip = data_set("train", augmentation=None)[0][0]
    assert clip.shape == (1, 3, 8, 32, 32)
    assert round(grey(clip[0])) - 32 in range(9)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing_and_see_the_epoch(workers):
    dataset = data_set("train", augmentation=Augmentation(erasing=0.5, randaugment="rand-m7-n4-mstd0.5-inc1"))
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    reference = data_set("train", augmentation=Augmentation(erasing=0.5, randaugment="rand-m7-n4-mstd0.5-inc1"))
    for epoch in range(2):
        dataset.set_epoch(epoch)
        reference.set_epoch(epoch)
        for place in (0, -1):  # clips, and what is to be erased of them
            found = torch.cat([batch[place] for batch in loader])
            torch.testing.assert_close(found, torch.stack([reference[i][place] for i in range(3)]), rtol=0, atol=0)
