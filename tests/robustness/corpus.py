"""What a case of the corpus of broken inputs is, and those about configs and names."""

from collections.abc import Callable
from typing import NamedTuple

import yaml

from tests.robustness.bench import CELL, CONFIG, Bench

TABLES = "tables"
SWEEP = f"sweep {CELL}"


class Case(NamedTuple):
    """One broken input."""

    name: str
    damage: Callable[[Bench], object]
    command: str
    says: tuple[str, ...]  # parts of the one line on stderr
    touches: tuple[str, ...] = ()  # patterns of files that the failing command may make, change or remove
    heals: bool = True  # with the damage undone, the same command succeeds


def setting(keys: str, value: object) -> Callable[[Bench], object]:
    """A key of the config set to a value."""
    return lambda bench: bench.configure(keys, value)


def written(path: str, content: str | bytes) -> Callable[[Bench], object]:
    """A file replaced."""
    data = content.encode() if isinstance(content, str) else content

    def write(bench: Bench) -> None:
        (bench / path).parent.mkdir(parents=True, exist_ok=True)
        (bench / path).unlink(missing_ok=True)
        (bench / path).write_bytes(data)

    return write


def removed(path: str) -> Callable[[Bench], object]:
    """A file removed."""
    return lambda bench: (bench / path).unlink()


def truncated(path: str, share: float = 0.5) -> Callable[[Bench], object]:
    """A file cut off."""
    return lambda bench: bench.truncate(path, share)


def _replaced(old: str, new: str) -> Callable[[Bench], object]:
    """Text of the config, once."""

    def edit(bench: Bench) -> None:
        text = (bench / CONFIG).read_text()
        assert text.count(old) == 1
        (bench / CONFIG).write_text(text.replace(old, new))

    return edit


def _appended(text: str) -> Callable[[Bench], object]:
    return lambda bench: (bench / CONFIG).write_text((bench / CONFIG).read_text() + text)


def _folder_as_config(bench: Bench) -> None:
    (bench / CONFIG).unlink()
    (bench / CONFIG / "inside").mkdir(parents=True)


def _other_source(source: str) -> Callable[[Bench], object]:
    return lambda bench: bench.configure("datasets.ucf101.source", source)


# What a sweep writes before its first trial may fail: Optuna's journal, which the next sweep goes on with.
STUDY = ("results/tiny/state/sweeps/*",)

