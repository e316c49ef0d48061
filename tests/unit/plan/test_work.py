"""The count of clips, against what the training code does with the same numbers."""

import pytest

from ssp.plan import work
from ssp.training.loop import epoch_batches
from tests.unit.tiny_benchmark import tiny_config


def config_of(tmp_path, **changes):
    return tiny_config(tmp_path, **changes)


@pytest.mark.parametrize(("videos", "batch"), [(30, 8), (30, 30), (30, 64), (7, 2), (1, 4)])
def test_an_epoch_has_the_clips_of_its_full_batches(tmp_path, videos, batch):
    recipe = {"epochs": 3, "batch_size": batch, "augmentation": {"repeats": 2}}
    config = config_of(tmp_path, datasets__ucf101__recipe=recipe)
    assert work.epoch(config, "ucf101", videos) == 2 * sum(map(len, epoch_batches(videos, batch, 0, 0)))


def test_a_study_counts_trials_epochs_and_validation(tmp_path):
    config = config_of(tmp_path)  # 3 trials of 2 epochs on 21 of 30 videos in batches of 8, 9 held out
    assert work.study(config, "ucf101", "ssp", False) == work.Clips(3 * 2 * 16, 3 * 2 * 9, 0, 3)
    folded = config_of(tmp_path, datasets__ucf101__validation={"fraction": 0.3, "folds": 2})
    assert work.study(folded, "ucf101", "ssp", False) == work.Clips(2 * 3 * 2 * 16, 2 * 3 * 2 * 9, 0, 6)


def test_rungs_have_their_own_epochs_and_videos(tmp_path):
    sweep = {"fidelity": [{"trials": 4, "epochs": 0.3, "videos": 0.5}, {"trials": 2}]}
    config = config_of(tmp_path, sweep=sweep)
    # half of 21 videos are a batch of 8, for 1 of 3 epochs; then 2 batches for 3
    assert work.study(config, "ucf101", "ssp", False) == work.Clips(4 * 8 + 2 * 3 * 16, 4 * 9 + 2 * 3 * 9, 0, 6)


def test_trials_of_a_frozen_trunk_share_what_they_see(tmp_path):
    config = config_of(tmp_path)  # lr alone is searched: one stream
    assert work.study(config, "ucf101", "linear", True) == work.Clips(2 * 16, 9, 0, 3)
    space = {"lr": {"low": 0.001, "high": 0.1}, "drop_path": {"choices": [0.0, 0.1]}}
    two = config_of(tmp_path, sweep={"trials": 3, "epochs": 2, "space": space})
    assert work.study(two, "ucf101", "linear", True) == work.Clips(2 * 2 * 16, 9, 0, 3)
    drawn = space | {"drop_path": {"low": 0.0, "high": 0.1}}
    none = config_of(tmp_path, sweep={"trials": 3, "epochs": 2, "space": drawn})
    assert work.study(none, "ucf101", "linear", True) == work.Clips(3 * 2 * 16, 3 * 9, 0, 3)
    longer = config_of(tmp_path, sweep={"fidelity": [{"trials": 3, "epochs": 0.3}, {"trials": 1}]})
    assert work.study(longer, "ucf101", "linear", True) == work.Clips(3 * 16, 9, 0, 4)  # of 3 epochs one was kept


def test_a_run_trains_on_all_videos_and_reads_all_views(tmp_path):
    assert work.run(config_of(tmp_path), "ucf101", False) == work.Clips(3 * 24, 0, 40, 1)
    assert work.run(config_of(tmp_path, refit=False), "ucf101", False) == work.Clips(3 * 16, 3 * 9, 40, 1)
    assert work.run(config_of(tmp_path, refit=False), "ucf101", True) == work.Clips(3 * 16, 9, 40, 1)
    on_test = config_of(tmp_path, quirks={"best_epoch": "published"})
    assert work.run(on_test, "ucf101", False) == work.Clips(3 * 24, 3 * 20, 40, 1)
