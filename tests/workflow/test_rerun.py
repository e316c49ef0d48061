"""What runs again after a change: exactly what the change decides. Planned on the finished small run."""

import copy
import json
import os
import shutil

import pytest
import yaml

from tests.workflow.running import TINY, snakemake

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


def _fewer_seeds(data):
    data["seeds"].pop()


def _start(data):
    data["datasets"]["ucf101"]["start"]["lr"] = 0.04


def _validation(data):
    data["datasets"]["ucf101"]["validation"]["fraction"] = 0.4


def _videos(data):
    data["datasets"]["breakfast"]["generate"]["seed"] = 3


def _quality_of_frames(data):
    data["datasets"]["breakfast"]["frames"]["jpeg_quality"] = 90


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
    commands = [line for line in (done.out + done.err).splitlines() if " -m ssp.jobs.run " in line]
    commands = [line for line in commands if not any(f".log {shown}" in line for shown in COSTS | SHOW)]
    assert commands
    assert all("--method vpt" in line for line in commands)


# A copy of data and results without Snakemake's own notes: the files themselves say what made them.

DATA_RULES = ("generate", "fetch", "unpack", "manifest", "keep_manifest", "frames")
OF_UCF101 = {"sweep": METHODS, "train": METHODS * SEEDS + POINTS, "explain": 1} | ABLATED
OF_BREAKFAST = {"sweep": METHODS, "train": METHODS * SEEDS, "explain": 1} | SHOW


@pytest.fixture(scope="module")
def copied(tiny_run, tmp_path_factory):
    """Where the copy lies."""
    folder = tmp_path_factory.mktemp("copied") / "somewhere"
    return shutil.copytree(tiny_run.folder, folder, ignore=shutil.ignore_patterns(".snakemake"))


def _planned(folder, *args) -> dict[str, int]:
    done = snakemake(folder, "-n", *args)
    assert done.code == 0, done.err
    return {rule: count for rule, count in done.jobs.items() if rule != "all"}


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        (lambda data: None, {}),
        (_no_outcome, {}),
        (_title, ABLATED),
        (_seed, {"train": DATASETS * METHODS} | SHOW),
        (_fewer_seeds, SHOW),
        (_start, OF_UCF101),
        (_options_of_ssp, {"sweep": 2, "train": DATASETS * SEEDS + POINTS, "explain": DATASETS} | COSTS | ABLATED),
        (_ablation, {"train": 1, "ablation": 1, "ablation_curve": 1, "report": 1}),
        (_backbone, {"pretrain": 1} | EVERY),
        (_validation, {"manifest": 1, "keep_manifest": 1, "frames": 2} | OF_UCF101),
        (_quality_of_frames, {"frames": 1} | OF_BREAKFAST),
        (_videos, dict.fromkeys(DATA_RULES, 1) | OF_BREAKFAST),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_copy_without_snakemakes_notes_reruns_what_a_change_decides(copied, tmp_path, change, jobs):
    data = yaml.safe_load(TINY.read_text())
    change(data)
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    assert _planned(copied, "--configfile", tmp_path / "changed.yaml") == jobs


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("records/ucf101/vpt/seed0.json", {"train": 1} | SHOW),
        ("predictions/breakfast/ssp/seed1.parquet", {"train": 1} | SHOW),
        ("sweeps/breakfast/vpt.json", {"sweep": 1, "train": SEEDS} | SHOW),
        ("costs.json", COSTS | SHOW),
        ("tables/main.csv", SHOW),
        ("explained/ucf101.json", {"explain": 1, "report": 1}),
    ],
)
@pytest.mark.parametrize("notes", [True, False])
def test_what_is_gone_is_made_again_though_tables_and_report_are_there(tiny_run, copied, name, jobs, notes):
    folder = tiny_run.folder if notes else copied
    path = folder / "results/tiny" / name
    aside = path.rename(path.with_name("aside"))
    try:
        assert _planned(folder, "--configfile", TINY) == jobs
    finally:
        aside.rename(path)


def test_a_record_of_another_config_put_there_by_hand_is_made_again(tiny_run):
    """Snakemake's notes say that all is well."""
    path = tiny_run.folder / tiny_run.paths.record("ucf101", "vpt", 0)
    content, at = path.read_bytes(), path.stat()
    made = json.loads(content)
    made["config"]["sweep"]["trials"] = 9
    path.write_text(json.dumps(made | {"config_hash": "0" * 16}))
    try:
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        done = tiny_run.again("--configfile", TINY)
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    assert done.jobs == {"train": 1, "all": 1} | SHOW
    assert (
        "Made again, with all like it: results/tiny/records/ucf101/vpt/seed0.json: made with another config "
        "(was sweep.trials = 9; now sweep.trials = 2)\n"
    ) in done.err


def test_only_what_is_asked_for_is_planned(copied, tmp_path):
    """What is stale elsewhere is no target."""
    data = yaml.safe_load(TINY.read_text())
    _start(data)
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    record = "results/tiny/records/ucf101/linear/seed0.json"
    assert _planned(copied, record, "--configfile", tmp_path / "changed.yaml") == {"sweep": 1, "train": 1}


def test_one_command_redoes_one_cell(copied):
    """As docs/workflow.md has it."""
    record = "results/tiny/records/ucf101/linear/seed0.json"
    assert _planned(copied, "--force", record, "--configfile", "results/tiny/config.yaml") == {"train": 1}
