"""What runs again after a change: exactly what the change decides. Planned on the finished small run."""

import copy

import pytest
import yaml

from tests.workflow.running import TINY

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(1800)]

DATASETS, METHODS, SEEDS = 2, 3, 2


def _plan(tiny_run, tmp_path, change) -> dict[str, int]:
    """Jobs of a second run with a changed copy of the config."""
    data = copy.deepcopy(yaml.safe_load(TINY.read_text()))
    change(data)
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    done = tiny_run.again("--configfile", tmp_path / "changed.yaml")
    assert done.code == 0, done.err
    jobs = done.jobs
    del jobs["all"]
    return dict(jobs)


def test_a_second_run_does_nothing(tiny_run):
    done = tiny_run.again("--configfile", TINY)
    assert done.code == 0
    assert "Nothing to be done" in done.err + done.out
    assert not done.jobs


def _options(data):
    data["methods"]["vpt"]["options"]["num_prompts"] = 3


def _space(data):
    data["methods"]["linear"]["space"] = {"lr": {"low": 0.001, "high": 0.01, "log": True}}


def _options_of_ssp(data):
    data["methods"]["ssp"]["options"]["num_prompts"] = 1


def _ablation(data):
    data["ablations"]["prompts"]["vary"]["num_prompts"] = [1, 3]


def _another_ablation(data):
    points = [{"title": "Narrow", "options": {"inner_dim": 4}}, {"title": "One", "options": {"num_prompts": 1}}]
    data["ablations"]["parts"] = {"title": "Parts", "of": "ssp", "vary": points, "datasets": ["ucf101"], "seeds": [0]}


def _title(data):
    data["title"] = "Another title"


def _seed(data):
    data["seeds"].append(2)


def _views(data):
    data["datasets"]["ucf101"]["clips"]["test_segments"] = 3


def _trials(data):
    data["sweep"]["trials"] = 3


def _recipe(data):
    data["datasets"]["breakfast"]["recipe"]["epochs"] = 3


def _batches_of_the_first_data_set(data):
    data["datasets"]["ucf101"]["recipe"]["batch_size"] = 4


def _backbone(data):
    data["backbone"]["checkpoints"]["f4"]["pretrain"]["steps"] = 5


def _shards(data):
    data["datasets"]["breakfast"]["frames"]["shards"] = 2


def _limits_of_decoding(data):
    data["datasets"]["ucf101"]["frames"] |= {"timeout_s": 60, "max_broken": 0.5}


def _quirk_of_ssp(data):
    data["quirks"] = {"entropy_norm": "published"}


def _quirk_of_sparse_clips(data):
    data["quirks"] = {"short_videos": "published"}


def _quirk_of_reading_test(data):
    data["quirks"] = {"merge_ids": "published"}


def _refit(data):
    data["refit"] = False


def _defaults_written_out(data):
    data |= {"protocol": "fixed", "quirks": {"merge_ids": "fixed"}}
    data["datasets"]["ucf101"] |= {"split": 1}
    data["methods"]["linear"] = None


def _no_outcome(data):
    data["compute"] = {"train": {"threads": 2, "mem_mb": 3000, "runtime": 9}}
    data["datasets"]["ucf101"]["archives"][0]["urls"] = ["https://example.org/mirror.zip"]
    data["tracking"] = {"experiment": "another"}


def _no_outcome_and_options(data):
    _no_outcome(data)
    _options(data)


SHOW = {"tables": 1, "report": 1}
COSTS = {"costs": 1}
ABLATED = {"ablation": 1, "ablation_curve": 1} | SHOW
POINTS = 1  # trainings of the ablation that are none of the table's
EVERY = {"sweep": DATASETS * METHODS, "train": DATASETS * METHODS * SEEDS + POINTS, "explain": DATASETS} | ABLATED


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (_options, {"sweep": DATASETS, "train": DATASETS * SEEDS} | COSTS | SHOW),
        (
            _options_of_ssp,
            {"sweep": DATASETS, "train": DATASETS * SEEDS + POINTS, "explain": DATASETS} | COSTS | ABLATED,
        ),
        (_space, {"sweep": DATASETS, "train": DATASETS * SEEDS} | SHOW),
        (_title, ABLATED),
        (_ablation, {"train": 1, "ablation": 1, "ablation_curve": 1, "report": 1}),
        (_another_ablation, {"train": 1, "ablation": 1, "report": 1}),
        (_seed, {"train": DATASETS * METHODS} | SHOW),
        (_views, {"train": METHODS * SEEDS + POINTS, "explain": 1} | ABLATED),
        (_trials, EVERY),
        (_recipe, {"sweep": METHODS, "train": METHODS * SEEDS, "explain": 1} | SHOW),
        (
            _batches_of_the_first_data_set,
            {"sweep": METHODS, "train": METHODS * SEEDS + POINTS, "explain": 1} | COSTS | ABLATED,
        ),
        (_backbone, {"pretrain": 1} | EVERY),
        (_shards, {"frames": 2, "sweep": METHODS, "train": METHODS * SEEDS, "explain": 1} | SHOW),
        (_limits_of_decoding, {}),
        (
            _quirk_of_ssp,
            {"sweep": DATASETS, "train": DATASETS * SEEDS + POINTS, "explain": DATASETS} | COSTS | ABLATED,
        ),
        (_refit, {"train": DATASETS * METHODS * SEEDS + POINTS, "explain": DATASETS} | ABLATED),
        (_quirk_of_sparse_clips, {"sweep": METHODS, "train": METHODS * SEEDS, "explain": 1} | SHOW),
        (_quirk_of_reading_test, {"train": DATASETS * METHODS * SEEDS + POINTS, "explain": DATASETS} | ABLATED),
        (_defaults_written_out, {}),
        (_no_outcome, {}),
        (_no_outcome_and_options, {"sweep": DATASETS, "train": DATASETS * SEEDS} | COSTS | SHOW),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_change_reruns_what_it_decides(tiny_run, tmp_path, change, jobs):
    assert _plan(tiny_run, tmp_path, change) == jobs


def test_only_that_methods_jobs(tiny_run, tmp_path):
    data = yaml.safe_load(TINY.read_text())
    _options(data)
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(data))
    done = tiny_run.again("--configfile", tmp_path / "changed.yaml")
    commands = [line for line in (done.out + done.err).splitlines() if " -m ssp " in line]
    commands = [line for line in commands if not any(f"ssp {shown}" in line for shown in COSTS | SHOW)]
    assert commands
    assert all("--method vpt" in line for line in commands)
