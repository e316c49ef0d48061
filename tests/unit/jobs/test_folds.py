"""Trials on several folds: what each is trained without, what a value is, and that a kill costs a trial."""

import numpy as np
import pytest

import ssp.jobs.cell
import ssp.jobs.sweep
import ssp.jobs.trial
from ssp.data.validation import carve, carve_folds, stratified_part
from ssp.errors import ConfigError
from ssp.jobs.cell import Cell
from ssp.jobs.study import open_study
from ssp.jobs.sweep import run_sweep
from ssp.jobs.trial import pooled
from ssp.records.record import Epoch
from tests.unit.jobs.test_sweep import essence, scripted

FOLDS = {"datasets__ucf101__validation": {"fraction": 0.3, "folds": 3}}


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_disjoint_groups_of_about_the_same_size(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 800).astype(str)
    labels = (groups.astype(int) * 7 + rng.integers(0, 3, 800)) % 10
    first = carve(labels, groups, 0.15, seed)
    folds = carve_folds(labels, groups, first, 0.15, seed, 5)
    assert (first == (folds == 0)).all() and set(folds) == {-1, 0, 1, 2, 3, 4}
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    assert all(0.1 * 800 < (folds == fold).sum() < 0.2 * 800 for fold in range(5))
    for fold in range(5):
        assert set(labels[folds != fold]) == set(labels)  # no training loses a class
    assert (folds == carve_folds(labels, groups, first, 0.15, seed, 5)).all()


def test_a_part_is_of_each_class_and_holds_every_smaller_part():
    labels = np.repeat(np.arange(5), [100, 50, 10, 3, 1])
    parts = [stratified_part(labels, share, seed=3) for share in (0.1, 0.25, 1.0)]
    assert [np.bincount(labels[part]).tolist() for part in parts] == [
        [10, 5, 1, 1, 1],
        [25, 12, 2, 1, 1],
        [100, 50, 10, 3, 1],
    ]
    assert not (parts[0] & ~parts[1]).any() and parts[2].all()
    assert (parts[0] != stratified_part(labels, 0.1, seed=4)).any()


def test_each_fold_is_left_out_once_and_the_first_is_the_manifests(tiny):
    cell = Cell(tiny(**FOLDS), "ucf101", "linear")
    all_rows = set(cell.rows("trainval")["row"])
    folds = [set(cell.view(fold, 1.0).rows("val")["row"]) for fold in range(3)]
    assert folds[0] == set(cell.rows("val")["row"]) and sum(map(len, folds)) == len(set.union(*folds))
    for fold in range(3):
        trained = cell.view(fold, 1.0).rows("train")
        assert set(trained["row"]) == all_rows - folds[fold]
        assert not set(trained["group"]) & set(cell.view(fold, 1.0).rows("val")["group"])


def test_the_value_is_that_over_the_videos_of_all_folds(tiny, monkeypatch):
    """Three trials of three folds; nothing is pruned, though a fold of the last trial is far below the others."""
    cell = Cell(tiny(**FOLDS), "ucf101", "linear")
    videos = [len(cell.view(fold, 1.0).rows("val")) for fold in range(3)]
    curves = [[50, 50 + trial + fold if (trial, fold) != (2, 0) else 1] for trial in range(3) for fold in range(3)]
    scripted(monkeypatch, curves)
    choice = run_sweep(cell.config, "ucf101", "linear")
    assert [trial.state for trial in choice.trials] == ["complete"] * 3
    assert [trial.folds for trial in choice.trials] == [[50, 51, 52], [51, 52, 53], [1, 53, 54]]
    for trial in choice.trials:
        assert trial.value == pytest.approx(np.average(trial.folds, weights=videos)) == trial.epochs[-1].val_top1
        assert [epoch.epoch for epoch in trial.epochs] == [1, 2] and trial.epochs[0].val_top1 == 50
    assert choice.trial == 1


def test_a_larger_fold_counts_for_more():
    def one(loss, top1):
        return [Epoch(epoch=1, lr=0.1, train_loss=1.0, val_loss=loss, val_top1=top1)]

    (found,) = pooled([one(1.0, 40.0), one(2.0, 80.0)], [30, 10])
    assert (found.val_top1, found.val_loss, found.lr) == (50.0, 1.25, pytest.approx(0.1))


@pytest.mark.slow
def test_a_killed_sweep_repeats_the_trial_that_was_cut_off(tiny, monkeypatch):
    whole = run_sweep(tiny(name="whole", sweep__trials=2, **FOLDS), "ucf101", "linear")
    config, real, met = tiny(sweep__trials=2, **FOLDS), ssp.jobs.trial.train_epochs, []

    def killed(*args, **kwargs):
        met.append(args)
        if len(met) == 5:  # the second fold of the second trial
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, "ucf101", "linear")
    monkeypatch.setattr(ssp.jobs.trial, "train_epochs", real)
    assert essence(run_sweep(config, "ucf101", "linear")) == essence(whole)
    assert len(open_study(Cell(config, "ucf101", "linear")).trials) == 3


@pytest.mark.slow
def test_a_fold_that_fails_fails_the_trial(tiny, monkeypatch):
    scripted(monkeypatch, [[50, 50], [None], [50, 50], [50, 50], [50, 50]])
    choice = run_sweep(tiny(sweep__trials=2, **FOLDS), "ucf101", "linear")
    assert [trial.state for trial in choice.trials] == ["failed", "complete"]


def test_more_folds_than_groups_is_one_line(tiny):
    config = tiny(datasets__ucf101__validation={"fraction": 0.3, "folds": 1})
    dataset = config.datasets["ucf101"]
    validation = dataset.validation.model_copy(update={"folds": 30})
    many = config.model_copy(update={"datasets": {"ucf101": dataset.model_copy(update={"validation": validation})}})
    with pytest.raises(ConfigError, match=r"datasets\.ucf101\.validation\.folds: no groups are left for number 30"):
        Cell(many, "ucf101", "linear").view(29, 1.0).rows("val")


def test_folds_move_what_is_chosen_and_not_the_manifest(tiny):
    one, three = tiny(), tiny(**FOLDS)
    assert one.manifest_slice("ucf101") == three.manifest_slice("ucf101")
    assert one.sweep_slice("ucf101", "ssp") != three.sweep_slice("ucf101", "ssp")
    assert tiny(datasets__ucf101__validation__folds=1).sweep_slice("ucf101", "ssp") == one.sweep_slice("ucf101", "ssp")
