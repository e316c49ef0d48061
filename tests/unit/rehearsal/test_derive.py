"""The stand-in of a config: what it keeps, and how little it asks for."""

from pathlib import Path

import pytest

from ssp.config import parse_config, read_yaml, resolved
from ssp.rehearsal.derive import derive
from tests.unit.test_repository import ROOT

CONFIGS = [*sorted((ROOT / "config").glob("*.yaml")), ROOT / "tests/workflow/tiny.yaml"]


def derived(path, gpu=False, **changes):
    plain, _ = resolved(read_yaml(path), path)
    config = parse_config(plain | changes, str(path))
    return config, parse_config(derive(plain | changes, config, gpu), "rehearsal.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_can_break_is_kept(path):
    config, small = derived(path)
    assert small.rows == config.rows and small.backbone.architecture == config.backbone.architecture
    assert list(small.columns) == list(config.columns) and small.points == config.points
    assert small.sweep.space == config.sweep.space and small.protocol == config.protocol
    assert small.quirks == config.quirks
    for name, dataset in small.archived.items():
        theirs = config.archived[name]
        assert dataset.expected.classes == theirs.expected.classes == dataset.generate.classes
        assert len(dataset.archives) == len(theirs.archives)
        kept = ("num_frames", "stride", "sampling")
        assert [getattr(dataset.clips, key) for key in kept] == [getattr(theirs.clips, key) for key in kept]
        ours, mixed = (d.recipe.augmentation.model_dump(exclude={"mix_videos"}) for d in (dataset, theirs))
        assert ours == mixed
        assert dataset.validation.fraction == theirs.validation.fraction


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_little_is_asked_for_and_nothing_is_fetched(path):
    config, small = derived(path)
    assert len(small.seeds) == 1 and all(len(small.rungs(name)) <= 1 for name in small.datasets)
    assert bool(small.rungs(next(iter(small.datasets)))) == any(map(config.rungs, config.datasets))
    for dataset in small.datasets.values():
        few = (1, 2, 4) if config.backbone.image_size == 224 else (2, 18, 36)
        recipe = dataset.recipe
        assert recipe.epochs == few[0] and recipe.batch_size <= few[1] and dataset.validation.folds == 1
        assert dataset.expected.train == few[2] and dataset.clips.test_segments * dataset.clips.test_crops <= 2
        assert not any(archive.urls for archive in dataset.archives)
        assert dataset.generate.seconds[0] * dataset.generate.fps >= dataset.clips.num_frames * dataset.clips.stride
    assert not any(checkpoint.archive for checkpoint in small.backbone.checkpoints.values())
    assert small.compute.train.gpus == 0 and small.tracking.uri is None


def test_without_the_gpu_that_is_asked_for_pictures_are_small_and_jobs_have_a_thread():
    config, small = derived(ROOT / "config/paper.yaml")
    assert (config.backbone.image_size, small.backbone.image_size) == (224, 32)
    assert {d.generate.size for d in small.datasets.values()} == {(46, 36)}
    assert small.compute.train.threads == small.compute.sweep.threads == 1 and small.compute.sweep.gpus == 0
    _, wanted_on_a_cpu = derived(ROOT / "config/paper.yaml", compute={"train": {"threads": 2}})
    assert wanted_on_a_cpu.backbone.image_size == 224 and wanted_on_a_cpu.compute.train.threads == 2


def test_one_process_on_one_node_trains():
    train = {"threads": 4, "processes": 2, "nodes": 2}
    config, small = derived(ROOT / "tests/workflow/tiny.yaml", compute={"train": train})
    assert (config.compute.train.processes, config.compute.train.nodes) == (2, 2)
    assert (small.compute.train.processes, small.compute.train.nodes, small.compute.train.threads) == (1, 1, 4)


def test_a_gpu_that_is_there_is_used_with_real_passes_and_pictures():
    config, small = derived(ROOT / "config/paper.yaml", gpu=True)
    assert small.compute.train == config.compute.train
    assert small.backbone.image_size == 224
    for name, dataset in small.datasets.items():
        assert dataset.recipe.batch_size == dataset.recipe.micro_batch == config.datasets[name].recipe.micro_batch
        assert dataset.expected.train >= 2 * dataset.recipe.batch_size


def test_published_weights_that_are_here_are_taken(tmp_path):
    there = tmp_path / "checkpoints"
    there.mkdir()
    (there / "videomamba_m16_k400_mask_ft_f8_res224.pth").write_bytes(b"weights")
    _, small = derived(ROOT / "config/paper.yaml", data_root=str(tmp_path))
    assert small.backbone.checkpoints["f8"].local == there / "videomamba_m16_k400_mask_ft_f8_res224.pth"
    assert small.backbone.checkpoints["f32"].local == Path("backbone/f32.safetensors")


def test_of_several_splits_the_first_is_taken_and_own_videos_stay_where_they_are(tmp_path):
    plain = read_yaml(ROOT / "tests/workflow/tiny.yaml")
    plain["datasets"]["ucf101"]["split"] = [1, 2, 3]
    _, small = derived(ROOT / "tests/workflow/tiny.yaml", datasets=plain["datasets"])
    assert list(small.datasets) == ["ucf101-split1", "breakfast"]
    own = {key: plain["datasets"]["ucf101"][key] for key in ("frames", "clips", "checkpoint", "recipe", "start")}
    own |= {"source": "folder", "videos": "my_videos"}
    _, small = derived(ROOT / "tests/workflow/tiny.yaml", datasets={"mine": own}, ablations={})
    assert small.datasets["mine"].videos == Path("my_videos").resolve() and small.datasets["mine"].recipe.epochs == 2
