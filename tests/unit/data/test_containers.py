"""Containers that say how long they are: what was cut off is told from what is whole, and from what says nothing."""

import pytest

from ssp.data import read_frames
from ssp.data.containers import announced_bytes
from ssp.data.video import VideoError, iterate_frames, probe
from tests.unit.made_videos import scene, write_video

FORMATS = [(".webm", "libvpx-vp9"), (".mkv", "libx264"), (".avi", "mpeg4")]


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_file_that_was_cut_off_is_an_error_after_its_last_frame(suffix, codec, share, tmp_path):
    path = write_video(tmp_path / f"clip{suffix}", scene(60, 96, 64), codec)
    content = path.read_bytes()
    assert announced_bytes(path) == len(content)
    assert len(list(iterate_frames(path))) == 60
    path.write_bytes(content[: int(share * len(content))])
    frames = iterate_frames(path)
    whole = [next(frames)]
    with pytest.raises(VideoError, match=rf"clip{suffix}: cut off, \d+ of {len(content)} bytes and \d+ .*frames are"):
        whole.extend(frames)
    assert read_frames(path, [0]).shape == (1, 64, 96, 3)  # what is there can be read
    if suffix == ".avi":  # announces its frames: the header alone is fine
        assert probe(path).frames == 60
    else:
        with pytest.raises(VideoError, match="cut off"):
            probe(path)


def test_an_avi_that_lost_its_index_alone_is_whole(tmp_path):
    path = write_video(tmp_path / "clip.avi", scene(60, 96, 64))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"idx1")])
    assert announced_bytes(path) == len(content)
    assert len(list(iterate_frames(path))) == 60


def test_bytes_after_the_end_are_no_matter(tmp_path):
    path = write_video(tmp_path / "clip.webm", scene(9), "libvpx-vp9")
    with path.open("ab") as file:
        file.write(bytes(99))
    assert len(list(iterate_frames(path))) == 9


def test_a_live_recording_says_nothing(tmp_path):
    """Its segment has the length "unknown", which is how a stream is written."""
    path = write_video(tmp_path / "clip.webm", scene(60, 96, 64), "libvpx-vp9")
    content = path.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    assert content[at] == 1  # eight bytes of length
    path.write_bytes(content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 : len(content) * 4 // 5])
    assert announced_bytes(path) is None
    assert 0 < len(list(iterate_frames(path))) < 60


EBML = b"\x1a\x45\xdf\xa3"


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\x00\x00\x00\x00AVI ", EBML, EBML + b"\x80\x18", EBML + b"\0", b"text" * 9]
)
def test_other_files_and_halves_of_headers_say_nothing(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert announced_bytes(tmp_path / "file") is None
