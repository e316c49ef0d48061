"""`ssp init` writes a config that is valid as it stands, by the rules that it states."""

import re

import pandas as pd
import pytest
import yaml

from ssp.backbone.checkpoint import write_safetensors
from ssp.config import load_config
from ssp.data.manifest import write_manifest
from ssp.errors import CheckpointError, ConfigError, DataError
from ssp.jobs import init as module
from ssp.jobs.init import init_config
from ssp.methods.build import build_model
from tests.unit.made_videos import scene, write_video


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def videos(tmp_path):
    """Two classes of six videos, a second each."""
    folder = tmp_path / "my videos"
    for label, name in enumerate(("run", "walk")):
        for i in range(6):
            write_video(folder / name / f"{i}.avi", scene(12, seed=6 * label + i))
    return folder


def test_the_config_finds_what_init_found(videos, tmp_path):
    out, found = init_config(videos)
    assert out.name == "my-videos.yaml"
    config = load_config(out)
    assert [*config.methods] == ["linear", "vpt", "ssp", "full"]
    counts = write_manifest(config, "my-videos")["split"].value_counts().to_dict()
    assert found[0] == f"12 videos in 2 classes: {', '.join(f'{counts[s]} {s}' for s in ('train', 'val', 'test'))}"
    assert "  run: 4 train, 1 val, 1 test" in found  # about a quarter of six, and a fifth of the rest, in whole videos
    assert any(line.strip().startswith("codecs: mpeg4 (12)") for line in found)
    assert all(f"#   {line}" in out.read_text() for line in found)


def test_nothing_is_overwritten_without_force(videos, tmp_path):
    out = tmp_path / "mine.yaml"
    out.write_text("precious")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is already there|mine\.yaml: is there already; .*--force"):
        init_config(videos, out)
    assert out.read_text() == "precious"
    init_config(videos, out, force=True)
    first = out.read_text()
    init_config(videos, out, force=True)
    assert out.read_text() == first
    with pytest.raises(ConfigError, match=r"demo\.yaml: 'demo' is a config of this software"):
        init_config(videos, tmp_path / "demo.yaml")


def test_what_gives_reason_to_doubt_is_said(videos):
    (videos / "walk" / "0.avi").write_bytes((videos / "run" / "0.avi").read_bytes())
    (videos / "run" / "5.avi").write_bytes(b"no video")
    out, found = init_config(videos)
    doubts = [line for line in found if line.startswith("!")]
    assert any("run/0.avi = walk/0.avi" in line for line in doubts)
    assert any("cannot be read: run/5.avi" in line for line in doubts)
    assert any(re.search("as few as . test videos a class", line) for line in doubts)
    assert load_config(out).datasets["my-videos"].frames.max_broken == 0.13  # 0.05 and one of twelve


@pytest.mark.slow
def test_a_split_that_is_there_is_taken(videos):
    for name in ("run", "walk"):
        for i in range(6):
            part = "test" if i < 2 else "train"
            (videos / part / name).mkdir(parents=True, exist_ok=True)
            (videos / name / f"{i}.avi").rename(videos / part / name / f"{i}.avi")
        (videos / name).rmdir()
    out, _ = init_config(videos)
    config = load_config(out)
    assert config.datasets["my-videos"].test is None
    manifest = write_manifest(config, "my-videos")
    assert all((row.split == "test") == row.path.startswith("test/") for row in manifest.itertuples())


@pytest.mark.slow
def test_a_table_with_groups(videos):
    table = videos / "labels.csv"
    rows = [f"{c}/{i}.avi,{c},p{i}" for c in ("run", "walk") for i in range(6)]
    table.write_text("\n".join(["path,label,group", *rows]))
    out, _ = init_config(table)
    manifest = write_manifest(load_config(out), "labels")
    assert manifest.groupby("group")["split"].nunique().max() == 1
    with pytest.raises(ConfigError, match="--layout: only for folders"):
        init_config(table, layout="{class}/*", force=True)