CONFIGS = [
    Case(
        "config: unknown key",
        setting("datasets.ucf101.recipe.epoch", 3),
        TABLES,
        (CONFIG, "datasets.ucf101.recipe.epoch: unknown key"),
    ),
    Case("config: missing key", setting("sweep.trials", None), TABLES, (CONFIG, "sweep.trials: missing")),
    Case("config: wrong type", setting("sweep.trials", "many"), TABLES, (CONFIG, "sweep.trials", "'many'")),
    Case("config: unknown method", setting("methods.lora99", {}), "check", (CONFIG, "methods.lora99", "known: ")),
    Case(
        "config: unknown source", _other_source("imagenet"), "check", (CONFIG, "datasets.ucf101.source", "'imagenet'")
    ),
    Case(
        "config: unknown quirk value",
        setting("quirks.merge_ids", "both"),
        TABLES,
        (CONFIG, "quirks.merge_ids: ", "not 'both'"),
    ),
    Case("config: unknown quirk", setting("quirks.colour", "fixed"), TABLES, (CONFIG, "quirks.colour: unknown key")),
    Case("config: unknown protocol", setting("protocol", "mine"), TABLES, (CONFIG, "protocol", "'mine'")),
    Case("config: empty file", written(CONFIG, ""), TABLES, (CONFIG, "empty")),
    Case("config: not YAML", written(CONFIG, "name: [tiny\nseeds: }"), TABLES, (CONFIG, "not valid YAML in line 2")),
    Case("config: not text", written(CONFIG, b"\x89PNG\r\n\x1a\n\xff\xfe\xfa" * 9), TABLES, (CONFIG, "not text")),
    Case("config: a list", written(CONFIG, "- name: tiny\n"), TABLES, (CONFIG, "a config is a mapping", "list")),
    Case("config: a folder", _folder_as_config, TABLES, (CONFIG, "cannot be read (Is a directory)"), heals=False),
    Case("config: no file", removed(CONFIG), TABLES, (CONFIG, "cannot be read (No such file or directory)")),
    Case("config: seed twice", setting("seeds", [0, 0]), TABLES, (CONFIG, "seeds: every seed must be there once")),
    Case("config: negative seed", setting("seeds", [-1]), TABLES, (CONFIG, "seeds", "-1")),
    Case("config: negative sweep seed", setting("sweep.seed", -1), TABLES, (CONFIG, "sweep.seed", "-1")),
    Case(
        "config: name that leaves the folder", setting("name", "../../elsewhere"), TABLES, (CONFIG, "name: ", "'../../")
    ),
    Case(
        "config: range upside down",
        setting("sweep.space", {"lr": {"low": 0.1, "high": 0.01}}),
        TABLES,
        (CONFIG, "sweep.space.lr", "low 0.1 is above high 0.01"),
    ),
    Case(
        "config: log range from nothing",
        setting("methods.ssp.space", {"lr": {"low": 0, "high": 0.1, "log": True}}),
        TABLES,
        (CONFIG, "methods.ssp.space.lr", "must start above 0"),
    ),
    Case(
        "config: infinite learning rate",
        setting("datasets.ucf101.start.lr", float("inf")),
        TABLES,
        (CONFIG, "datasets.ucf101.start.lr", "finite"),
    ),
    Case(
        "config: range without bounds",
        setting("sweep.space", {"lr": {"low": 0.1}}),
        TABLES,
        (CONFIG, "sweep.space.lr", "give either low and high, or choices"),
    ),
    Case(
        "config: space over nothing known",
        setting("sweep.space", {"momentum": {"low": 0, "high": 1}}),
        TABLES,
        (CONFIG, "sweep.space.momentum: not a shared hyper-parameter"),
    ),
    Case(
        "config: unknown checkpoint",
        setting("datasets.ucf101.checkpoint", "k400"),
        TABLES,
        (CONFIG, "datasets.ucf101.checkpoint", "'k400'"),
    ),
    Case(
        "config: key twice",
        _appended("seeds: [1]\n"),
        TABLES,
        (CONFIG, "key 'seeds' is there twice, in line 3 and line "),
    ),
    Case(
        "config: key twice in a section",
        _replaced("    recipe:\n", "    recipe: {epochs: 9}\n    recipe:\n"),
        TABLES,
        (CONFIG, "key 'recipe' is there twice, in line "),
    ),
    # Options are known to the method's own class: met by the check before anything that takes long, or by the sweep.
    *(
        case
        for command, touches in (("check", ()), ("sweep --dataset ucf101 --method ssp", STUDY))
        for case in (
            Case(
                f"config: unknown method option, {command.split(' --')[0]}",
                setting("methods.ssp.options.num_promts", 3),
                command,
                ("methods.ssp.options.num_promts: unknown option; did you mean 'num_prompts'?",),
                touches,
            ),
            Case(
                f"config: method option of the wrong type, {command.split(' --')[0]}",
                setting("methods.ssp.options.num_prompts", "three"),
                command,
                ("methods.ssp.options.num_prompts: ", "not 'three'"),
                touches,
            ),
            Case(
                f"config: space over no option, {command.split(' --')[0]}",
                setting("methods.ssp.space", {"width": {"choices": [1, 2]}}),
                command,
                ("methods.ssp.space.width: no such hyper-parameter or option",),
                touches,
            ),
            Case(
                f"config: malformed randaugment, {command.split(' --')[0]}",
                setting("datasets.ucf101.recipe.augmentation.randaugment", "strong"),
                command,
                ("randaugment: 'strong' is not of the form rand-m7",),
                touches,
            ),
        )
    ),
    Case(
        "config: image smaller than a patch",
        setting("backbone.image_size", 8),
        SWEEP,
        ("img_size 8x8 is smaller than a patch",),
        STUDY,
    ),
    Case(
        "config: storage that is no address",
        setting("sweep.storage", "my studies"),
        SWEEP,
        ("sweep.storage: cannot be opened",),
    ),
    Case(
        "config: tracking that is no address",
        setting("tracking.uri", "my runs"),
        "tracking init",
        ("tracking.uri", "my runs"),
    ),
    Case(
        "config: durations upside down",
        setting("datasets.ucf101.generate.seconds", [2, 1]),
        "data generate --dataset ucf101",
        ("datasets.ucf101.generate.seconds: give the shortest",),
    ),
    Case(
        "config: other counts than are generated",
        setting("datasets.ucf101.expected.test", 21),
        "data generate --dataset ucf101",
        ("datasets.ucf101.expected.test: 21",),
    ),
    Case(
        "config: archives that the layout has not",
        setting("datasets.ucf101.archives", [{"file": "UCF101.rar"}]),
        "data generate --dataset ucf101",
        ("datasets.ucf101.archives: this layout comes as .zip, .zip",),
    ),
    Case(
        "config: a shard that is not there",
        lambda bench: None,
        "data frames --dataset ucf101 --shard 7",
        ("datasets.ucf101.frames", "shard 7"),
        heals=False,
    ),
    Case(
        "config: GPUs that are not there",
        setting("compute", {"train": {"gpus": 1}}),
        SWEEP,
        ("compute.train.gpus: 1 asked for, but torch sees no GPU",),
    ),
    Case(
        "config: several keys wrong", written(CONFIG, yaml.safe_dump({"name": "x"})), TABLES, (CONFIG, "sweep: missing")
    ),
]
