"""Videos, windows and streams are named exactly like test videos."""

import tracemalloc
from itertools import count, islice

import numpy as np
import pandas as pd
import pytest
import torch

import ssp
from ssp.config import Clips
from ssp.data.clips import ClipDataset
from ssp.data.video import iterate_frames, probe
from ssp.errors import ConfigError, DataError
from ssp.training.evaluate import predict
from ssp.use.predictor import Reading
from tests.unit.made_videos import scene, write_video

FPS = 12


class WholeVideo:
    """A frame store of one decoded video, as plain as it gets."""

    def __init__(self, frames):
        self.frames = np.stack(list(frames))

    def length(self, row):
        return len(self.frames)

    def read(self, row, indices):
        return self.frames[indices]


@pytest.fixture(scope="module")
def predictor(trained, one_thread):
    return ssp.load(trained.results, "ucf101", "ssp")


@pytest.fixture(scope="module")
def long_clip():
    """62 frames that change their colours slowly, so that windows are named differently."""
    return np.concatenate([scene(31, seed=1), 255 - scene(31, seed=2)])


def test_a_video_is_read_like_a_test_video(predictor, trained):
    settings = trained.config.datasets["ucf101"]
    rows = pd.DataFrame([{"row": 0, "id": "a", "label": 0, "group": ""}])
    for video in trained.videos[:3]:
        clips = ClipDataset(rows, WholeVideo(iterate_frames(video)), settings.clips, image_size=32, mode="test", seed=0)
        logits = predict(predictor.model, clips, rows, batch_size=4, execution=predictor.execution)["logits"]
        expected = torch.tensor(np.stack(logits), dtype=torch.float64).softmax(1).mean(0)
        named = predictor.predict(video, top=100)
        assert len(named) == len(predictor.classes) == 10
        assert {name: probability for name, probability in named} == dict(
            zip(predictor.classes, expected.tolist(), strict=True)
        )
        assert [p for _, p in named] == sorted(expected.tolist(), reverse=True)
        assert predictor.predict(video, top=3) == named[:3]


def test_classes_have_the_names_of_the_manifest(predictor, trained):
    labels = dict(zip(trained.manifest["label"], trained.manifest["class_name"], strict=True))
    assert predictor.classes == [labels[number] for number in range(10)]


def test_frames_are_named_like_the_file_that_they_are_from(predictor, trained):
    frames = np.stack(list(iterate_frames(trained.videos[0])))
    assert (
        predictor.predict(frames) == predictor.predict(trained.videos[0]) == predictor.predict(str(trained.videos[0]))
    )


