"""The data stage against its targets: extraction, clips from the frame store, augmentation, memory.

- Extraction: frames per second of a shard's decoder (decode, shrink to short side 128, JPEG), against the `ffmpeg`
  program doing the same on the same file; its quality is the one whose files are nearest in size. Target: 0.8.
- Clips: 8 frames, augmented, 224 pixels, from the frame store and by decoding on the fly with decord (read forward,
  which is the exact way), with the same draws. Target: 5 times as many per second from the store.
- Augmentation: milliseconds a clip of its parts, and of every operation of RandAugment.
- Memory: peak of an extraction, all its processes, for some videos and for four times as many.

Videos: ten seconds of 320x240, 30 frames per second, MPEG-4 and H.264, made here by PyAV from a real clip of ../shared
where it is (else from a generated scene). Processor time of one thread each (children included), so that neighbours on
a shared machine weigh less; contenders take turns; medians.

Usage: python benchmarks/data.py [--rounds 7]
Writes benchmarks/results/data.md and data.json.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np
import pandas as pd
import torch
import yaml
from processes import run
from scan import machine, write

from ssp.config import Augmentation, Clips, load_config, parse_config
from ssp.data import jpegs
from ssp.data.augment import TrainTransform, channels_first, crop_box, draw_erasing, erase, normalised, resize
from ssp.data.manifest import COLUMNS
from ssp.data.operations import OPERATIONS, Box
from ssp.data.randaugment import RandAugment, changed
from ssp.data.sampling import train_indices
from ssp.data.video import iterate_frames
from ssp.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "videos" / "arm_wrestling.mp4"
CODECS = {"MPEG-4": ("mpeg4", "avi", {}), "H.264": ("libx264", "mp4", {"crf": "23"})}
WIDTH, HEIGHT, FPS, SECONDS, SHORT_SIDE, QUALITY = 320, 240, 30, 10, 128, 95
CLIPS = 40  # a round
DRAWS = 40  # of RandAugment and of crops
SHARDS = (5, 20)  # videos


def source() -> np.ndarray:
    """Frames uint8 (300, 240, 320, 3): a real clip to and fro, or a scene with texture that pans."""
    count = FPS * SECONDS
    if REAL.is_file():
        with av.open(str(REAL)) as container:
            frames = [frame.reformat(WIDTH, HEIGHT, format="rgb24").to_ndarray() for frame in container.decode(video=0)]
        back_and_forth = frames + frames[::-1]
        return np.stack([back_and_forth[i % len(back_and_forth)] for i in range(count)])
    rng = np.random.default_rng(0)
    wide = rng.normal(0, 1, (HEIGHT // 8, (WIDTH + count) // 8 + 1, 3)).cumsum(1).repeat(8, 0).repeat(8, 1)
    wide = np.clip(128 + 20 * wide + rng.normal(0, 4, wide.shape), 0, 255).astype(np.uint8)
    return np.stack([wide[:, i : i + WIDTH] for i in range(count)])


def encode(path: Path, clip: np.ndarray, codec: str, options: dict[str, str]) -> Path:
    """Write a video file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        if codec == "mpeg4":
            stream.codec_context.bit_rate = 700_000  # about that of UCF101
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def spent(function: Callable[[], object]) -> tuple[float, object]:
    """Processor seconds of this process and of the children it has waited for; and the result."""
    start = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = function()
    end = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(start, end, strict=True)), result


