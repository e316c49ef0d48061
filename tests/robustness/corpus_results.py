"""Broken weights, choices, records, predictions and stores of studies and runs."""

import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from tests.robustness.bench import CELL, Bench
from tests.robustness.corpus import STUDY, SWEEP, TABLES, Case, removed, setting, truncated, written

SSP_CELL = "--dataset ucf101 --method ssp"
SSP_SWEEP = f"sweep {SSP_CELL}"
TRAIN = f"train {CELL} --seed 0"
EVALUATE = f"evaluate {CELL} --seed 0"
RECORD = "results/tiny/records/ucf101/linear/seed0.json"
PREDICTIONS = "results/tiny/predictions/ucf101/linear/seed0.parquet"
WEIGHTS = "results/tiny/weights/ucf101/linear/seed0.safetensors"
READINGS = "results/tiny/readings/ucf101/linear/seed0.jsonl"
COSTS = "results/tiny/costs.json"
CHOICE = "results/tiny/sweeps/ucf101/linear.json"
JOURNAL = "results/tiny/state/sweeps/ucf101/linear.journal"
READY = "results/tiny/mlflow/ready.json"


# -- checkpoints -----------------------------------------------------------------------------------------------------


class _Code:
    """A pickle that writes a file when it is read."""

    def __reduce__(self) -> tuple:
        return open, ("code-has-run", "w")


def _state(bench: Bench) -> dict[str, torch.Tensor]:
    return load_file(bench / "backbone.safetensors")


def _pth(content: Callable[[Bench], Any], *, torch_format: bool = True) -> Callable[[Bench], object]:
    """The backbone as a PyTorch file of some content."""

    def damage(bench: Bench) -> None:
        bench.configure("backbone.checkpoints.f4.local", "backbone.pth")
        if torch_format:
            torch.save(content(bench), bench / "backbone.pth")
        else:
            (bench / "backbone.pth").write_bytes(pickle.dumps(content(bench)))

    return damage


def _changed(change: Callable[[dict], Any]) -> Callable[[Bench], object]:
    """The backbone with a changed state dict."""

    def damage(bench: Bench) -> None:
        state = _state(bench)
        change(state)
        save_file(state, bench / "backbone.safetensors")

    return damage


def _cut_pth(bench: Bench) -> None:
    _pth(_state)(bench)
    bench.truncate("backbone.pth", 0.7)


def _part_of_ssp(state: dict) -> None:
    """Two of the method's own tensors: neither a bare backbone nor a tuned one."""
    from ssp.methods.build import build_model

    options = {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}
    architecture = {"embed_dim": 16, "depth": 2, "patch_size": 16}
    model = build_model(architecture, "ssp", 5, num_frames=4, img_size=32, method_options=options)
    parameters = dict(model.named_parameters())
    for name in sorted(model.added)[:2]:
        state[name] = parameters[name].detach().clone()


def checkpoint(name: str, damage: Callable[[Bench], object], *says: str) -> Case:
    """A backbone that no sweep starts from."""
    return Case(f"checkpoint: {name}", damage, SSP_SWEEP, says, STUDY)


def tuned(name: str, damage: Callable[[Bench], object], *says: str) -> Case:
    """Tuned weights that are not used."""
    return Case(f"weights: {name}", damage, EVALUATE, ("seed0.safetensors", *says))


