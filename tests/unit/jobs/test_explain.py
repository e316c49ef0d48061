"""`ssp explain`: which test videos it shows, that it shows what the test saw, and what the report reads of it."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import ssp.jobs.explain
from ssp.cli import main
from ssp.errors import CheckpointError, ConfigError, RecordError
from ssp.figures.attention import frames_of
from ssp.jobs.explain import choose_videos, explain_dataset
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.methods.observe import explain_clip
from ssp.paths import Paths
from ssp.records.explained import load_explained
from ssp.records.predictions import read_predictions
from ssp.records.record import load_record, save_record


def videos(*rows):
    return pd.DataFrame(rows, columns=["id", "label", "predicted"])


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        # b is wrong; c is right and first by id; d is right too, and e of c's class; f is wrong and of another.
        ([("f", 2, 0), ("b", 1, 0), ("g", 2, 1), ("c", 1, 1), ("d", 2, 2), ("e", 1, 0)], ["c", "f"]),
        ([("c", 0, 0), ("b", 1, 1), ("a", 0, 0)], ["a", "b"]),  # all right: the first of two classes
        ([("c", 0, 1), ("b", 1, 2), ("a", 0, 1)], ["a", "b"]),  # all wrong: the same
        ([("b", 1, 0), ("a", 1, 1)], ["a"]),  # one class
    ],
)
def test_videos_are_chosen_by_a_rule(rows, chosen):
    assert choose_videos(videos(*rows)) == chosen


@pytest.fixture(scope="module")
def made(tiny_here, tmp_path_factory):
    """A config of one data set with SSP, two segments and three crops a test video; its first seed trained and tested.

    And the folder that this was done in.
    """
    config = tiny_here(
        seeds=[1, 0],
        methods={"ssp": {"options": {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}}},
        sweep__trials=1,
        sweep__epochs=1,
        datasets__ucf101__recipe__epochs=1,
        datasets__ucf101__clips__test_segments=2,
        datasets__ucf101__clips__test_crops=3,
    )
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        run_sweep(config, "ucf101", "ssp")
        train_cell(config, "ucf101", "ssp", 1)
    return config, folder


@pytest.fixture
def trained(made, tmp_path, monkeypatch):
    """That config, with a copy of what was trained."""
    config, folder = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return config


def test_shows_what_the_test_saw(trained, monkeypatch):
    """The picture is of the recorded weights on a recorded view: its logits are those of the predictions file."""
    seen = []

    def watched(model, clip):
        seen.append((clip, explain_clip(model, clip)))
        return seen[-1][1]

    monkeypatch.setattr(ssp.jobs.explain, "explain_clip", watched)
    explained = explain_dataset(trained, "ucf101")
    paths = Paths.of(trained)
    predictions = read_predictions(paths.predictions("ucf101", "ssp", 1))
    manifest = pd.read_parquet(paths.manifest("ucf101")).set_index("id")
    assert len(explained.clips) == len(seen) == 2
    for clip, (pixels, explanation) in zip(explained.clips, seen, strict=True):
        views = predictions[predictions["id"] == clip.id].set_index("view")
        assert clip.view == 1 * 3 + 1  # the middle crop of the later of two segments
        np.testing.assert_allclose(explanation.logits, views.loc[clip.view, "logits"], rtol=1e-4, atol=1e-5)
        logits = np.stack(views["logits"]).astype(float)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert clip.predicted == shares.mean(axis=0).argmax()
        assert clip.probability == pytest.approx(shares.mean(axis=0).max())
        assert (clip.label, clip.name) == tuple(manifest.loc[clip.id, ["label", "class_name"]])
        assert clip.predicted_name in set(manifest["class_name"])
        assert clip.gate == pytest.approx(explanation.gate.mean(axis=0))
        assert clip.strength == pytest.approx((explanation.mean_strength.min(), explanation.mean_strength.max()))
        assert frames_of(pixels).shape == (4, 32, 32, 3)
    assert explained.clips[0].label != explained.clips[1].label
    record = load_record(paths.record("ucf101", "ssp", 1))
    loaded, picture = load_explained(trained, record)
    assert loaded == explained
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert image.format == "PNG" and image.width > 1000 and image.height > 1000  # two clips
    folder = paths.explained("ucf101").parent
    (folder / ".ucf101.png.1.tmp").write_text("of a job that was killed")
    again = explain_dataset(trained, "ucf101")
    assert again == explained, "same run, same picture"
    assert sorted(path.name for path in folder.iterdir()) == ["ucf101.json", "ucf101.png"]


@pytest.mark.slow
def test_a_failed_run_is_told_and_has_no_picture(trained):
    explain_dataset(trained, "ucf101")
    paths = Paths.of(trained)
    path = paths.record("ucf101", "ssp", 1)
    record = load_record(path).model_copy(update={"status": "failed", "reason": "loss is not finite"})
    save_record(record, path)
    explained = explain_dataset(trained, "ucf101")
    assert (explained.made_from.reason, explained.clips) == ("loss is not finite", [])
    assert load_explained(trained, record) == (explained, b"")
    assert not paths.explained_picture("ucf101").exists()


def _other_options(config):
    path = Paths.of(config).record("ucf101", "ssp", 1)
    save_record(load_record(path).model_copy(update={"config_hash": "0" * 16}), path)


def _other_manifest(config):
    path = Paths.of(config).record("ucf101", "ssp", 1)
    save_record(load_record(path).model_copy(update={"manifest_hash": "0" * 16}), path)


def _other_backbone(config):
    path = Paths.of(config).record("ucf101", "ssp", 1)
    assert load_record(path).backbone_hash
    save_record(load_record(path).model_copy(update={"backbone_hash": "0" * 16}), path)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (lambda c: Paths.of(c).record("ucf101", "ssp", 1).unlink(), RecordError, "seed1.json: missing; make it"),
        (_other_options, RecordError, "seed1.json: stale, made with another config"),
        (_other_manifest, RecordError, "seed1.json: stale, made with another manifest"),
        (_other_backbone, RecordError, "backbone.safetensors: not the weights that tiny/ucf101/ssp seed 1 was trained"),
        (lambda c: Paths.of(c).predictions("ucf101", "ssp", 1).unlink(), RecordError, "seed1.parquet: missing"),
        (lambda c: Paths.of(c).weights("ucf101", "ssp", 1).unlink(), CheckpointError, "seed1.safetensors: no such"),
    ],
)
def test_what_is_missing_or_stale_is_one_line(trained, damage, error, says):
    damage(trained)
    with pytest.raises(error, match=says) as caught:
        explain_dataset(trained, "ucf101")
    assert "\n" not in str(caught.value)
    assert not Paths.of(trained).explained("ucf101").parent.exists()


def test_predictions_must_be_the_records(trained):
    path = Paths.of(trained).predictions("ucf101", "ssp", 1)
    read_predictions(path).iloc[6:].to_parquet(path)
    with pytest.raises(RecordError, match="not the file that its record was made from"):
        explain_dataset(trained, "ucf101")


def test_a_config_that_explains_nothing_is_refused(tiny):
    with pytest.raises(ConfigError, match="`explained` names no row"):
        explain_dataset(tiny(explained=None), "ucf101")


@pytest.mark.slow
def test_reading_notices_what_does_not_belong_together(trained):
    explain_dataset(trained, "ucf101")
    paths = Paths.of(trained)
    record = load_record(paths.record("ucf101", "ssp", 1))
    facts, picture = paths.explained("ucf101"), paths.explained_picture("ucf101")
    again = "run: python -m ssp explain --config results/tiny/config.yaml --dataset ucf101"
    other = record.predictions.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(RecordError, match=f"ucf101.json: made from another run than there is now; {again}"):
        load_explained(trained, record.model_copy(update={"predictions": other}))
    content = picture.read_bytes()
    picture.write_bytes(content[:-9])
    with pytest.raises(RecordError, match=f"ucf101.png: not the picture that ucf101.json was written with; {again}"):
        load_explained(trained, record)
    picture.unlink()
    with pytest.raises(RecordError, match=f"ucf101.png: cannot be read .*; {again}"):
        load_explained(trained, record)
    plain = json.loads(facts.read_text())
    facts.write_text(json.dumps(plain | {"weights": None}))
    with pytest.raises(RecordError, match=r"ucf101.json: not a valid explanation: .*needs clips, picture and weights"):
        load_explained(trained, record)
    facts.unlink()
    with pytest.raises(RecordError, match=f"ucf101.json: no such explanation; {again}"):
        load_explained(trained, record)


@pytest.mark.slow
def test_the_command_names_the_videos(trained, monkeypatch, capsys):
    Path("tiny.yaml").write_text(yaml.safe_dump(trained.model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["ssp", "explain", "--config", "tiny.yaml", "--dataset", "ucf101"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    clips = json.loads(Paths.of(trained).explained("ucf101").read_text())["clips"]
    assert [line.partition(":")[0] for line in lines] == [clip["id"] for clip in clips]