def in_turn(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of every contender in every round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, function in contenders.items():
            seconds, _ = spent(function)
            if turn:
                times[name].append(seconds)
    return times


def run_ffmpeg(path: Path, folder: Path, quality: int) -> int:
    """The same work by the program; returns the bytes of its JPEG files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-threads",
        "1",
        "-i",
        path,
        "-vf",
        f"scale=-2:{SHORT_SIDE}:flags=bilinear",
    ]
    command += ["-filter_threads", "1", "-threads", "1", "-pix_fmt", "yuvj420p", "-qmin", "1", "-q:v", quality]
    subprocess.run([*map(str, command), folder / "%05d.jpg"], check=True, stdin=subprocess.DEVNULL)
    return sum(file.stat().st_size for file in folder.iterdir())


def time_extraction(path: Path, folder: Path, rounds: int) -> dict | None:
    """Frames per second of both; None without the program."""
    if not shutil.which("ffmpeg"):
        return None
    packed = jpegs.pack(iterate_frames(path, SHORT_SIDE), QUALITY)
    sizes = {quality: run_ffmpeg(path, folder, quality) for quality in (1, 2, 3, 4, 5)}
    nearest = min(sizes, key=lambda quality: abs(sizes[quality] - len(packed)))
    times = in_turn(
        {
            "ours": lambda: jpegs.pack(iterate_frames(path, SHORT_SIDE), QUALITY),
            "ffmpeg": lambda: run_ffmpeg(path, folder, nearest),
        },
        rounds,
    )
    count = jpegs.count(packed)
    rates = {name: count / statistics.median(seconds) for name, seconds in times.items()}
    return rates | {
        "ratio": statistics.median(f / o for o, f in zip(times["ours"], times["ffmpeg"], strict=True)),
        "bytes_ours": len(packed) / count,
        "bytes_ffmpeg": sizes[nearest] / count,
    }


def decord_frames(path: Path, indices: list[int]) -> np.ndarray:
    """uint8 (len(indices), H, W, 3), by decord alone: forward to the last of them, which are in order."""
    reader, wanted, frames = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1), set(indices), {}
    for index in range(indices[-1] + 1):
        frame = reader.next()
        if index in wanted:
            frames[index] = frame.asnumpy()
    return np.stack([frames[index] for index in indices])


def time_clips(path: Path, augmentation: Augmentation, clips: Clips, rounds: int) -> dict:
    """Clips per second from the frame store's records and decoded on the fly, with the same draws."""
    packed = jpegs.pack(iterate_frames(path, None), QUALITY)
    transform, count = TrainTransform(augmentation, 224), jpegs.count(packed)

    def produce(read: Callable[[list[int]], np.ndarray]) -> None:
        for clip in range(CLIPS):
            rng = np.random.default_rng(clip)
            frames = read(train_indices(count, clips, rng).tolist())
            transform(torch.from_numpy(frames).permute(0, 3, 1, 2), rng)

    times = in_turn(
        {
            "store": lambda: produce(lambda indices: jpegs.unpack(packed, indices)),
            "decord": lambda: produce(lambda indices: decord_frames(path, indices)),
        },
        rounds,
    )
    rates = {name: CLIPS / statistics.median(seconds) for name, seconds in times.items()}
    return rates | {"ratio": statistics.median(d / s for s, d in zip(times["store"], times["decord"], strict=True))}


def time_parts(path: Path, rounds: int) -> dict[str, float]:
    """Milliseconds a clip of each part of a training clip."""
    packed = jpegs.pack(iterate_frames(path, None), QUALITY)
    frames = jpegs.unpack(packed, range(0, 32, 4))
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
    planes, rng = clip.contiguous(), np.random.default_rng(0)
    boxes = [crop_box(HEIGHT, WIDTH, (0.08, 1.0), (0.75, 4 / 3), rng) for _ in range(DRAWS)]
    policy = RandAugment.parse("rand-m7-n4-mstd0.5-inc1")
    draws = [policy.draw(rng) for _ in boxes]

    def crops() -> None:
        for top, left, height, width in boxes:
            resize(planes[..., top : top + height, left : left + width], 224, 224)

    def randaugment(wants: list[Box] | list[None]) -> None:
        for changes, want in zip(draws, wants, strict=True):
            changed(clip, changes, want)

    square = resize(planes, 224, 224)
    normal = normalised(channels_first(square))[None]
    erasing = torch.tensor([draw_erasing(224, 224, np.random.default_rng(1))])
    parts = {
        "JPEG to pixels": (lambda: jpegs.unpack(packed, range(0, 32, 4)), 1),
        "crop and resize to 224": (crops, len(boxes)),
        "to float, normalised": (lambda: normalised(channels_first(square)), 1),
        "erase (with probability 1)": (lambda: erase(normal, erasing), 1),
        "RandAugment (m7, n4), pixels that the crop depends on": (lambda: randaugment(boxes), DRAWS),
        "RandAugment (m7, n4), whole frames": (lambda: randaugment([None] * DRAWS), DRAWS),
    }
    parts |= {f"{name}, whole frames": (lambda f=f: f(planes, 0.7, 1.0), 1) for name, f in OPERATIONS.items()}
    times = in_turn({name: function for name, (function, _) in parts.items()}, 3 * rounds)
    return {name: 1000 * statistics.median(times[name]) / count for name, (_, count) in parts.items()}


def extract_whole_shard(path: Path, folder: Path, videos: int) -> dict:
    """A shard by the command line: frames per second of processor time, start included; peak megabytes."""
    shutil.rmtree(folder, ignore_errors=True)
    plain = load_config(ROOT / "config" / "paper.yaml").model_dump(mode="json")
    plain["data_root"] = str(folder)
    plain["datasets"] = {"ucf101": plain["datasets"]["ucf101"]}
    plain["compute"]["data"]["threads"] = 1
    plain["datasets"]["ucf101"]["frames"] |= {"shards": 1, "short_side": SHORT_SIDE, "jpeg_quality": QUALITY}
    config = parse_config(plain, "benchmark")
    manifest = Paths.of(config).manifest("ucf101")
    manifest.parent.mkdir(parents=True)
    row = dict.fromkeys(COLUMNS, 0) | {"path": str(path), "id": str(path)}
    pd.DataFrame([row] * videos).astype(COLUMNS).to_parquet(manifest)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "ssp", "data", "frames", "--config", folder / "config.yaml"]
    found, _ = run([*command, "--dataset", "ucf101", "--shard", 0], folder, {"PYTHONPATH": str(ROOT)})
    return {
        "videos": videos,
        "frames_per_s": videos * FPS * SECONDS / found["processor_s"],
        "peaks_mb": found["peaks_mb"],
        "peak_mb": found["peak_mb"],
    }