CHECKPOINTS = [
    checkpoint("runs code", _pth(lambda b: {"model": _Code()}), "backbone.pth: refused", "run code"),
    checkpoint("pickle that runs code", _pth(lambda b: _Code(), torch_format=False), "backbone.pth: refused"),
    checkpoint("pth cut off", _cut_pth, "backbone.pth: not a readable checkpoint"),
    checkpoint("pth of text", lambda b: (_pth(_state)(b), written("backbone.pth", "x" * 99)(b)), "not a readable"),
    checkpoint("a list of tensors", _pth(lambda b: list(_state(b).values())), "backbone.pth: holds a list"),
    checkpoint("a dict of numbers", _pth(lambda b: {"a": 1}), "backbone.pth: 'a' (int) is no tensor"),
    checkpoint("safetensors cut off", truncated("backbone.safetensors"), "backbone.safetensors: not a readable"),
    checkpoint("safetensors of text", written("backbone.safetensors", "no weights"), "backbone.safetensors: not a"),
    checkpoint("empty file", written("backbone.safetensors", ""), "backbone.safetensors: not a readable"),
    checkpoint("missing file", removed("backbone.safetensors"), "backbone.safetensors: no such file"),
    checkpoint("missing key", _changed(lambda s: s.pop("layers.1.mixer.A_log")), "missing layers.1.mixer.A_log"),
    checkpoint("unknown key", _changed(lambda s: s.update(bonus=torch.ones(3))), "unexpected bonus"),
    checkpoint(
        "misshapen",
        _changed(lambda s: s.update({"patch_embed.proj.bias": torch.ones(3)})),
        "misshapen patch_embed.proj.bias (3,) instead of (16,)",
    ),
    checkpoint("a part of the method's keys", _changed(_part_of_ssp), "backbone.safetensors: does not fit", "missing"),
    # A file that was swapped and kept its time: Snakemake does not see it.
    Case(
        "checkpoint: another one since the sweep",
        _changed(lambda s: s.update({name: 2 * tensor for name, tensor in s.items()})),
        TRAIN,
        ("sweeps/ucf101/linear.json: was chosen with other weights than backbone.safetensors", "ssp sweep --config"),
    ),
    Case(
        "checkpoint: nothing to fetch",
        lambda bench: None,
        "fetch-weights --checkpoint f4",
        ("backbone.checkpoints.f4 has no archive to fetch",),
        heals=False,
    ),
    Case(
        "checkpoint: nothing to pre-train",
        lambda bench: None,
        "pretrain --checkpoint f4",
        ("backbone.checkpoints.f4: nothing to pre-train",),
        heals=False,
    ),
    tuned("cut off", truncated(WEIGHTS), "not a readable checkpoint"),
    tuned("missing", removed(WEIGHTS), "no such file"),
    tuned(
        "another method's",
        lambda b: written(WEIGHTS, (b / WEIGHTS.replace("linear", "ssp")).read_bytes())(b),
        "was tuned with method 'ssp', this model has 'linear'",
    ),
    tuned("not from here", lambda b: save_file({"a": torch.ones(1)}, b / WEIGHTS), "no tuned weights of this software"),
]


# -- choices, records, predictions -----------------------------------------------------------------------------------


def _json(path: str, change: Callable[[dict], Any]) -> Callable[[Bench], object]:
    """A JSON file with a change."""

    def damage(bench: Bench) -> None:
        plain = json.loads((bench / path).read_text())
        change(plain)
        written(path, json.dumps(plain))(bench)

    return damage


def _predictions_without(column: str) -> Callable[[Bench], object]:
    def damage(bench: Bench) -> None:
        table = pq.read_table(bench / PREDICTIONS).drop_columns(column)
        pq.write_table(table, bench / PREDICTIONS)

    return damage


def _edited_predictions(change: Callable[[Any], Any], *, sign: bool) -> Callable[[Bench], object]:
    """Another content, with or without the record's consent."""

    def damage(bench: Bench) -> None:
        import pyarrow as pa

        table = pq.read_table(bench / PREDICTIONS)
        changed = pa.Table.from_pandas(change(table.to_pandas()), schema=table.schema, preserve_index=False)
        pq.write_table(changed, bench / PREDICTIONS)
        digest = hashlib.sha256((bench / PREDICTIONS).read_bytes()).hexdigest()
        if sign:
            _json(RECORD, lambda record: record["predictions"].update(sha256=digest))(bench)

    return damage


