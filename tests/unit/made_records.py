"""Records and predictions with known answers, written as a benchmark writes them (real files, real hashes)."""

import hashlib
import io
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssp.config import parse_config, slice_hash
from ssp.paths import Paths
from ssp.records.costs import Clips, Costs, RowCosts, save_costs
from ssp.records.predictions import SCHEMA, merge_views, metrics
from ssp.records.record import (
    Chosen,
    Git,
    Metrics,
    Parameters,
    PredictionsFile,
    Record,
    Run,
    Scan,
    SweepSummary,
    save_record,
)

PARAMETERS = {
    "ssp": Parameters(total=210_000, trainable=30_064, extra=29_350, head=650),
    "vpt": Parameters(total=190_000, trainable=9_064, extra=8_350, head=650),
    "full": Parameters(total=181_000, trainable=181_000, extra=0, head=650),
    "linear": Parameters(total=181_000, trainable=714, extra=0, head=650),
    "bitfit": Parameters(total=182_000, trainable=2_714, extra=1_000, head=650),
}


def make_config(
    datasets=("hmdb51", "ucf101", "ssv2", "breakfast"),
    methods=("ssp", "vpt", "full", "linear"),
    seeds=(0, 1),
    **changes,
):
    """A complete demo config without files behind it."""
    dataset = {
        "expected": {"classes": 6, "train": 20, "test": 40},
        "archives": [{"file": "videos.zip"}],
        "generate": {"seed": 1, "train": 20, "test": 40, "size": [32, 32], "seconds": [1, 2], "fps": 10},
        "frames": {"shards": 1},
        "clips": {"sampling": "sparse", "num_frames": 8},
        "checkpoint": "tiny",
        "recipe": {"epochs": 1, "batch_size": 4},
        "start": {"lr": 0.01},
    }
    config = {
        "name": "tried",
        "title": "Tried & tested: generated videos, small backbone",
        "data_root": "data",
        "seeds": list(seeds),
        "backbone": {
            "architecture": {"embed_dim": 64, "depth": 4},
            "image_size": 32,
            "checkpoints": {"tiny": {"num_frames": 8, "local": "tiny.safetensors"}},
        },
        "datasets": {name: dataset | {"source": name} for name in datasets},
        "methods": {name: {"title": name} for name in methods},
        "reference": "ssp" if "ssp" in methods else None,
        "explained": "ssp" if "ssp" in methods else None,
        "sweep": {"trials": 6},
    }
    return parse_config(config | changes, "made.yaml")


def predictions(hits, per_group=5, views=2, classes=6, name="v{:04}.avi"):
    """Predictions of len(hits) videos in groups of `per_group`; a hit has its label's logit highest, in every view."""
    rng = np.random.default_rng(len(hits))
    rows = []
    for i, hit in enumerate(hits):
        label = i % classes
        for view in range(views):
            logits = rng.normal(0, 0.1, classes)
            logits[label if hit else (label + 1) % classes] += 5
            rows.append((name.format(i), f"g{i // per_group:03}", label, view, logits.astype(np.float32)))
    return pd.DataFrame(rows, columns=SCHEMA.names)


@cache  # many tests write the same ones
def tested(hits, name):
    """The predictions file of these hits, as bytes, and its metrics."""
    made = predictions(hits, name=name) if hits else SCHEMA.empty_table().to_pandas()
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(made, schema=SCHEMA) if hits else SCHEMA.empty_table(), file)
    return file.getvalue(), metrics(merge_views(made))


