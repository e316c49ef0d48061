"""Result records: what is written is read back, what is broken is named, and where numbers come from is known."""

import json
import subprocess

import pytest

from ssp.errors import RecordError
from ssp.records.record import Record, git_state, load_record, load_records, package_versions, save_record


def make(**changes) -> Record:
    return Record.model_validate(
        {
            "status": "ok",
            "dataset": "ssv2",
            "method": "ssp",
            "seed": 0,
            "config": {"dataset": {"name": "ssv2"}},
            "config_hash": "0" * 16,
            "hyperparameters": {"lr": 0.01, "weight_decay": 0.0, "drop_path": 0.1, "options": {"inner_dim": 8}},
            "sweep": {"trials": 3, "completed": 2, "pruned": 1, "failed": 0, "best_value": 50.0},
            "git": {"commit": "abc", "dirty": False},
            "versions": {"torch": "2"},
            "device": "cpu",
            "scan": {"backend": "chunked", "reason": "why"},
            "manifest_hash": "1" * 16,
            "epochs": 2,
            "parameters": {"total": 4, "trainable": 3, "extra": 2, "head": 1},
            "metrics": {
                "top1": 50.0,
                "top5": 100.0,
                "correct": 1,
                "videos": 2,
                "views": 4,
                "val_top1": 40.0,
                "val_loss": 1.0,
            },
            "predictions": {"path": "p.parquet", "sha256": "2" * 64},
            "run": {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "host": "here", "peak_memory_mb": 1.0},
        }
        | changes
    )


def place(folder, record):
    path = folder / record.dataset / record.method / f"seed{record.seed}.json"
    save_record(record, path)
    return path


def test_round_trip(tmp_path):
    record = make()
    path = place(tmp_path, record)
    assert load_record(path) == record
    first = path.read_bytes()
    save_record(record, path)
    assert path.read_bytes() == first
    assert json.loads(first)["schema_version"] == 1


def test_all_records_sorted_by_number_not_by_name(tmp_path):
    for dataset, seed in (("ssv2", 10), ("ssv2", 2), ("hmdb51", 0)):
        place(tmp_path, make(dataset=dataset, seed=seed))
    (tmp_path / "ssv2" / "ssp" / ".seed9.json.17.tmp").write_text("half")
    assert [(r.dataset, r.seed) for r in load_records(tmp_path)] == [("hmdb51", 0), ("ssv2", 2), ("ssv2", 10)]
    assert load_records(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_1": 3}, "top_1: unknown key"),
        ({"seed": "one"}, "seed: "),
        ({"schema_version": 2}, "schema_version: "),
        ({"status": "ok", "metrics": None}, "status ok needs metrics"),
        ({"status": "failed", "reason": None}, "status failed needs a reason"),
    ],
)
def test_against_the_schema_names_file_key_and_fix(tmp_path, change, message):
    path = place(tmp_path, make())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError) as caught:
        load_record(path)
    line = str(caught.value)
    assert str(path) in line and message in line and "delete it and run" in line and "\n" not in line


def test_broken_files_are_named_and_counted(tmp_path):
    good = make()
    place(tmp_path, good)
    cut = place(tmp_path, make(seed=1))
    cut.write_text(cut.read_text()[:50])
    moved = place(tmp_path, make(seed=2))
    moved.rename(moved.with_name("seed3.json"))
    with pytest.raises(RecordError, match=r"seed1\.json: not a valid record.* \(and 1 more broken\)"):
        load_records(tmp_path)
    cut.unlink()
    with pytest.raises(RecordError, match=r"seed3\.json: holds the record of ssv2/ssp/seed2"):
        load_records(tmp_path)
    with pytest.raises(RecordError, match=r"gone\.json: no such record; run the workflow"):
        load_record(tmp_path / "gone.json")


def test_failed_cell_has_a_record_too(tmp_path):
    record = make(status="failed", reason="out of memory: host", metrics=None, parameters=None, hyperparameters=None)
    assert load_record(place(tmp_path, record)) == record


def test_git_state(tmp_path):
    assert git_state(tmp_path).commit == "unknown"

    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    clean = git_state(tmp_path)
    assert len(clean.commit) == 40 and clean.dirty is False
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == clean.model_copy(update={"dirty": True})
    (tmp_path / "inside").mkdir()
    assert git_state(tmp_path / "inside").commit == "unknown"  # an environment inside somebody's repository


def test_git_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    state = git_state()
    assert (state.commit, state.dirty) == ("unknown", None)


def test_versions_name_what_results_depend_on():
    import torch

    versions = package_versions()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert {"python", "torch", "numpy", "optuna", "mlflow"} <= versions.keys()