def _all_right(rows: Any) -> Any:
    """Every view's highest logit moved to its label."""
    return rows.assign(
        logits=[
            [100.0 if i == label else 0.0 for i in range(len(logits))]
            for label, logits in zip(rows["label"], rows["logits"], strict=True)
        ]
    )


def record(name: str, damage: Callable[[Bench], object], *says: str) -> Case:
    """A record or predictions file that no table is made from."""
    return Case(f"record: {name}", damage, TABLES, says)


RECORDS = [
    record("not JSON", written(RECORD, "{"), "linear/seed0.json: not a valid record"),
    record("cut off", truncated(RECORD), "linear/seed0.json: not a valid record"),
    record("empty", written(RECORD, ""), "linear/seed0.json: not a valid record"),
    record("not text", written(RECORD, b"\xff\xfe\x00\x01"), "linear/seed0.json: not a valid record"),
    record("a list", written(RECORD, "[]"), "linear/seed0.json: not a valid record"),
    record("missing", removed(RECORD), "linear/seed0.json: missing", "ssp train"),
    record("unknown key", _json(RECORD, lambda r: r.update(luck=7)), "linear/seed0.json", "luck"),
    record("wrong type", _json(RECORD, lambda r: r["metrics"].update(correct="x")), "seed0.json", "metrics.correct"),
    record("of the future", _json(RECORD, lambda r: r.update(schema_version=2)), "seed0.json", "schema_version"),
    record("no metrics", _json(RECORD, lambda r: r.update(metrics=None)), "seed0.json", "status ok needs metrics"),
    record("stale hash", _json(RECORD, lambda r: r.update(config_hash="0" * 16)), "linear/seed0.json: stale"),
    record(
        "stale config",
        setting("datasets.ucf101.recipe.label_smoothing", 0.3),
        "linear/seed0.json: stale",
        "label_smoothing",
    ),
    record(
        "of another seed", _json(RECORD, lambda r: r.update(seed=1)), "linear/seed0.json: holds ucf101/linear/seed1"
    ),
    record(
        "of another manifest", _json(RECORD, lambda r: r.update(manifest_hash="0" * 16)), "made from another manifest"
    ),
    record(
        "of another backbone",
        _json(RECORD, lambda r: r.update(backbone_hash="0" * 16)),
        "made from another file of the backbone",
    ),
    record("predictions missing", removed(PREDICTIONS), "linear/seed0.parquet: missing"),
    record("predictions cut off", truncated(PREDICTIONS), "linear/seed0.parquet: not a Parquet file"),
    record("predictions of text", written(PREDICTIONS, "no"), "linear/seed0.parquet: not a Parquet file"),
    record("predictions without a column", _predictions_without("label"), "linear/seed0.parquet: no column label"),
    record(
        "wrong predictions hash",
        _edited_predictions(_all_right, sign=False),
        "linear/seed0.parquet: not the file that its record was made from",
    ),
    record(
        "predictions that contradict it",
        _edited_predictions(_all_right, sign=True),
        "linear/seed0.parquet: top1 is 100, but the record says",
    ),
    record(
        "a view twice",
        _edited_predictions(lambda rows: rows.assign(view=0), sign=True),
        "linear/seed0.parquet",
        "is there twice",
    ),
    record(
        "a label outside",
        _edited_predictions(lambda rows: rows.assign(label=99), sign=True),
        "linear/seed0.parquet",
        "outside the 10 classes",
    ),
    *(
        Case(f"costs: {name}", damage, TABLES, ("results/tiny/costs.json", *says))
        for name, damage, *says in (
            ("not JSON", written(COSTS, "{"), "not a valid record of costs"),
            ("cut off", truncated(COSTS), "not a valid record of costs"),
            ("missing", removed(COSTS), "no such record of costs", "ssp costs"),
            ("stale hash", _json(COSTS, lambda c: c.update(config_hash="0" * 16)), "stale", "ssp costs"),
            ("without a row", _json(COSTS, lambda c: c["rows"].pop("ssp")), "stale", "ssp costs"),
            ("without a linear probe", _json(COSTS, lambda c: c["rows"].pop("linear")), "no row is a linear probe"),
            ("without memory", _json(COSTS, lambda c: c["rows"]["ssp"].update(memory_bytes=None)), "rows.ssp"),
            ("no time at all", _json(COSTS, lambda c: c["rows"]["ssp"].update(step_seconds=[0.0])), "step_seconds"),
            (
                "a round without a row",
                _json(COSTS, lambda c: c["rows"]["ssp"]["step_seconds"].pop()),
                "rows differ in the number of step_seconds",
            ),
        )
    ),
    *(
        Case(
            f"readings: text, met by {command.split()[0]}",
            written(READINGS, "no"),
            command,
            ("readings/ucf101/linear/seed0.jsonl: not a list of readings of test",),
        )
        for command in (TRAIN, EVALUATE)
    ),
    Case("choice: not JSON", written(CHOICE, "{"), TRAIN, ("sweeps/ucf101/linear.json: not a valid sweep choice",)),
    Case("choice: missing", removed(CHOICE), TRAIN, ("linear.json", "--dataset ucf101 --method linear")),
    Case("choice: unknown key", _json(CHOICE, lambda c: c.update(luck=7)), TRAIN, ("linear.json", "luck")),
    Case(
        "choice: stale",
        setting("sweep.epochs", 2),
        TRAIN,
        ("linear.json: was chosen under another config",),
    ),
    Case("seed: not in the config", lambda bench: None, f"train {CELL} --seed 9", ("no seed 9",), heals=False),
]