def write_cell(config, dataset, method, seed, hits=None, reason=None, name="v{:04}.avi", **changes):
    """One record with its predictions file: the given hits and misses, or a failure with a reason."""
    paths = Paths.of(config)
    file = paths.predictions(dataset, method, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    content, found = tested(() if reason else tuple(hits), name)
    file.write_bytes(content)
    measured = None if reason else Metrics(**found, val_top1=50.0, val_loss=1.0)
    cell = config.cell_slice(dataset, method)
    fields = {
        "status": "failed" if reason else "ok",
        "reason": reason,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "config": cell,
        "config_hash": slice_hash(cell),
        "hyperparameters": Chosen(lr=0.01, weight_decay=0.05, drop_path=0.0),
        "sweep": SweepSummary(trials=6, completed=5, pruned=1, failed=0, best_value=61.0),
        "git": Git(commit="0" * 40, dirty=False),
        "versions": {"python": "3.11"},
        "device": "cpu",
        "scan": Scan(backend="chunked", reason="made for a test"),
        "manifest_hash": f"manifest of {dataset}",
        "epochs": 1,
        "parameters": PARAMETERS[config.rows[method].method],
        "metrics": measured,
        "predictions": PredictionsFile(path=str(file), sha256=hashlib.sha256(content).hexdigest()),
        "test_readings": 0 if reason else 1,
        "run": Run(started="2000-01-01T00:00:00Z", seconds=1.0, host="here", peak_memory_mb=1.0),
    }
    save_record(Record(**(fields | changes)), paths.record(dataset, method, seed))
    if not paths.costs.exists():
        write_costs(config)


TIMES = {"linear": 1.0, "bitfit": 1.2, "vpt": 1.5, "ssp": 2.0, "full": 3.0}  # of a step, in units of a linear probe's


def costs_of(method, options=None, **changes):
    """Costs of a row in round numbers: each round is slower than the one before, and no ratio is."""
    times, counts = TIMES[method], PARAMETERS[method]
    fields = {
        "method": method,
        "options": options or {},
        "parameters": counts.model_copy(update={"tuned": counts.trainable - 714}),
        "flops": int(10e9 * times),
        "saved_bytes": int(1e6 * times),
        "memory_bytes": int(200e6 * times),
        "step_seconds": [0.2 * times, 0.3 * times, 0.7 * times],
        "inference_seconds": [0.01, 0.02, 0.03],
    }
    return RowCosts(**(fields | changes))


def write_costs(config, rows=None, **changes):
    """The costs of a config's rows, or of other rows in place of some; a probe besides where no row is one."""
    made = {name: costs_of(config.rows[name].method, config.rows[name].options) for name in config.methods}
    made |= rows or {}
    plain = config.costs_slice()
    fields = {
        "config": plain,
        "config_hash": slice_hash(plain),
        "clips": Clips(frames=8, image_size=32, classes=6, videos=4, at_once=4, repeats=1, inference=8),
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
        "scan": Scan(backend="chunked", reason="made for a test"),
        "git": Git(commit="0" * 40, dirty=False),
        "versions": {"python": "3.11"},
        "rows": made,
        "probe": None if any(row.method == "linear" for row in made.values()) else costs_of("linear"),
        "started": "2000-01-01T00:00:00Z",
        "seconds": 1.0,
        "host": "here",
    }
    save_costs(config, Costs(**(fields | changes)))


def hits_of(share, videos=200, seed=0):
    """Exactly `share` of the videos right, scattered over them."""
    hits = np.zeros(videos, dtype=bool)
    hits[np.random.default_rng(seed).permutation(videos)[: round(share * videos)]] = True
    return hits


SHARES = {"ssp": 0.62, "vpt": 0.5, "full": 0.71, "linear": 0.42}


def write_all(config, manifests=None):
    """Records of a whole config: the methods' shares, plus two points a seed, plus four points a data set.

    `manifests` are hashes by data set, where there are real ones.
    """
    for d, dataset in enumerate(config.datasets):
        made = {"manifest_hash": manifests[dataset]} if manifests else {}
        for method in config.methods:
            for s, seed in enumerate(config.seeds):
                write_cell(config, dataset, method, seed, hits_of(SHARES[method] + 0.02 * s + 0.04 * d, seed=d), **made)
