"""Shipped configs are complete and valid; a wrong one gives one line that names file and key."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from ssp.config import Config, Quirks, load_config, parse_config, slice_hash, slice_lines
from ssp.config.plugins import method_names
from ssp.config.rows import TITLES as KNOWN
from ssp.errors import ConfigError
from ssp.records.published import TITLES

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
SHIPPED = [*sorted((ROOT / "config").glob("*.yaml")), TINY]


@pytest.fixture
def tiny() -> dict:
    return yaml.safe_load(TINY.read_text())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_named_like_their_file(path):
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_copy_that_jobs_read_says_the_same(path, tmp_path):
    config = load_config(path)
    (tmp_path / "copy.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert load_config(tmp_path / "copy.yaml") == config


def _set(data: dict, key: str, value: object) -> dict:
    *parents, last = key.split(".")
    for parent in parents:
        data = data[parent]
    data[last] = value
    return data


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [
        ("sede", 1, "sede: unknown key"),
        ("datasets.ucf101.clips.strid", 1, "datasets.ucf101.clips.strid: unknown key"),
        ("datasets.ucf101.recipe.epochs", "many", "datasets.ucf101.recipe.epochs"),
        ("datasets.ucf101.recipe.epochs", 0, "datasets.ucf101.recipe.epochs"),
        ("datasets.ucf101.source", "kinetics", "datasets.ucf101.source: unknown source 'kinetics'"),
        ("datasets.ucf101.checkpoint", "f16", "datasets.ucf101.checkpoint: 'f16' is not in backbone.checkpoints"),
        ("datasets.ucf101.archives", [], "datasets.ucf101.archives"),
        ("datasets.ucf101.archives", [{"file": "a.zip"}] * 2, "datasets.ucf101.archives: 'a.zip' is there twice"),
        ("methods.prefix", {}, "methods.prefix: unknown method"),
        ("sweep.space.momentum", {"low": 0, "high": 1}, "sweep.space.momentum"),
        ("sweep.space.lr", {"low": 1, "high": 0.1}, "sweep.space.lr"),
        ("backbone.architecture", "videomamba_huge", "backbone.architecture"),
        ("backbone.checkpoints.f4.local", "x.pth", "backbone.checkpoints.f4: give exactly one of"),
        ("seeds", [1, 1], "seeds"),
        ("name", "a/b", "name"),
        ("environment", "other.yml", "environment"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(tiny, key, value, names):
    _set(tiny, key, value)
    with pytest.raises(ConfigError) as error:
        parse_config(tiny, "my.yaml")
    assert str(error.value).startswith(f"my.yaml: {names}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("file", name) for name in ("", ".", "..", "../../a.zip", "/a.zip", "b/a.zip", ".a.zip.part", "a\nb", "a\0")),
        *(("size", size) for size in (0, -3, True, 1.5, "12")),
        *(("sha256", digest) for digest in ("zz", "0" * 63, "0" * 64 + "\n", 12)),
        *(("md5", digest) for digest in ("abc", "g" * 32)),
    ],
)
def test_an_entry_of_an_archive_that_cannot_be_meant(tiny, key, value):
    tiny["datasets"]["ucf101"]["archives"][1][key] = value
    with pytest.raises(ConfigError) as error:
        parse_config(tiny, "my.yaml")
    assert str(error.value).startswith(f"my.yaml: datasets.ucf101.archives.1.{key}: ")
    assert str(error.value).endswith(f", not {value!r}")
    assert str(error.value).isprintable()


def test_what_an_archive_may_say(tiny):
    entry = {"file": "Ä b (1).zip", "size": 1, "sha256": "0aF" * 21 + "0", "md5": "0aF" * 10 + "00"}
    tiny["datasets"]["ucf101"]["archives"] = [entry]
    read = parse_config(tiny, "my.yaml").datasets["ucf101"].archives[0].model_dump()
    assert read == entry | {"urls": []}


def test_paths_may_begin_with_the_users_home(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny["data_root"] = "~/data"
    tiny["datasets"]["ucf101"]["local"] = "~/videos"
    tiny["backbone"]["checkpoints"]["f4"] = {"num_frames": 4, "local": "~/weights.pth"}
    config = parse_config(tiny, "my.yaml")
    assert config.data_root == tmp_path / "data"
    assert config.datasets["ucf101"].local == tmp_path / "videos"
    assert config.backbone.checkpoints["f4"].local == tmp_path / "weights.pth"
    assert config.datasets["breakfast"].local == Path("data/tiny/generated/breakfast")


def test_a_missing_key_is_named(tiny):
    del tiny["datasets"]["ucf101"]["clips"]
    with pytest.raises(ConfigError, match=r"datasets\.ucf101\.clips: missing"):
        parse_config(tiny, "my.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [1", "not valid YAML"), ("- 1\n", "a config is a mapping"), ("", "a config is a mapping")],
)
def test_a_file_that_is_no_config(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config("nowhere.yaml")


def test_slices_do_not_depend_on_the_order_of_keys(tiny):
    other = copy.deepcopy(tiny)
    other["datasets"]["ucf101"] = dict(reversed(other["datasets"]["ucf101"].items()))
    one, two = (Config.model_validate(data).cell_slice("ucf101", "vpt") for data in (tiny, other))
    assert slice_hash(one) == slice_hash(two)
    assert slice_lines(one) == slice_lines(two)


def test_lines_name_every_leaf():
    assert slice_lines({"b": {"c": [1, 2], "a": {}}, "a": None}) == ["a = null", "b.a = {}", "b.c = [1, 2]"]


def test_paper_config_has_the_published_recipes():
    config = load_config(ROOT / "config" / "paper.yaml")
    published = {  # epochs, videos a step, per GPU, peak lr, frames, views (temporal, spatial), classes, train, test
        "hmdb51": (10, 32, 8, 7.5e-4, 8, (8, 3), 51, 3570, 1530),
        "ucf101": (10, 32, 8, 1.25e-3, 8, (4, 3), 101, 9537, 3783),
        "ssv2": (7, 512, 8, 8e-4, 8, (2, 9), 174, 168913, 24777),
        "breakfast": (20, 64, 2, 5e-4, 32, (8, 6), 10, 1357, 355),
    }
    assert set(config.datasets) == set(published)
    for name, row in published.items():
        dataset = config.datasets[name]
        recipe, clips, expected = dataset.recipe, dataset.clips, dataset.expected
        views = (clips.test_segments, clips.test_crops)
        lr = config.rows["ssp"].start_on(name)["lr"]
        assert row == (
            *(recipe.epochs, recipe.batch_size, recipe.micro_batch, lr, clips.num_frames, views),
            *(expected.classes, expected.train, expected.test),
        )
        assert (dataset.start.weight_decay, dataset.start.drop_path, recipe.warmup_epochs) == (0.05, 0.4, 5)
        assert recipe.augmentation.flip == (0 if name == "ssv2" else 0.5)
        assert recipe.augmentation.repeats == 2
        assert config.backbone.checkpoints[dataset.checkpoint].num_frames == clips.num_frames


def test_the_published_protocol_differs_from_our_recipes_in_what_it_names_alone():
    ours, published = (load_config(ROOT / "config" / f"{name}.yaml") for name in ("paper", "paper-published"))
    assert (ours.protocol, published.protocol, published.sweep.trials, published.refit) == (
        "fixed",
        "published",
        0,
        True,
    )
    assert all(published.quirk(name) == "published" for name in Quirks.model_fields)
    assert "published protocol" in published.title and "our protocol" in ours.title
    assert published.backbone == ours.backbone and list(published.datasets) == list(ours.datasets)
    for name, dataset in published.datasets.items():
        gpu = 2 if name == "breakfast" else 8  # videos
        recipe = dataset.recipe
        assert recipe.micro_batch == recipe.augmentation.mix_videos == gpu
        assert recipe.co_batched.model_dump() == {"devices": 4, "validation": gpu // 2, "test": 2 * gpu}
        assert recipe.batch_size % (4 * gpu) == 0 and dataset.validation.fraction == 0
        same = {"augmentation": recipe.augmentation.model_copy(update={"mix_videos": None}), "co_batched": None}
        own = ours.datasets[name]
        changes = {"recipe": recipe.model_copy(update=same), "validation": own.validation, "fidelity": own.fidelity}
        if name == "breakfast":
            assert (dataset.stereo_channels, dataset.expected.train, dataset.expected.test) == (2, 1605, 411)
            changes |= {"stereo_channels": 1, "expected": own.expected}
        assert dataset.model_copy(update=changes) == own
        for row in ("ssp", "full"):
            assert published.rows[row].start_on(name) == ours.rows[row].start_on(name)
    assert published.rows["full"].options == {"layer_decay": 0.8} and ours.rows["full"].options == {}
    assert [name for name, row in published.rows.items() if row.published] == ["ssp"]


def test_paper_config_has_every_row_of_the_paper_and_every_method():
    config = load_config(ROOT / "config" / "paper.yaml")
    assert {row.published for row in config.rows.values()} - {None} == set(TITLES)
    assert all(
        config.methods[name].title == TITLES[row.published] for name, row in config.rows.items() if row.published
    )
    assert [row.method for row in config.rows.values() if row.published] == list(TITLES), "in the paper's order"
    assert {row.method for row in config.rows.values()} == set(KNOWN)


def test_no_row_of_the_paper_config_starts_at_the_rate_of_another():
    """The data sets' own start is no one's published rate, and each row names its own."""
    config = load_config(ROOT / "config" / "paper.yaml")
    for name, dataset in config.datasets.items():
        assert dataset.start.lr == 1e-3
        tuned = config.rows["ssp"].start_on(name)["lr"]
        for row in config.methods:
            assert row == "ssp" or config.rows[row].start_on(name)["lr"] not in (tuned, None)


def test_the_ablations_of_the_paper_config():
    config = load_config(ROOT / "config" / "paper.yaml")
    assert {name for name in config.ablations if config.curve_axis(name)} == {"num_prompts", "inner_dim", "attn_dim"}
    assert [point.values["num_prompts"] for point in config.points["num_prompts"]] == [0, 1, 2, 3, 4, 5]
    for name in ("num_prompts", "inner_dim", "attn_dim"):
        assert [point.values for point in config.points[name] if point.row == "ssp"], "the published size is among them"
    assert {ablation.of for ablation in config.ablations.values()} == {"ssp"}
    # What both say is trained once.
    assert "ssp+num_prompts=0" in {p.row for p in config.points["num_prompts"]} & {
        p.row for p in config.points["components"]
    }


def test_paper_config_has_the_published_numbers_of_videos():
    datasets = load_config(ROOT / "config" / "paper.yaml").datasets
    clips = {name: dataset.expected.clips for name, dataset in datasets.items()}
    assert clips == {"hmdb51": 6766, "ucf101": 13320, "ssv2": 220847, "breakfast": None}


def test_paper_config_has_the_rar_form_of_hmdb51_as_a_comment():
    """What a user gets who removes the marks of the comment."""
    path = ROOT / "config" / "paper.yaml"
    block = re.search(r"(?m)^    # archives:\n(    #   .*\n)+", path.read_text())[0].replace("    # ", "")
    data = yaml.safe_load(path.read_text())
    data["datasets"]["hmdb51"] |= yaml.safe_load(block)
    videos, lists = parse_config(data, "my.yaml").datasets["hmdb51"].archives
    assert (videos.file, lists.file) == ("hmdb51_org.rar", "test_train_splits.rar")
    assert all(archive.urls[0].endswith(f"/{archive.file}") for archive in (videos, lists))
    assert lists.md5 == "15e67781e70dcfbdce2d7dbb9b3344b5"


def test_demo_all_has_every_method_and_the_demos_training():
    everything, demo = (load_config(ROOT / "config" / f"{name}.yaml") for name in ("demo-all", "demo"))
    assert sorted(row.method for row in everything.rows.values() if not row.varied) == method_names()
    for name, dataset in everything.datasets.items():
        own = demo.datasets[name]
        assert dataset.generate.model_copy(update={"test": own.generate.test}) == own.generate
        assert (dataset.recipe, dataset.clips, dataset.validation) == (own.recipe, own.clips, own.validation)
    assert everything.data_root != demo.data_root  # or the two would make each other's data anew
    assert everything.backbone_slice("source_f8") == demo.backbone_slice("source_f8")