@pytest.mark.parametrize(
    ("frames", "fps", "sampling", "stride", "segments"),
    [(48, 12, "sparse", 1, 1), (120, 12, "dense", 4, 4), (75, 15, "dense", 5, 2), (500, 24, "sparse", 1, 1)],
)
def test_sampling_follows_the_length(frames, fps, sampling, stride, segments):
    manifest = pd.DataFrame({"split": ["train"] * 9 + ["test"], "frames": frames, "fps": float(fps)})
    rules = module.rules(manifest, [], module.Start("videomamba_tiny", 224, 8))
    assert rules["sampling"] == sampling
    if sampling == "dense":
        assert (rules["stride"], rules["segments"]) == (stride, segments)


@pytest.mark.parametrize(
    ("train", "batch", "epochs"), [(3, 1, 30), (18, 4, 30), (64, 16, 30), (450, 16, 14), (9000, 16, 5)]
)
def test_batch_and_epochs_follow_the_number_of_videos(train, batch, epochs):
    manifest = pd.DataFrame({"split": ["train"] * train, "frames": 30, "fps": 15.0})
    small = module.Start(module.Architecture(embed_dim=64, depth=3), 32, 8)
    rules = module.rules(manifest, [], small)
    assert (rules["batch"], rules["epochs"]) == (batch, epochs)


def test_weights_say_what_they_are(videos, tmp_path):
    model = build_model({"embed_dim": 16, "depth": 2, "patch_size": 8}, "full", 5, num_frames=4, img_size=48)
    write_safetensors(model.state_dict(), tmp_path / "weights.safetensors", {})
    out, _ = init_config(videos, weights=tmp_path / "weights.safetensors")
    backbone = load_config(out).backbone
    assert backbone.architecture.model_dump() == {"embed_dim": 16, "depth": 2, "patch_size": 8}
    assert backbone.image_size == 48
    assert backbone.checkpoints["start"].num_frames == 4
    assert backbone.checkpoints["start"].local == tmp_path / "weights.safetensors"


def test_published_weights_get_the_rows_of_the_papers_config(videos, tmp_path, monkeypatch):
    start = module.Start("videomamba_middle", 224, 16, weights=tmp_path / "weights.pth")
    start.weights.touch()
    monkeypatch.setattr(module, "start_from", lambda weights: start)
    out, _ = init_config(videos, weights=start.weights)
    config, paper = load_config(out), load_config(module.CONFIGS / "paper.yaml")
    assert config.backbone.architecture == "videomamba_middle"
    assert config.rows["ssp"].options == paper.rows["ssp"].options
    assert config.datasets["my-videos"].clips.num_frames == 16


def test_weights_of_something_else(videos, tmp_path):
    import torch

    write_safetensors({"a": torch.zeros(2)}, tmp_path / "other.safetensors", {})
    with pytest.raises(CheckpointError, match=r"other\.safetensors: no weights of a VideoMamba"):
        init_config(videos, weights=tmp_path / "other.safetensors")


@pytest.mark.slow
def test_a_backbone_that_a_run_has_pre_trained_is_taken(videos, tmp_path):
    first, _ = init_config(videos, tmp_path / "first.yaml")
    plain = yaml.safe_load(first.read_text())
    assert plain["backbone"]["checkpoints"]["start"]["pretrain"]["steps"] == 900
    larger = plain | {"backbone": plain["backbone"] | {"image_size": 48}}
    for name, written in (("first", plain), ("other", larger)):
        folder = tmp_path / "results" / name
        (folder / "backbone").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(written))
        (folder / "backbone" / "start.safetensors").touch()
    second, _ = init_config(videos, tmp_path / "second.yaml")
    checkpoint = load_config(second).backbone.checkpoints["start"]
    assert str(checkpoint.local) == "results/first/backbone/start.safetensors"


@pytest.mark.slow
def test_too_few_groups_for_validation_mean_no_search(videos):
    for name in ("run", "walk"):
        for i in range(2, 6):
            (videos / name / f"{i}.avi").unlink()
    config = load_config(init_config(videos)[0])
    assert config.sweep.trials == 0
    assert set(write_manifest(config, "my-videos")["split"]) == {"train", "test"}


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("absent", DataError, "absent: no such file or folder; mend the path"),
        ("file.mp4", ConfigError, r"file\.mp4: neither a folder nor a CSV"),
    ],
)
def test_what_is_no_collection_of_videos(tmp_path, path, kind, says):
    (tmp_path / "file.mp4").touch()
    with pytest.raises(kind, match=says):
        init_config(tmp_path / path)