def memory(shard: dict) -> str:
    """The peaks of all processes and their sum."""
    return f"{' + '.join(f'{peak:.0f}' for peak in sorted(shard['peaks_mb'])[::-1])} = {shard['peak_mb']:.0f}"


def table(found: dict) -> str:
    """The result as Markdown."""
    box = found["machine"]
    lines = [
        "# The data stage",
        "",
        f"{box['processor']}, {box['cores']} cores shared with other work (load average before: {box['load_before']}): "
        f"all figures are processor time. torch {box['torch']}, one thread. Videos of {SECONDS} s, {WIDTH}x{HEIGHT}, "
        f"{FPS} frames a second, from {found['source']}.",
        "",
        f"Extraction to short side {SHORT_SIDE}, JPEG quality {QUALITY} (target: 0.8); a whole shard of {SHARDS[-1]} "
        "videos includes the start of two Python processes:",
        "",
        "| codec | frames/s | ffmpeg program | ratio | bytes a frame | ffmpeg's | whole shard, frames/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["codecs"].items():
        extraction, shard = row["extraction"], row["shards"][-1]
        if extraction is None:
            lines.append(f"| {name} | not measured: no ffmpeg program here | | | | | {shard['frames_per_s']:.0f} |")
            continue
        lines.append(
            f"| {name} | {extraction['ours']:.0f} | {extraction['ffmpeg']:.0f} | {extraction['ratio']:.2f} | "
            f"{extraction['bytes_ours']:.0f} | {extraction['bytes_ffmpeg']:.0f} | {shard['frames_per_s']:.0f} |"
        )
    lines += [
        "",
        "Training clips of 8 x 224 x 224 per second (target: 5 times as many from the frame store):",
        "",
        "| codec | augmentation | frame store | decord on the fly | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["codecs"].items():
        for augmentation, clips in row["clips"].items():
            lines.append(
                f"| {name} | {augmentation} | {clips['store']:.1f} | {clips['decord']:.1f} | {clips['ratio']:.2f} |"
            )
    lines += ["", "Where the time of a clip goes:", "", "| part | ms a clip |", "|---|---|"]
    lines += [f"| {name} | {ms:.2f} |" for name, ms in found["parts"].items()]
    lines += [
        "",
        "Peak memory of an extraction: the job, its decoding child, Python's tracker of resources:",
        "",
        "| codec | " + " | ".join(f"{videos} videos, MB" for videos in SHARDS) + " |",
        "|---|" + "---|" * len(SHARDS),
    ]
    for name, row in found["codecs"].items():
        lines.append(f"| {name} | " + " | ".join(memory(shard) for shard in row["shards"]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_config(ROOT / "config" / "paper.yaml").datasets["hmdb51"]
    augmentations = {
        "crop, flip, erasing": recipe.recipe.augmentation.model_copy(update={"randaugment": None}),
        "the same after RandAugment (m7, n4)": recipe.recipe.augmentation,
    }
    found = {"machine": machine(1, "cpu"), "source": "a real clip" if REAL.is_file() else "a generated scene"}
    found["codecs"] = {}
    clip = source()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as temporary:
        folder = Path(temporary)
        for name, (codec, suffix, options) in CODECS.items():
            path = encode(folder / f"{codec}.{suffix}", clip, codec, options)
            found["codecs"][name] = {
                "bytes": path.stat().st_size,
                "extraction": time_extraction(path, folder / "jpeg", args.rounds),
                "shards": [extract_whole_shard(path, folder / "shard", videos) for videos in SHARDS],
                "clips": {
                    title: time_clips(path, augmentation, recipe.clips, args.rounds)
                    for title, augmentation in augmentations.items()
                },
            }
        found["parts"] = time_parts(path, args.rounds)
    write("data", found, table(found))


if __name__ == "__main__":
    main()