def test_many_videos_and_a_broken_one_among_them(predictor, trained, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    first, wrong, last = predictor.predict_many([trained.videos[0], broken, trained.videos[1]], top=2)
    assert first.classes == predictor.predict(trained.videos[0], 2) and first.error is None
    assert last.classes == predictor.predict(trained.videos[1], 2) and last.video == trained.videos[1]
    assert wrong.classes == [] and str(broken) in wrong.error and "\n" not in wrong.error


@pytest.mark.parametrize("announced", [0, 20, -20])
def test_a_file_has_the_frames_that_are_decoded_whatever_it_announces(predictor, trained, monkeypatch, announced):
    video = trained.videos[0]
    named, windows = predictor.predict(video), predictor.timeline(video, 0.5)
    header = probe(video)
    other = header._replace(frames=max(1, header.frames + announced))
    monkeypatch.setattr("ssp.data.video.probe", lambda path: other)
    monkeypatch.setattr("ssp.use.predictor.probe", lambda path: other)
    assert predictor.predict(video) == named
    pd.testing.assert_frame_equal(predictor.timeline(video, 0.5), windows)


def test_a_timeline_covers_the_video_and_each_row_is_its_window(predictor, long_clip, tmp_path):
    windows = predictor.timeline(long_clip, window=2, step=1, fps=FPS)
    spans = [(0, 24), (12, 36), (24, 48), (36, 60), (38, 62)]  # the last one ends with the video
    assert list(windows) == ["start", "end", "class", "probability"]
    assert windows["start"].tolist() == [first / FPS for first, _ in spans]
    assert windows["end"].tolist() == [stop / FPS for _, stop in spans]
    alone = [predictor.predict(long_clip[first:stop], 1)[0] for first, stop in spans]
    assert [*zip(windows["class"], windows["probability"], strict=True)] == alone
    assert windows["probability"].nunique() == len(spans)

    video = write_video(tmp_path / "long.mkv", long_clip, "ffv1", pixels="bgr0", fps=FPS)
    pd.testing.assert_frame_equal(predictor.timeline(video, 2, 1), windows)


@pytest.mark.parametrize(
    ("frames", "ends"), [(48, [2.0, 4.0]), (49, [2.0, 4.0, 49 / 12]), (10, [10 / 12])], ids=["whole", "rest", "short"]
)
def test_the_last_window(predictor, long_clip, frames, ends):
    windows = predictor.timeline(long_clip[:frames], window=2, fps=FPS)
    assert windows["end"].tolist() == ends
    assert windows["start"].tolist()[-1] == max(0, frames - 24) / FPS


def test_a_stream_is_named_as_it_comes_and_is_not_held(predictor):
    """From one buffer, as a camera gives it, without an end; a window holds 12 of its 100 frames."""
    taken, buffer = [], np.zeros((240, 320, 3), np.uint8)

    def camera():
        for number in count():
            taken.append(number)
            buffer[:] = number % 250
            yield buffer

    tracemalloc.start()
    found = [*islice(predictor.stream(camera(), fps=10, window=10, step=5), 6)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(window.start, window.end) for window in found] == [(5.0 * i, 5.0 * i + 10) for i in range(6)]
    assert len(taken) == 350, "a window is named as soon as it is full"
    assert peak < 40 * buffer.nbytes < 100 * buffer.nbytes
    frames = np.stack([np.full_like(buffer, number % 250) for number in range(50, 150)])
    assert found[1][2:] == predictor.predict(frames, 1)[0]


def test_what_is_left_of_a_stream_is_not_named(predictor, long_clip):
    found = [*predictor.stream(iter(long_clip), FPS, 2)]
    assert [window.end for window in found] == [2.0, 4.0]


def test_frames_in_memory_are_shrunk_like_decoded_ones(trained, predictor, tmp_path):
    clip = scene(12, width=128, height=96)
    video = write_video(tmp_path / "large.mkv", clip, "ffv1", pixels="bgr0", fps=FPS)
    small = ssp.load(trained.results, "ucf101", "ssp")
    small.reading = small.reading.model_copy(update={"short_side": 24})
    assert small.predict(clip) == small.predict(video) != predictor.predict(video)
    assert small.timeline(clip, 0.5, fps=FPS).equals(small.timeline(video, 0.5))
    assert small.predict(clip)[0] == (small.timeline(clip, 5, fps=FPS).iloc[0]["class"], small.predict(clip)[0][1])


def test_a_reading_wants_the_frames_of_all_its_views():
    clips = Clips(sampling="dense", num_frames=4, stride=2, test_segments=2)
    reading = Reading(clips=clips, image_size=32, short_side=None, batch_size=1)
    assert reading.wanted(20) == {0, 2, 4, 6} | {12, 14, 16, 18}


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 32, 32, 3)), np.zeros((4, 32, 32), np.uint8), np.zeros((0, 32, 32, 3), np.uint8), [[1, 2]]],
    ids=["float", "grey", "none", "list"],
)
def test_what_are_no_frames(predictor, frames):
    with pytest.raises(DataError, match=r"^frames: uint8 \(T, H, W, 3\) in RGB are taken, these are .+$"):
        predictor.predict(frames)


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda p, clip: p.predict(clip, top=0), ConfigError, "top: 0 is too little"),
        (lambda p, clip: p.timeline(clip, window=1), DataError, "frames: says no frame rate; give fps"),
        (lambda p, clip: p.timeline(clip, window=0, fps=12), ConfigError, "window: 0 is too little"),
        (lambda p, clip: p.timeline(clip, window=0.01, fps=12), ConfigError, "window: 0.01 s are less than a frame"),
        (lambda p, clip: p.stream(iter(clip), 12, 1, step=-1), ConfigError, "step: -1 is too little"),
        (lambda p, clip: p.stream(iter(clip), 0, 1), ConfigError, "fps: 0 is too little"),
        (lambda p, clip: next(p.stream(iter(clip / 2), 12, 1)), DataError, "these are float64"),
    ],
)
def test_a_mistake_is_one_line(predictor, long_clip, call, error, line):
    with pytest.raises(error, match=line) as raised:
        call(predictor, long_clip)
    assert "\n" not in str(raised.value)
