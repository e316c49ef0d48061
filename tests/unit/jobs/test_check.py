"""What a config says is checked before hours are spent on it: methods, policies, files; all that is wrong is said."""

from pathlib import Path

import pytest

from ssp.errors import ConfigError
from ssp.jobs.check import check_config, check_training
from ssp.paths import Paths
from tests.unit.tiny_benchmark import tiny_config

POLICY = "datasets__ucf101__recipe__augmentation__randaugment"


@pytest.fixture
def folder(tmp_path):
    """All files that the config names."""
    (tmp_path / "generated").mkdir()
    (tmp_path / "backbone.safetensors").touch()
    return tmp_path


def test_a_line_for_each_section(folder):
    lines = check_config(tiny_config(folder, **{POLICY: "rand-m7-n4-mstd0.5-inc1"}), "my.yaml")
    assert lines == [
        "tiny: Tiny",
        "backbone: VideoMamba of 2 blocks, width 16; checkpoints: f4",
        "data set ucf101: 10 classes, 30 training and 20 test videos, 3 epochs in batches of 8",
        "method linear: its own options; searched: lr",
        "method full: its own options; searched: lr",
        "method vpt: num_prompts 2; searched: lr, position",
        "method ssp: entropy_norm fixed, inner_dim 8, attn_dim 8, num_prompts 1; searched: lr",
        "sweep: 4 studies of 3 trials for 2 of 3 epochs",
        "seeds: 0, 1, which makes 8 trainings",
        "advice: validation of ucf101 has fewer than 500 videos, on which choices are mostly noise; validation.folds "
        "chooses on several times as many, at several times the cost of the search",
    ]


def test_advice_ends_with_folds_with_many_videos_and_without_a_search(folder):
    few = check_config(tiny_config(folder), "my.yaml")
    many = {"datasets__ucf101__expected": {"classes": 10, "train": 1667, "test": 20}}  # 30 % of them: 500
    for change in ({"datasets__ucf101__validation__folds": 2}, many, {"sweep__trials": 0}):
        assert few[-1].startswith("advice: validation of ucf101")
        assert not any("advice" in line for line in check_config(tiny_config(folder, **change), "my.yaml"))


def test_the_search_is_said_rung_by_rung_and_fold_by_fold(folder):
    rungs = [{"trials": 8, "epochs": 0.3}, {"trials": 3}]
    part = [{"trials": 8, "videos": 0.1}, {"trials": 2, "videos": 0.25}]
    said = "sweep: 4 studies of 8 trials for 1 of 3 epochs, the best 3 for all, each on 2 folds"
    lines = check_config(tiny_config(folder, sweep={"fidelity": rungs}, datasets__ucf101__validation__folds=2), "x")
    assert said in lines
    plain = tiny_config(folder, sweep={"fidelity": rungs}, datasets__ucf101__fidelity=part)
    assert "sweep: 4 studies of 8 trials on 10 % of the training videos, the best 2 on 25 % of the training videos" in (
        check_config(plain, "x")
    )
    plain = tiny_config(folder, sweep={"fidelity": [{"trials": 2, "videos": 0.5}, {"trials": 1}]})
    assert "sweep: 4 studies of 2 trials on 50 % of the training videos, the best 1 on all videos" in (
        check_config(plain, "x")
    )


WRONG = {
    "methods__ssp__options__iner_dim": (3, "methods.ssp.options.iner_dim: unknown option; did you mean 'inner_dim'?"),
    "methods__ssp__options__attn_dim": (
        20,
        "methods.ssp.options.attn_dim: must be a multiple of 8, the number of heads",
    ),
    "methods__vpt__options__num_prompts": ("x", "methods.vpt.options.num_prompts: give a whole number, not 'x'"),
    "methods__linear__space": (
        {"width": {"choices": [1]}},
        "methods.linear.space.width: no such hyper-parameter or option; known: lr, weight_decay, drop_path",
    ),
    "methods__ssp__options__gate": (False, "explained: nothing can be drawn of 'ssp'; name a row of ssp, with all"),
    POLICY: ("strong", "datasets.ucf101.recipe.augmentation.randaugment: 'strong' is not of the form rand-m7"),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_only_the_code_that_trains_knows(folder, key):
    value, line = WRONG[key]
    with pytest.raises(ConfigError) as error:
        check_training(tiny_config(folder, explained="ssp", **{key: value}), "my.yaml")
    assert str(error.value).startswith(f"my.yaml: {line}")


def test_all_that_is_wrong_is_in_the_line(folder):
    lines = {key: line for key, (_, line) in WRONG.items() if not line.startswith("explained")}  # of options that exist
    config = tiny_config(folder, **{key: WRONG[key][0] for key in lines})
    with pytest.raises(ConfigError) as error:
        check_config(config, "my.yaml")
    assert all(line in str(error.value) for line in lines.values())
    assert "\n" not in str(error.value)


def test_files_that_the_config_says_are_there(folder):
    (folder / "backbone.safetensors").unlink()
    (folder / "generated").rmdir()
    config = tiny_config(folder, datasets__ucf101__generate=None)
    check_training(config, "my.yaml")  # planning elsewhere than where the files are must be possible
    with pytest.raises(ConfigError) as error:
        check_config(config, "my.yaml")
    assert str(error.value) == (
        f"my.yaml: backbone.checkpoints.f4.local: no file {folder}/backbone.safetensors; "
        "put it there or mend the path; "
        f"datasets.ucf101.local: no folder {folder}/generated; put the archives there or mend the path"
    )


def test_a_folder_whose_archives_are_unpacked_may_be_gone(folder):
    (folder / "generated").rmdir()
    config = tiny_config(folder, datasets__ucf101__generate=None)
    unpacked = Path(Paths.of(config).unpacked("ucf101"))
    unpacked.parent.mkdir(parents=True)
    unpacked.touch()
    check_config(config, "my.yaml")


def test_a_demo_makes_its_folder_itself(folder):
    (folder / "generated").rmdir()
    check_config(tiny_config(folder), "my.yaml")
