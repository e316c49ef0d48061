"""Do the demo's tasks measure what they should? Linear probe and full fine-tuning on seeds that no table uses.

- Shows, per generated data set: accuracy of both; accuracy of the fully tuned model with the frames of each test clip
  shuffled; of a fully tuned model that sees one frame, whichever of the clip; and, where classes come in time-reversed
  pairs, how often each picks the right one of the two (1/2 is a coin). 95 % intervals are those of
  `ssp.tables.stats`.
- The difficulty of the tasks (ssp/data/synthetic/scenes.py) was set with this script, hence with these two methods
  alone. SSP and VPT are never run here.
- Seeds of data sets, training and backbone differ from the demo's by `--shift`; sizes and recipe are the demo's. Clips
  go through the real encoder and decoder and the demo's own sampling, augmentation and training loop, without files.
- Learning rates are fixed: nothing is chosen, so nothing is over-fitted.

Usage: python benchmarks/demo_difficulty.py [--config config/demo.yaml] [--datasets ssv2 ...] [--backbone FILE]
Without --backbone one is pre-trained first (minutes). Writes benchmarks/results/demo_difficulty.md and .json, unless
only some of the data sets are asked for.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from scan import machine, write
from torch.utils.data import Dataset

from ssp.backbone.checkpoint import load_weights
from ssp.config import Clips, Config, load_config
from ssp.data.clips import ClipDataset
from ssp.data.synthetic.archives import frames_of
from ssp.data.synthetic.encode import encode
from ssp.data.synthetic.plans import Plan, plan
from ssp.data.validation import carve
from ssp.jobs.pretrain import run_pretrain
from ssp.methods.build import build_model
from ssp.records.predictions import merge_views
from ssp.records.record import Chosen
from ssp.tables.stats import intervals, tally
from ssp.training.evaluate import predict
from ssp.training.execution import Execution, derive_seed
from ssp.training.loop import fit

LEARNING_RATES = {"linear": 3e-2, "full": 3e-3}
PAIRED = ("ssv2", "breakfast")  # classes 2k and 2k + 1: the same, the other way round


class Memory:
    """Stands in for the frame store: decoded frames by row."""

    def __init__(self, source: str, generate, content: Plan) -> None:
        self.clips = []
        for clip in content.clips:
            data = encode(frames_of(source, generate, clip), generate.fps, content.form, clip.fullness)
            with av.open(io.BytesIO(data)) as container:
                self.clips.append(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))

    def length(self, row: int) -> int:
        """Frames of a video."""
        return len(self.clips[row])

    def read(self, row: int, indices: list[int]) -> np.ndarray:
        """uint8 (n, H, W, 3)."""
        return self.clips[row][indices]


class Shuffled(Dataset):
    """The clips of a data set with their frames in random order, and again in the reverse of that order.

    Twice, because a random order may happen to be more forwards than backwards: over the two that evens out.
    """

    def __init__(self, clips: Dataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return 2 * len(self.clips)

    def __getitem__(self, index: int):
        clip, *rest, _ = self.clips[index // 2]
        order = np.random.default_rng((17, index // 2)).permutation(clip.shape[1])
        return clip[:, order[::-1].copy() if index % 2 else order], *rest, index % 2


class Frames(Dataset):
    """The frames of the clips of a data set, one by one."""

    def __init__(self, clips: Dataset, frames: int) -> None:
        self.clips, self.frames = clips, frames

    def __len__(self) -> int:
        return self.frames * len(self.clips)

    def __getitem__(self, index: int):
        video, frame = divmod(index, self.frames)
        clip, *rest, _ = self.clips[video]
        return clip[:, [frame]], *rest, frame


def shifted(config: Config, shift: int) -> Config:
    """The config with other seeds for data, backbone and training."""
    data = config.model_dump()
    for dataset in data["datasets"].values():
        dataset["generate"]["seed"] += shift
    for checkpoint in data["backbone"]["checkpoints"].values():
        checkpoint["pretrain"]["seed"] += shift
    data["seeds"] = [seed + shift for seed in data["seeds"]]
    return Config.model_validate(data)


def table_of(content: Plan) -> pd.DataFrame:
    """The plan as rows of a manifest."""
    rows = pd.DataFrame({"id": c.path, "label": c.label, "group": c.group, "split": c.split} for c in content.clips)
    return rows.assign(row=np.arange(len(rows)))


def measure(config: Config, name: str, backbone: Path, execution: Execution, seeds: list[int]) -> list[dict]:
    """All figures of one data set: rows of (dataset, kind, seed, CPU seconds, accuracy, ...)."""
    dataset = config.datasets[name]
    content = plan(dataset.source, dataset.generate)
    store, rows = Memory(dataset.source, dataset.generate, content), table_of(content)
    learning = rows[rows["split"] == "train"].reset_index(drop=True)
    held = carve(
        learning["label"].to_numpy(), learning["group"].to_numpy(), dataset.validation.fraction, dataset.validation.seed
    )
    split = {
        "train": learning[~held].reset_index(drop=True),
        "val": learning[held].reset_index(drop=True),
        "test": rows[rows["split"] == "test"].reset_index(drop=True),
    }
    single = Clips(sampling="sparse", num_frames=1)
    found: list[dict] = []
    merged: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for seed in seeds:
        for method, clips, kind in (
            ("linear", dataset.clips, "linear"),
            ("full", dataset.clips, "full"),
            ("full", single, "full, one frame"),
        ):
            started = time.process_time()
            torch.manual_seed(derive_seed(seed, "weights"))
            model = build_model(
                config.backbone.architecture,
                method,
                dataset.expected.classes,
                num_frames=clips.num_frames,
                img_size=config.backbone.image_size,
            )
            load_weights(model, backbone)
            make = {"store": store, "clips": clips, "image_size": config.backbone.image_size, "seed": seed}
            train = ClipDataset(split["train"], mode="train", augmentation=dataset.recipe.augmentation, **make)
            val = ClipDataset(split["val"], mode="val", **make)
            test = ClipDataset(split["test"], mode="test", **make | {"clips": dataset.clips})
            chosen = Chosen(lr=LEARNING_RATES[method], weight_decay=dataset.start.weight_decay, drop_path=0.0)
            for _ in fit(model, train, val, recipe=dataset.recipe, chosen=chosen, seed=seed, execution=execution):
                pass
            trained = time.process_time() - started
            tests = {kind: Frames(test, dataset.clips.num_frames) if clips is single else test}
            if kind == "full":
                tests["full, frames shuffled"] = Shuffled(test)
            for label, clips_to_test in tests.items():
                predictions = predict(model, clips_to_test, split["test"], batch_size=32, execution=execution)
                about = {"dataset": name, "kind": label, "seed": seed, "seconds": trained}
                found.append(about | score(predictions))
                merged[label].append(merge_views(predictions))
            print(pd.DataFrame(found[-len(tests) :]).round(1).to_string(header=False), file=sys.stderr, flush=True)
    # The interval of a cell is that of the mean over its seeds, as in the benchmark's tables.
    found_of = intervals([[tally(dict(enumerate(seeds_of)))] for seeds_of in merged.values()])
    halves = {kind: interval.half_width for kind, interval in zip(merged, found_of, strict=True)}
    return [row | {"half_width": halves[row["kind"]]} for row in found]


def score(predictions: pd.DataFrame) -> dict[str, float]:
    """Accuracy in percent over all classes, and within the pair (2k, 2k + 1) of the true class."""
    labels, logits = predictions["label"].to_numpy(), np.stack(predictions["logits"].to_list())
    partner, rows = labels ^ 1, np.arange(len(labels))
    within = np.nan
    if logits.shape[1] % 2 == 0:
        within = 100 * (logits[rows, labels] > logits[rows, partner]).mean()
    top1 = 100 * (logits.argmax(1) == labels).mean()
    return {"videos": predictions["id"].nunique(), "top1": top1, "within": within}


def report(found: pd.DataFrame) -> str:
    """The table, in Markdown, and what the targets are about."""
    mean = found.groupby(["dataset", "kind"], sort=False)[["videos", "top1", "half_width", "within", "seconds"]].mean()
    lines = ["| data set | model | top-1 | 95 % half-width | within pairs | coin + 2 s.e. | CPU s a training |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (dataset, kind), row in mean.iterrows():
        videos, half = row["videos"], row["half_width"]
        paired = dataset in PAIRED
        within = f"{row['within']:.1f} | {50 + 100 / np.sqrt(videos):.1f}" if paired else "- | -"
        seconds = "" if "shuffled" in kind else f"{row['seconds']:.0f}"
        lines.append(f"| {dataset} | {kind} | {row['top1']:.1f} | {half:.1f} | {within} | {seconds} |")
    lines.append("")
    top = mean["top1"].unstack("kind")
    gaps = (top["full"] - top["linear"]).round(1)
    cells = found[found["kind"].isin(["linear", "full"])]
    lines.append(f"- full minus linear: {gaps.to_dict()}; at least 10 on {int((gaps >= 10).sum())} of {len(gaps)}")
    lines.append(f"- widest 95 % interval of a cell: {cells['half_width'].max():.1f} points to either side")
    lines.append(f"- lowest and highest cell: {cells['top1'].min():.1f} and {cells['top1'].max():.1f}")
    if "ssv2" in top.index:
        worst = found[(found["dataset"] == "ssv2") & found["kind"].isin(["full, frames shuffled", "full, one frame"])]
        limit = 50 + 100 / np.sqrt(worst["videos"].iloc[0])
        lines.append(f"- ssv2, within pairs without order, worst: {worst['within'].max():.1f} (limit {limit:.1f})")
    if "breakfast" in top.index:
        lost = top.loc["breakfast", "full"] - top.loc["breakfast", "full, frames shuffled"]
        lines.append(f"- breakfast, lost by shuffling: {lost:.1f} points")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/demo.yaml"))
    parser.add_argument("--datasets", nargs="*", help="default: all of the config")
    parser.add_argument("--backbone", type=Path, help="weights from an earlier run; default: pre-train now")
    parser.add_argument("--shift", type=int, default=1000, help="added to all seeds of the config")
    parser.add_argument("--seeds", type=int, default=2, help="how many training seeds")
    parser.add_argument("--keep", type=Path, help="folder that keeps the backbone and the raw figures")
    args = parser.parse_args()
    if args.shift == 0:
        parser.error("--shift 0 would tune the tasks on the seeds of the table")
    config = shifted(load_config(args.config), args.shift)
    keep = (args.keep or Path(tempfile.mkdtemp(prefix="difficulty-"))).absolute()
    keep.mkdir(parents=True, exist_ok=True)
    backbone = args.backbone and args.backbone.absolute()
    os.chdir(keep)
    if backbone is None:
        (name,) = config.backbone.checkpoints
        backbone = run_pretrain(config, name).absolute()
        print(backbone.with_suffix(".json").read_text(), file=sys.stderr)
    execution = Execution.of(config.compute, "train", "float32")
    seeds = [config.seeds[0] + i for i in range(args.seeds)]
    found = []
    for name in args.datasets or config.datasets:
        found += measure(config, name, backbone, execution, seeds)
        pd.DataFrame(found).to_csv("difficulty.csv", index=False)
    text = report(pd.DataFrame(found))
    if args.datasets:
        print(text)
        return
    box = machine(torch.get_num_threads(), "process")
    settings = {"config": str(args.config), "shift": args.shift, "seeds": seeds, "learning_rates": LEARNING_RATES}
    title = (
        f"# Do the demo's tasks measure what they should?\n\nGenerated data and training seeds that differ from the "
        f"demo's by {args.shift}; linear probe and full fine-tuning alone, mean of {len(seeds)} seeds; "
        f"{box['processor']}.\n\n"
    )
    write("demo_difficulty", {"machine": box, "settings": settings, "rows": found}, title + text + "\n")


if __name__ == "__main__":
    main()
