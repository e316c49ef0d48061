"""Features of a frozen trunk are taken once for all trials, and nothing else changes by it: not one bit."""

import json
from contextlib import suppress

import pytest

import ssp.jobs.sweep
import ssp.jobs.trial
from ssp.backbone.videomamba import VideoMamba
from ssp.jobs.cell import Cell
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.jobs.trial import shares_features
from ssp.methods.build import build_model

TRIALS, EPOCHS, BATCH = 3, 2, 8
MIXED = {"scale": [0.5, 1.0], "mixup": 0.8, "cutmix": 1.0, "mix_videos": 2, "repeats": 2}
HARD = {
    "datasets__ucf101__recipe__augmentation": MIXED,
    "datasets__ucf101__recipe__micro_batch": 4,
    "datasets__ucf101__start": {"lr": 0.01, "drop_path": 0.5},
}


@pytest.fixture
def clips(monkeypatch):
    """How many clips went through the trunk in each pass."""
    passes, forward = [], VideoMamba.forward_features
    monkeypatch.setattr(
        VideoMamba, "forward_features", lambda self, video: passes.append(len(video)) or forward(self, video)
    )
    return passes


@pytest.fixture
def alone(monkeypatch):
    """A function that does something as if no trunk were frozen."""

    def do(what):
        with monkeypatch.context() as patch:
            patch.setattr(VideoMamba, "trunk_is_frozen", False)
            return what()

    return do


def essence(choice):
    return choice.model_dump(mode="json", exclude={"run"})


def sizes(config):
    """Training clips of an epoch of a trial, and validation clips."""
    cell = Cell(config, "ucf101", "linear")
    repeats = config.datasets["ucf101"].recipe.augmentation.repeats
    return len(cell.rows("train")) // BATCH * BATCH * repeats, len(cell.rows("val"))


def test_only_a_trunk_without_anything_that_trains_is_frozen():
    small = {"embed_dim": 16, "depth": 2, "patch_size": 16}
    frozen = {
        name: build_model(small, name, 5, num_frames=4, img_size=32).trunk_is_frozen
        for name in ("linear", "full", "ssp", "vpt", "bitfit", "norm_tuning")
    }
    assert [name for name, is_frozen in frozen.items() if is_frozen] == ["linear"]


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, id="plain"), pytest.param(HARD, id="mixed, repeated, cut up, dropped", marks=pytest.mark.slow)],
)
def test_a_sweep_takes_features_once_and_chooses_the_same(tiny, clips, alone, changes):
    config = tiny(**changes)
    shared = run_sweep(config, "ucf101", "linear")
    once, train, val = sum(clips), *sizes(config)
    assert once == EPOCHS * train + val
    assert not Cell(config, "ucf101", "linear").paths.features("tiny/ucf101/linear").exists()
    apart = alone(lambda: run_sweep(config, "ucf101", "linear"))
    assert sum(clips) - once == TRIALS * EPOCHS * (train + val)
    assert essence(apart) == essence(shared)
    assert len({trial.hyperparameters.lr for trial in shared.trials}) == TRIALS


@pytest.mark.slow
def test_validation_in_published_batches_is_read_as_without_sharing(tiny, alone):
    together = {"validation": 4, "test": 4, "devices": 2}
    config = tiny(datasets__ucf101__recipe__co_batched=together, **HARD)
    shared = run_sweep(config, "ucf101", "linear")
    assert essence(alone(lambda: run_sweep(config, "ucf101", "linear"))) == essence(shared)


@pytest.mark.slow
def test_each_drop_path_rate_has_a_stream_of_its_own(tiny, clips, alone):
    space = {"lr": {"low": 0.001, "high": 0.1, "log": True}, "drop_path": {"choices": [0.1, 0.5]}}
    config = tiny(sweep__space=space, sweep__trials=5)
    shared = run_sweep(config, "ucf101", "linear")
    rates = {trial.hyperparameters.drop_path for trial in shared.trials}
    train, val = sizes(config)
    assert rates == {0.1, 0.5} and sum(clips) <= 2 * EPOCHS * train + val
    assert essence(alone(lambda: run_sweep(config, "ucf101", "linear"))) == essence(shared)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_uses_no_damaged_file(tiny, clips, monkeypatch):
    config = tiny(**HARD)
    whole = run_sweep(config, "ucf101", "linear")
    cell = Cell(config, "ucf101", "linear")
    cell.paths.choice("ucf101", "linear").unlink()
    real = ssp.jobs.trial.train_epochs

    def killed(*arguments, **named):
        for epoch in real(*arguments, **named):
            yield epoch
            if arguments[5].endswith("trial1"):
                raise KeyboardInterrupt

    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", killed)
    with suppress(KeyboardInterrupt):
        run_sweep(config, "ucf101", "linear")
    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", real)
    kept = {path.name: path for path in cell.paths.features(cell.name).rglob("*.pt")}
    assert sorted(kept) == ["epoch0.pt", "epoch1.pt", "validation.pt"]
    kept["epoch0.pt"].write_bytes(kept["epoch0.pt"].read_bytes()[:-100])
    kept["validation.pt"].write_bytes(b"no features")
    clips.clear()
    assert essence(run_sweep(config, "ucf101", "linear")) == essence(whole)
    train, val = sizes(config)
    assert sum(clips) == train + val  # the second epoch was whole


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({}, True),
        ({"sweep__workers": 2}, False),
        ({"sweep__trials": 1}, False),
        ({"sweep__space__drop_path": {"low": 0.0, "high": 0.5}}, False),
        ({"sweep__space__drop_path": {"choices": [0.0, 0.5]}}, True),
        ({"sweep__space__weight_decay": {"low": 0.01, "high": 0.1}}, True),
    ],
)
def test_nothing_is_kept_that_cannot_come_again(tiny, changes, shares):
    assert shares_features(Cell(tiny(**changes), "ucf101", "linear")) is shares


@pytest.mark.slow
def test_a_final_training_takes_those_of_validation_once(tiny, clips, alone):
    config = tiny(sweep__trials=0, refit=False, **HARD)
    run_sweep(config, "ucf101", "linear")
    paths = Cell(config, "ucf101", "linear").paths

    def outcome():
        clips.clear()
        record = train_cell(config, "ucf101", "linear", 0)
        weights = paths.weights("ucf101", "linear", 0).read_bytes()
        return sum(clips), weights, json.dumps(record.model_dump(mode="json", exclude={"run"}))

    (taken, *ours), (every, *theirs) = outcome(), alone(outcome)
    assert ours == theirs
    assert every - taken == 2 * sizes(config)[1]  # of three epochs
