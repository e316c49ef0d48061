"""`read_frames` returns exactly the asked frames, from whichever reader, and says what is wrong with a file."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ssp.data import VideoError, read_frames
from ssp.data.video import iterate_frames, probe, read_stream, sample_frames, shrink
from tests.unit.made_videos import (
    SHARED_VIDEOS,
    cut_without_encoding,
    decode_all,
    needs_shared,
    scene,
    write_two_streams,
    write_video,
    write_with_cover,
)

# (name, stream, quarter turns counter-clockwise that make it upright)
REAL = [
    ("arm_wrestling.mp4", 0, 0),
    ("av1.mkv", 0, 0),
    ("h264_10bit.mp4", 0, 0),
    ("h265.mp4", 0, 0),
    ("nasa_h264.mp4", 3, 0),
    ("pancake.mkv", 0, 0),
    ("part_0.mp4", 0, 0),
    ("rotated_90.mov", 0, 3),
    ("test.avi", 0, 0),
    ("unordered.mov", 0, 0),
]
MADE = {
    "mpeg4.avi": ("mpeg4", {}),
    "b_frames.avi": ("mpeg4", {"bf": "2"}),  # decord's skip_frames is wrong here
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "h264.mp4": ("libx264", {"bf": "3"}),
}


@pytest.fixture
def without_decord(monkeypatch):
    """As where it is not installed."""
    monkeypatch.setitem(sys.modules, "decord", None)


@pytest.fixture(params=["decord", "pyav"])
def reader(request):
    """Where decord is installed, and where it is not."""
    if request.param == "pyav":
        request.getfixturevalue("without_decord")
    else:
        pytest.importorskip("decord")
    return request.param


@pytest.fixture
def opened_by_decord(monkeypatch):
    """Names of the files that decord opens."""
    decord = pytest.importorskip("decord")
    opened, real = [], decord.VideoReader

    def watched(path, **settings):
        opened.append(Path(path).name)
        return real(path, **settings)

    monkeypatch.setattr(decord, "VideoReader", watched)
    return opened


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "stream", "turns"), REAL)
def test_twenty_draws_of_frames_equal_an_independent_decode(name, stream, turns):
    path = SHARED_VIDEOS / name
    truth = [np.rot90(frame, turns) for frame in decode_all(path, stream)]
    rng = np.random.default_rng(0)
    for repeat in range(20):
        reach = len(truth) if repeat % 5 == 0 else min(len(truth), 60)  # to the end of long clips every fifth time
        indices = [*rng.integers(reach, size=4), reach - 1, 0, 0]
        rng.shuffle(indices)
        frames = read_frames(path, indices)
        assert frames.shape == (7, *truth[0].shape)
        for frame, index in zip(frames, indices, strict=True):
            np.testing.assert_array_equal(frame, truth[index])


@needs_shared
@pytest.mark.parametrize(("name", "stream", "turns"), REAL)
def test_all_frames_of_real_clips_in_order(name, stream, turns):
    path = SHARED_VIDEOS / name
    truth = decode_all(path, stream)
    count = 0
    for frame, true in zip(iterate_frames(path), truth, strict=True):
        np.testing.assert_array_equal(frame, np.rot90(true, turns))
        count += 1
    assert probe(path).frames == count


@needs_shared
def test_what_decord_gets_wrong_goes_to_pyav(opened_by_decord):
    for name, _, _ in REAL:
        read_frames(SHARED_VIDEOS / name, [0])
    assert {name for name, _, _ in REAL} - set(opened_by_decord) == {
        "av1.mkv",
        "h264_10bit.mp4",
        "nasa_h264.mp4",
        "rotated_90.mov",
    }


def test_without_decord_everything_goes_to_pyav(tmp_path, opened_by_decord, without_decord):
    read_frames(write_video(tmp_path / "clip.avi", scene(3)), [0])
    assert opened_by_decord == []


@needs_shared
def test_a_damaged_stream_gives_its_good_frames_and_then_an_error():
    path = SHARED_VIDEOS / "corrupted.mp4"
    frames = iterate_frames(path)
    good = []
    with pytest.raises(VideoError, match=r"corrupted\.mp4"):
        good.extend(frames)
    assert len(good) == 28  # what FFmpeg decodes; the container announces 50
    np.testing.assert_array_equal(read_frames(path, [27])[0], good[27])
    with pytest.raises(VideoError, match=r"corrupted\.mp4"):
        read_frames(path, [0, 28])


@pytest.mark.parametrize("name", MADE)
def test_made_clips_frame_by_frame(tmp_path, opened_by_decord, reader, name):
    codec, options = MADE[name]
    path = write_video(tmp_path / name, scene(15), codec, options=options)
    truth = decode_all(path)
    assert len(truth) == 15
    indices = [14, 3, 3, 0, 9, 10, 11]
    np.testing.assert_array_equal(read_frames(path, indices), np.stack([truth[i] for i in indices]))
    assert opened_by_decord == ([name] if reader == "decord" else [])
    assert probe(path)._replace(fps=0) == (
        15,
        0,
        64,
        48,
        {"mpeg4": "mpeg4", "libvpx-vp9": "vp9", "libx264": "h264"}[codec],
    )


@pytest.mark.parametrize("index", [-1, 8, 1000])
def test_outside_the_video_is_an_index_error(tmp_path, index):
    path = write_video(tmp_path / "clip.avi", scene(8))
    with pytest.raises(IndexError, match=r"clip\.avi"):
        read_frames(path, [0, index])


def test_no_frames_asked(tmp_path):
    path = write_video(tmp_path / "clip.avi", scene(3))
    assert read_frames(path, []).shape == (0, 48, 64, 3)
    assert read_frames(path, [], short_side=24).shape == (0, 24, 32, 3)


def test_short_side_shrinks_and_never_enlarges(tmp_path, reader):
    wide = write_video(tmp_path / "wide.avi", scene(3, 96, 48))
    tall = write_video(tmp_path / "tall.avi", scene(3, 48, 96))
    assert read_frames(wide, [2], short_side=24).shape == (1, 24, 48, 3)
    assert read_frames(tall, [2], short_side=24).shape == (1, 48, 24, 3)
    np.testing.assert_array_equal(read_frames(wide, [2], short_side=200), read_frames(wide, [2]))
    shrunk = read_frames(wide, [2], short_side=24)[0].astype(float)
    means = decode_all(wide)[2].astype(float).reshape(24, 2, 48, 2, 3).mean((1, 3))
    assert abs(shrunk - means).mean() < 12  # the same picture, not another frame or a crop
    assert abs(shrunk - means[:, ::-1]).mean() > 40


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation_in_the_metadata_is_applied(tmp_path, rotation):
    clip = scene(4)
    path = write_video(tmp_path / "clip.mp4", clip, "libx264", rotation=rotation, options={"crf": "1"})
    upright = np.rot90(clip, round(rotation / 90), axes=(1, 2))
    frames = read_frames(path, [0, 3])
    assert frames.shape[1:] == upright.shape[1:]
    assert abs(frames.astype(float) - upright[[0, 3]]).mean() < 12
    header = probe(path)
    assert (header.height, header.width) == upright.shape[1:3]


def test_the_largest_of_several_streams_is_read(tmp_path):
    path = write_two_streams(tmp_path / "two.mp4", scene(5, 32, 32), scene(9, 64, 48, seed=1))
    np.testing.assert_array_equal(read_frames(path, [8, 0]), np.stack(decode_all(path, stream=1))[[8, 0]])


def test_a_cover_is_no_video(tmp_path):
    path = write_with_cover(tmp_path / "a.mp4", scene(9), scene(1, width=640, height=480)[0])
    assert probe(path)[:1] + probe(path)[2:4] == (9, 64, 48)
    np.testing.assert_array_equal(read_frames(path, range(9)), decode_all(path))


def test_a_reader_that_fills_up_with_copies_is_not_believed(tmp_path, reader):
    """Fewer frames can be decoded than the container has packets."""
    whole = write_video(tmp_path / "a.avi", scene(36), options={"bf": "2", "g": "12"})
    path = cut_without_encoding(whole, tmp_path / "b.avi")
    expected = decode_all(path)
    assert len(expected) < probe(path).frames
    np.testing.assert_array_equal(list(iterate_frames(path)), expected)
    with pytest.raises(IndexError, match=f"the video has {len(expected)} frames"):
        read_frames(path, [len(expected)])


@pytest.mark.parametrize("still", [slice(None), slice(5, None), slice(2, 8)], ids=["all", "end", "middle"])
def test_real_copies_are_frames(tmp_path, still):
    clip = scene(12)
    clip[still] = clip[still][:1]
    path = write_video(tmp_path / "a.mp4", clip, codec="libx264", options={"crf": "0"})
    np.testing.assert_array_equal(read_frames(path, range(12)), decode_all(path))
    np.testing.assert_array_equal(read_frames(path, [7, 11]), np.stack(decode_all(path))[[7, 11]])


def test_ten_bit_video_has_pyavs_colours(tmp_path):
    path = write_video(tmp_path / "ten.mp4", scene(3), "libx264", pixels="yuv420p10le")
    np.testing.assert_array_equal(read_frames(path, [0, 1, 2]), np.stack(decode_all(path)))


@pytest.mark.parametrize("content", [b"", b"not a video", b"RIFF\0\0\0\0AVI LIST", b"\x1aE\xdf\xa3" * 100])
def test_what_is_no_video_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "strange name.avi"
    path.write_bytes(content)
    for call in (lambda: read_frames(path, [0]), lambda: list(iterate_frames(path)), lambda: probe(path)):
        with pytest.raises(VideoError, match=r"strange name\.avi") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_video_error(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        read_frames(tmp_path / "absent.mp4", [0])


def test_a_sound_file_is_a_video_error(tmp_path):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream"):
        read_frames(path, [0])


def test_where_decord_stops_pyav_goes_on(tmp_path, monkeypatch):
    """Frames come once and in order, although the readers change in the middle."""
    decord = pytest.importorskip("decord")
    path = write_video(tmp_path / "clip.avi", scene(8))
    delivered = []

    class StopsAfterThree(decord.VideoReader):
        def next(self):
            if len(delivered) == 3:
                raise decord.DECORDError("a damaged packet")
            delivered.append(1)
            return super().next()

    monkeypatch.setattr(decord, "VideoReader", StopsAfterThree)
    np.testing.assert_array_equal(np.stack(list(iterate_frames(path))), np.stack(decode_all(path)))
    assert len(delivered) == 3


@pytest.mark.parametrize("announced", [3, 9, 30])
def test_frames_are_chosen_from_as_many_as_there_are(tmp_path, reader, monkeypatch, announced):
    path = write_video(tmp_path / "a.mp4", scene(9), "libx264")
    frames, header = decode_all(path), probe(path)
    monkeypatch.setattr("ssp.data.video.probe", lambda path: header._replace(frames=announced))
    length, kept = sample_frames(path, lambda length: [0, length - 1, length // 2])
    assert length == 9 and sorted(kept) == [0, 4, 8]
    assert all(np.array_equal(kept[index], frames[index]) for index in kept)


def test_chosen_frames_are_shrunk_and_damage_is_an_error(tmp_path):
    path = write_video(tmp_path / "a.mp4", scene(9), "libx264")
    _, kept = sample_frames(path, range, short_side=24)
    assert [kept[index].shape for index in range(9)] == [(24, 32, 3)] * 9
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VideoError, match=r"a\.mp4"):
        sample_frames(path, range)


def test_a_frame_in_memory_shrinks_like_a_decoded_one(tmp_path):
    path = write_video(tmp_path / "a.mkv", scene(3), "ffv1", pixels="bgr0")
    for frame, small in zip(iterate_frames(path), iterate_frames(path, 20), strict=True):
        assert np.array_equal(shrink(frame, 20), small) and shrink(frame, 48) is shrink(frame, None) is frame


def test_a_pipe_is_read_once_as_it_comes(tmp_path):
    path = write_video(tmp_path / "a.mkv", scene(9))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()), daemon=True)
    writer.start()
    with read_stream(pipe) as (fps, frames):
        assert fps == 12
        assert all(np.array_equal(*pair) for pair in zip(frames, decode_all(path), strict=True))
    writer.join(timeout=60)
    with read_stream(path, 24) as (_, frames):
        assert next(frames).shape == (24, 32, 3)


def test_a_pipe_without_a_video_is_a_video_error(tmp_path):
    (tmp_path / "text").write_bytes(b"no video")
    with pytest.raises(VideoError, match="text: cannot be decoded"), read_stream(tmp_path / "text"):
        pass


def test_importing_the_package_loads_neither_torch_nor_a_decoder():
    code = "import sys, ssp.data; print([m for m in ('torch', 'decord', 'av') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