# -- studies and runs ------------------------------------------------------------------------------------------------


def _unfinished(content: bytes) -> Callable[[Bench], object]:
    """A journal of a sweep that must run again."""
    return lambda bench: (written(JOURNAL, content)(bench), (bench / CHOICE).unlink())


def _own_database(content: bytes) -> Callable[[Bench], object]:
    """Tracking in a damaged database file of its own."""

    def damage(bench: Bench) -> None:
        bench.configure("tracking", {"uri": f"sqlite:///{bench.folder}/runs.db"})
        (bench / "runs.db").write_bytes(content)

    return damage


def _own_studies(content: bytes) -> Callable[[Bench], object]:
    def damage(bench: Bench) -> None:
        bench.configure("sweep.storage", f"sqlite:///{bench.folder}/studies.db")
        (bench / "studies.db").write_bytes(content)

    return damage


def _cut_database(bench: Bench) -> None:
    """A copy of a good database, its second half lost."""
    database = (bench.base.parent / "mlflow.db").read_bytes()
    _own_database(database[: len(database) // 2])(bench)


GARBAGE = b"this is no database, " * 99
STORES = [
    Case("journal: text", _unfinished(b"no\njournal\n"), SWEEP, ("linear.journal: damaged journal",)),
    Case("journal: bytes", _unfinished(b"\xff\xfe\x00\n" * 99), SWEEP, ("linear.journal: damaged journal",)),
    Case(
        "journal: JSON of something else",
        _unfinished(b'{"op_code": 99, "worker_id": "x"}\n[1, 2]\n'),
        SWEEP,
        ("linear.journal: damaged journal",),
    ),
    Case("studies: no database", _own_studies(GARBAGE), SWEEP, ("sweep.storage: cannot be opened",), ("studies.db*",)),
    Case("runs: no database", _own_database(GARBAGE), "tracking init", ("tracking.uri", "runs.db", "cannot be opened")),
    Case("runs: no database for a sweep", _own_database(GARBAGE), SWEEP, ("tracking.uri", "runs.db cannot be opened")),
    Case(
        "runs: database cut off",
        _cut_database,
        "tracking init",
        ("tracking.uri", "runs.db cannot be opened"),
        ("runs.db*",),
    ),
]
