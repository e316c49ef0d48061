"""Small video files and data sets for tests of the data stage."""

import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from ssp.config import Config, parse_config
from ssp.data.archives import unpack_dataset
from ssp.data.fetch import fetch_dataset

SHARED = Path(__file__).resolve().parents[3] / "shared"
SHARED_VIDEOS = SHARED / "videos"

needs_shared = pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="../shared is absent: no real clips to decode")


def scene(frames: int, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """Frames that all differ and are not symmetric: uint8 (frames, height, width, 3)."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    base = tiles.repeat(8, 0).repeat(8, 1)[:height, :width]
    clip = np.stack([np.roll(base, 2 * i, axis=1) for i in range(frames)])
    for i in range(frames):
        clip[i, 2:10, 2:10] = 255 * i // max(1, frames - 1)
    return clip


def write_video(
    path: Path,
    clip: np.ndarray,
    codec: str = "mpeg4",
    *,
    fps: int = 12,
    pixels: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode a clip; the container follows the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], pixels
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def cut_without_encoding(path: Path, target: Path) -> Path:
    """The packets from the second key frame on; B-frames right behind it refer to what is gone."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.video[0]
        out, keys = container.add_stream_from_template(stream), 0
        for packet in source.demux(stream):
            keys += packet.is_keyframe
            if keys > 1 and packet.size:
                packet.stream = out
                container.mux(packet)
    return target


def write_with_cover(path: Path, clip: np.ndarray, cover: np.ndarray) -> Path:
    """A video with an attached picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        picture = container.add_stream("mjpeg", rate=1)
        picture.disposition = Disposition.attached_pic
        for each, frames, pixels in ((stream, clip, "yuv420p"), (picture, cover[None], "yuvj420p")):
            each.height, each.width, each.pix_fmt = frames.shape[1], frames.shape[2], pixels
        for each, frames in ((picture, cover[None]), (stream, clip)):
            for frame in frames:
                container.mux(each.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(each.encode())
    return path


def write_two_streams(path: Path, small: np.ndarray, large: np.ndarray) -> Path:
    """A file with two video streams, the small one first."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=12) for _ in range(2)]
        for stream, clip in zip(streams, (small, large), strict=True):
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        for stream, clip in zip(streams, (small, large), strict=True):
            for frame in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
    return path


def decode_all(path: Path, stream: int = 0) -> list[np.ndarray]:
    """All frames in order, by the plainest PyAV loop: what `read_frames` must equal."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams[stream])]


def small_config(root: Path, **dataset: object) -> Config:
    """A config with one UCF101-like data set `ucf101` under `root`."""
    block = {
        "source": "ucf101",
        "expected": {"classes": 2, "train": 8, "test": 4},
        "archives": [{"file": "videos.zip"}],
        "local": str(root / "local"),
        "frames": {"shards": 2},
        "clips": {"sampling": "dense", "num_frames": 4, "stride": 2},
        "checkpoint": "source",
        "recipe": {"epochs": 1, "batch_size": 2},
        "start": {"lr": 0.01},
    }
    data = {
        "name": "unit",
        "title": "Unit test",
        "data_root": str(root / "data"),
        "seeds": [0],
        "backbone": {
            "architecture": {"embed_dim": 8, "depth": 1},
            "image_size": 32,
            "checkpoints": {"source": {"num_frames": 4, "local": "backbone.safetensors"}},
        },
        "methods": {"linear": {}},
        "sweep": {"trials": 1},
        "datasets": {"ucf101": block | dataset},
    }
    return parse_config(data, "unit test")


def unpacked_config(root: Path, files: dict[str, Path], **dataset: object) -> Config:
    """A config as `small_config`, whose data set has been unpacked from an archive of these files."""
    config = small_config(root, **dataset)
    local = config.archived["ucf101"].local
    local.mkdir(exist_ok=True)
    with zipfile.ZipFile(local / "videos.zip", "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    fetch_dataset(config, "ucf101")
    unpack_dataset(config, "ucf101")
    return config


def ucf101_tree(root: Path, frames: int = 10) -> dict[str, Path]:
    """Files of a UCF101-like data set by their names in the archive: 2 classes, 4 + 2 groups, 8 train, 4 test."""
    clips = {"train": [], "test": []}
    files = {}
    for label, name in enumerate(("Archery", "YoYo")):
        for group in range(1, 7):
            clip = f"{name}/v_{name}_g{group:02}_c01.avi"
            clips["test" if group < 3 else "train"].append(clip)
            video = scene(frames + group, seed=10 * label + group)
            files[f"UCF-101/{clip}"] = write_video(root / clip, video)
    annotation = {
        "classInd.txt": "1 Archery\n2 YoYo\n",
        "trainlist01.txt": "".join(f"{clip} 1\n" for clip in clips["train"]),
        "testlist01.txt": "".join(f"{clip}\n" for clip in clips["test"]),
    }
    for name, text in annotation.items():
        path = root / name
        path.write_text(text)
        files[f"ucfTrainTestlist/{name}"] = path
    return files
