"""What JPEG in the frame store costs a model: logits and bytes at several qualities, against frames kept without loss.

- Real clips: windows of eight consecutive frames of the videos in ../shared/videos, one class a video, 224 pixels, a
  VideoMamba-Ti. Its weights are seeded, not trained (the published ones are not part of this repository), so it stands
  for how a network of this kind passes a perturbation of its pixels on.
- Generated clips: held-out source classes of the demo at its size (32 pixels), with the demo's pre-trained backbone,
  where a demo has been run.
- The head is a ridge classifier, fitted in closed form on lossless features of other clips. Changes of logits are
  relative to the spread of the lossless logits; a flip is another predicted class.

Usage: python benchmarks/jpeg_quality.py [--threads 1] [--weights results/demo/backbone/source_f8.safetensors]
Writes benchmarks/results/jpeg_quality.md and jpeg_quality.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scan import machine, write

from ssp.backbone.checkpoint import load_weights
from ssp.config import load_config
from ssp.data import VideoError, jpegs, read_frames
from ssp.data.augment import validation_view
from ssp.data.synthetic import source
from ssp.data.video import probe
from ssp.methods.build import build_model

ROOT = Path(__file__).resolve().parent.parent
QUALITIES = (50, 75, 85, 90, 95, 98, 100)
VIDEOS = ROOT.parent / "shared" / "videos"
WINDOWS = 16  # of a real video: every other one fits the head, the rest are measured
FRAMES = 8


def real_clips() -> tuple[list[np.ndarray], np.ndarray]:
    """Windows of the real videos, uint8 (8, H, W, 3), and the number of the video."""
    clips, labels = [], []
    for number, path in enumerate(sorted(VIDEOS.iterdir())):
        try:
            frames = probe(path).frames
            starts = np.linspace(0, frames - FRAMES, WINDOWS).astype(int)
            clips += [read_frames(path, range(start, start + FRAMES), short_side=240) for start in starts]
        except (VideoError, IndexError):
            continue  # broken on purpose, or shorter than a window
        labels += [number] * WINDOWS
    return clips, np.unique(labels, return_inverse=True)[1]


def generated_clips(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Held-out clips of the demo's pre-training, uint8 (8, 32, 32, 3), and their classes."""
    drawn = [source.source_clip(100, True, i, frames=FRAMES, image_size=32) for i in range(count)]
    return [clip for clip, _ in drawn], np.array([label for _, label in drawn])


@torch.no_grad()
def features(model: torch.nn.Module, clips: list[np.ndarray], size: int) -> np.ndarray:
    """What the head sees: float64 (clips, D)."""
    rows = []
    for clip in clips:
        view = validation_view(torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2), size)
        rows.append(model(view[None])[0].double().numpy())
    return np.stack(rows)


def measure(model: torch.nn.Module, clips: list[np.ndarray], labels: np.ndarray, size: int, fit: np.ndarray) -> dict:
    """Fit a head on the clips `fit`, then compare qualities on the others."""
    model.head = torch.nn.Identity()
    model.eval()
    lossless = features(model, clips, size)
    mean, spread = lossless[fit].mean(0), lossless[fit].std(0) + 1e-6
    design = (lossless - mean) / spread
    targets = np.eye(labels.max() + 1)[labels]
    x = design[fit]
    head = np.linalg.solve(x.T @ x + 0.01 * len(x) * np.eye(x.shape[1]), x.T @ (targets[fit] - targets[fit].mean(0)))
    shown = np.flatnonzero(~fit)
    logits = design[shown] @ head
    scale = logits.std()
    found = {"clips": len(shown), "accuracy": 100 * float((logits.argmax(1) == labels[shown]).mean()), "rows": []}
    for quality in QUALITIES:
        packed = [jpegs.pack(clips[i], quality) for i in shown]
        stored = [jpegs.unpack(record, range(FRAMES)) for record in packed]
        changed = ((features(model, stored, size) - mean) / spread) @ head
        difference = np.abs(changed - logits) / scale
        found["rows"].append(
            {
                "quality": quality,
                "bytes_a_frame": float(np.mean([len(record) / FRAMES for record in packed])),
                "raw_share": float(np.mean([len(r) / clips[i].nbytes for r, i in zip(packed, shown, strict=True)])),
                "grey_levels": float(
                    np.mean([np.abs(s.astype(int) - clips[i]).mean() for s, i in zip(stored, shown, strict=True)])
                ),
                "mean_change": float(difference.mean()),
                "max_change": float(difference.max()),
                "flips": int((changed.argmax(1) != logits.argmax(1)).sum()),
            }
        )
    return found


def table(found: dict) -> str:
    """The result as Markdown."""
    lines = ["# JPEG quality of the frame store", ""]
    for name, result in found["models"].items():
        lines += [
            f"{name}: {result['clips']} clips, {result['accuracy']:.0f} % right without loss.",
            "",
            "| quality | bytes a frame | of raw | grey levels off | logits change, mean | largest | flips |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            lines.append(
                f"| {row['quality']} | {row['bytes_a_frame']:.0f} | {100 * row['raw_share']:.0f} % | "
                f"{row['grey_levels']:.2f} | {row['mean_change']:.4f} | {row['max_change']:.3f} | "
                f"{row['flips']} of {result['clips']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--weights", type=Path, default=ROOT / "results" / "demo" / "backbone" / "source_f8.safetensors"
    )
    parser.add_argument("--generated", type=int, default=2048, help="generated clips; half of them fit the head")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = {}
    if args.weights.is_file():
        demo = load_config(ROOT / "config" / "demo.yaml").backbone
        model = build_model(demo.architecture, "linear", 2, num_frames=FRAMES, img_size=demo.image_size)
        load_weights(model, args.weights)
        clips, labels = generated_clips(args.generated)
        fit = np.arange(len(clips)) < len(clips) // 2
        models["Generated clips, the demo's pre-trained backbone, 32 pixels"] = measure(
            model, clips, labels, demo.image_size, fit
        )
    else:
        print(f"no {args.weights}: run the demo for the part with its pre-trained backbone", file=sys.stderr)
    if VIDEOS.is_dir():
        torch.manual_seed(0)
        model = build_model("videomamba_tiny", "linear", 2, num_frames=FRAMES)
        clips, labels = real_clips()
        fit = np.arange(len(clips)) % 2 == 0
        models["Real clips (short side 240), VideoMamba-Ti with seeded weights, 224 pixels"] = measure(
            model, clips, labels, 224, fit
        )
    else:
        print(f"no {VIDEOS}: no real clips to measure on", file=sys.stderr)
    if models:
        found = {"machine": machine(args.threads, "cpu"), "models": models}
        write("jpeg_quality", found, table(found))


if __name__ == "__main__":
    main()
