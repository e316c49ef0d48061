"""Pre-training on a tiny scale: seeded, continued after a kill to the same bytes, loadable, and it learns."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ssp.backbone.checkpoint import load_weights
from ssp.config import parse_config
from ssp.errors import CheckpointError, ConfigError
from ssp.jobs import pretrain
from ssp.methods.build import build_model
from ssp.paths import Paths


def config(compute=None, **settings):
    plain = {"seed": 3, "clips": 24, "held_out": 24, "steps": 5, "batch_size": 8, "lr": 0.003} | settings
    dataset = {
        "source": "ssv2",
        "expected": {"classes": 8, "train": 8, "test": 8},
        "archives": [{"file": "x"}],
        "frames": {"shards": 1},
        "clips": {"sampling": "sparse", "num_frames": 4},
        "checkpoint": "tiny",
        "recipe": {"epochs": 1, "batch_size": 4},
        "start": {"lr": 0.01},
    }
    data = {
        "name": "test",
        "title": "test",
        "data_root": "data",
        "seeds": [0],
        "backbone": {
            "architecture": {"embed_dim": 16, "depth": 2, "patch_size": 8},
            "image_size": 16,
            "checkpoints": {
                "tiny": {"num_frames": 4, "pretrain": plain},
                "fetched": {"num_frames": 4, "local": "w.pth"},
            },
        },
        "datasets": {"ssv2": dataset},
        "methods": {"linear": {}},
        "sweep": {"trials": 1},
        "compute": {"pretrain": compute or {}},
    }
    return parse_config(data, "test.yaml")


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def weights(settings):
    """Bytes of a fresh run's weights."""
    path = pretrain.run_pretrain(settings, "tiny")
    data = path.read_bytes()
    path.unlink()
    return data


def test_writes_a_backbone_that_loads_and_a_report():
    settings = config()
    path = pretrain.run_pretrain(settings, "tiny")
    assert path == Paths.of(settings).backbone("tiny")
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]
    assert not any(name.startswith("head") for name in load_file(path))
    model = build_model({"embed_dim": 16, "depth": 2, "patch_size": 8}, "linear", 5, num_frames=8, img_size=16)
    before = model.patch_embed.proj.weight.clone()
    load_weights(model, path)
    assert not torch.equal(before, model.patch_embed.proj.weight)
    report = json.loads(path.with_suffix(".json").read_text())
    assert (report["clips"], report["classes"]) == (24, 24)
    assert 0 <= report["top1"] <= min(report["look_top1"], report["motion_top1"]) <= 100
    with safe_open(path, "pt") as file:
        assert file.metadata()["identity"] == report["identity"]


@pytest.mark.slow
def test_two_processes_make_the_backbone_of_one():
    one, two = config(), config({"threads": 2, "processes": 2})
    expected = load_file(pretrain.run_pretrain(one, "tiny"))
    Paths.of(one).backbone("tiny").unlink()
    found = load_file(pretrain.run_pretrain(two, "tiny"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-3)
    report = json.loads(Paths.of(two).backbone("tiny").with_suffix(".json").read_text())
    assert report["run"]["processes"] == 2
    with pytest.raises(ConfigError, match=r"compute\.pretrain: 9 processes \(or gpus\) are too many for steps of 8"):
        pretrain.run_pretrain(config({"threads": 9, "processes": 9}), "tiny")


def test_the_seed_decides_the_weights():
    first = weights(config())
    torch.manual_seed(99)  # whatever the process did before
    assert weights(config()) == first
    assert weights(config(seed=4)) != first


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_killed_run_continues_to_the_same_bytes(monkeypatch, stop):
    whole, batch, steps = weights(config()), pretrain.step_clips, []

    def killed(clips, settings, step):
        steps.append(step)
        if step == stop:
            raise KeyboardInterrupt
        return batch(clips, settings, step)

    monkeypatch.setattr(pretrain, "step_clips", killed)
    monkeypatch.setattr(pretrain, "STATE_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run_pretrain(config(), "tiny")
    assert not Paths.of(config()).backbone("tiny").exists()
    steps.clear()
    stop_again, stop = stop, None
    assert weights(config()) == whole
    assert steps[0] == stop_again // 2 * 2


def test_the_state_of_other_settings_is_not_continued(monkeypatch):
    fresh, batch = weights(config(lr=0.001)), pretrain.step_clips

    def killed(clips, settings, step):
        if step == 3 and settings.lr == 0.003:
            raise KeyboardInterrupt
        return batch(clips, settings, step)

    monkeypatch.setattr(pretrain, "step_clips", killed)
    monkeypatch.setattr(pretrain, "STATE_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run_pretrain(config(), "tiny")
    assert weights(config(lr=0.001)) == fresh


def test_training_lowers_the_loss():
    report = Paths.of(config()).backbone("tiny").with_suffix(".json")
    losses = []
    for steps in (1, 60):
        pretrain.run_pretrain(config(steps=steps, batch_size=24), "tiny")
        losses.append(json.loads(report.read_text())["train_loss"])
    assert losses[1] < 0.9 * losses[0]


def test_a_diverged_run_says_what_to_change():
    with pytest.raises(CheckpointError, match=r"not finite at step \d+; lower .*\.lr") as error:
        pretrain.run_pretrain(config(lr=1e30, clip_grad=1e30, steps=20), "tiny")
    assert "\n" not in str(error.value)
    assert not Paths.of(config()).backbone("tiny").exists()


@pytest.mark.parametrize("name", ["fetched", "unknown"])
def test_what_is_not_pretrained_is_named(name):
    with pytest.raises(ConfigError, match=rf"backbone\.checkpoints\.{name}: .*tiny"):
        pretrain.run_pretrain(config(), name)
