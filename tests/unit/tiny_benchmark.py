"""The config of a benchmark as small as it gets: one data set of 50 short videos, a backbone of two narrow blocks."""

from copy import deepcopy
from pathlib import Path

from ssp.config import Config, parse_config

PLAIN = {
    "name": "tiny",
    "title": "Tiny",
    "seeds": [0, 1],
    "backbone": {
        "architecture": {"embed_dim": 16, "depth": 2, "patch_size": 16},
        "image_size": 32,
        "checkpoints": {"f4": {"num_frames": 4}},
    },
    "datasets": {
        "ucf101": {
            "source": "ucf101",
            "expected": {"classes": 10, "train": 30, "test": 20},
            "archives": [{"file": "UCF101.zip"}, {"file": "UCF101TrainTestSplits-RecognitionTask.zip"}],
            "generate": {"seed": 1, "train": 30, "test": 20, "size": [40, 32], "seconds": [1, 1.5], "fps": 8},
            "validation": {"fraction": 0.3},
            "frames": {"shards": 1},
            "clips": {"sampling": "dense", "num_frames": 4, "stride": 2, "test_segments": 2},
            "checkpoint": "f4",
            "recipe": {"epochs": 3, "batch_size": 8, "augmentation": {"scale": [0.5, 1.0], "mixup": 0.8}},
            "start": {"lr": 0.01, "drop_path": 0.1},
        }
    },
    "methods": {
        "linear": {},
        "full": {},
        "vpt": {"options": {"num_prompts": 2}},
        "ssp": {"options": {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}},
    },
    "reference": "ssp",
    "explained": "ssp",
    "sweep": {"trials": 3, "epochs": 2, "space": {"lr": {"low": 0.001, "high": 0.1, "log": True}}},
}


def tiny_config(folder: Path, **changes) -> Config:
    """The config over data in `folder`; changes are "a__b__c=value" for the key a.b.c."""
    plain = deepcopy(PLAIN)
    plain["data_root"] = str(folder)
    plain["datasets"]["ucf101"]["local"] = str(folder / "generated")
    plain["backbone"]["checkpoints"]["f4"]["local"] = str(folder / "backbone.safetensors")
    for keys, value in changes.items():
        *path, last = keys.split("__")
        at = plain
        for key in path:
            at = at.setdefault(key, {})
        at[last] = value
    return parse_config(plain, "tiny")
