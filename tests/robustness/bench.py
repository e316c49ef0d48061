"""A finished benchmark as small as it gets, to be damaged; and one call of the command line in it.

- Made once by the real commands. Each case gets a copy of its files as its working directory, so that every path in a
  config and in an error message is short and relative.
- `undo` takes back what a case damaged and nothing else: whatever the failing command left stays for the next run.
"""

import contextlib
import hashlib
import logging
import shutil
import sys
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.tiny_benchmark import PLAIN

CONFIG = "tiny.yaml"
CELL = "--dataset ucf101 --method linear"


def tiny_plain(mlflow_db: Path) -> dict[str, Any]:
    """The config: one data set of 40 videos, two methods, one seed, one trial of one epoch."""
    plain = deepcopy(PLAIN)
    plain |= {"seeds": [0], "data_root": "data", "sweep": {"trials": 1, "epochs": 1}}
    plain["tracking"] = {"uri": f"sqlite:///{mlflow_db}", "experiment": "robustness"}
    plain["backbone"]["checkpoints"]["f4"] = {"num_frames": 4, "local": "backbone.safetensors"}
    plain["methods"] = {name: plain["methods"][name] for name in ("linear", "ssp")}
    ucf101 = plain["datasets"]["ucf101"]
    ucf101["local"] = "local"
    ucf101["expected"] |= {"train": 20, "test": 20}
    ucf101["generate"] |= {"train": 20, "test": 20}
    ucf101["recipe"]["epochs"] = 1
    return plain


class Answer(tuple):
    """Exit code, stdout and stderr of a command."""

    code, out, err = (property(lambda self, i=i: self[i]) for i in range(3))

    @property
    def lines(self) -> list[str]:
        """Lines on stderr but the log's, which begin with the time."""
        return [line for line in self.err.splitlines() if not (line[2:3] == line[5:6] == ":" and line[:2].isdigit())]


def call(words: str, capture: pytest.CaptureFixture) -> Answer:
    """The command line in this process; `words` without the program's name, --config is added where it is missing."""
    from ssp.cli import main

    log, arguments = logging.getLogger("ssp"), sys.argv
    sys.argv = ["ssp", *words.split()] + ([] if "--config" in words else ["--config", CONFIG])
    code, handlers = 0, log.handlers[:]
    if frames := sys.modules.get("ssp.data.frames"):  # a real command starts with nothing open
        frames.forget_open_shards()
    capture.readouterr()
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, log.handlers[:] = arguments, handlers
    return Answer((code, *capture.readouterr()))


@dataclass
class Bench:
    """A copy of the finished benchmark; the working directory is its folder."""

    base: Path
    folder: Path

    @classmethod
    def copy(cls, base: Path, folder: Path) -> "Bench":
        """A fresh copy."""
        shutil.copytree(base, folder, dirs_exist_ok=True)
        return cls(base, folder)

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def configure(self, keys: str, value: Any = None) -> None:
        """Set a key of the config, "a.b.c"; None removes it."""
        plain = yaml.safe_load((self / CONFIG).read_text())
        *path, last = keys.split(".")
        at = plain
        for key in path:
            at = at.setdefault(key, {})
        if value is None:
            del at[last]
        else:
            at[last] = value
        (self / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))

    def truncate(self, path: str, share: float = 0.5) -> None:
        """Keep the first part of a file."""
        content = (self / path).read_bytes()
        (self / path).write_bytes(content[: int(share * len(content))])

    def files(self) -> dict[str, str]:
        """Checksum of every file."""
        return checksums(self.folder)

    def undo(self, damaged: dict[str, str]) -> None:
        """Put the files that the case damaged back to what they were; keep what came after."""
        pristine = checksums(self.base)
        for path in pristine.keys() | damaged.keys():
            if pristine.get(path) == damaged.get(path):
                continue
            (self / path).unlink(missing_ok=True)
            if path in pristine:
                (self / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.base / path, self / path)


def checksums(folder: Path) -> dict[str, str]:
    """Path below the folder -> SHA-256 of every file; links are named by where they lead."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    }


def touched(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> list[str]:
    """Files that were made, changed or removed although no pattern allows it."""
    different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return [path for path in different if not any(fnmatch(path, pattern) for pattern in allowed)]


def make_bench(folder: Path, mlflow_db: Path) -> Path:
    """Everything up to the tables, by the functions behind the commands."""
    import torch
    from safetensors.torch import save_file

    from ssp.config import load_config
    from ssp.data.archives import unpack_dataset
    from ssp.data.fetch import fetch_dataset
    from ssp.data.frames import extract_shard
    from ssp.data.manifest import write_manifest
    from ssp.data.synthetic.archives import generate_archives
    from ssp.jobs.costs import measure_costs
    from ssp.jobs.seed import train_cell
    from ssp.jobs.sweep import run_sweep
    from ssp.jobs.tracking import init_tracking
    from ssp.methods.build import build_model
    from ssp.tables import write_tables

    folder.mkdir()
    with contextlib.chdir(folder):
        Path(CONFIG).write_text(yaml.safe_dump(tiny_plain(mlflow_db), sort_keys=False))
        config = load_config(CONFIG)
        torch.manual_seed(0)
        model = build_model(config.backbone.architecture, "linear", 5, num_frames=4, img_size=32)
        state = {name: p.detach() for name, p in model.named_parameters() if not name.startswith("head.")}
        save_file(state, "backbone.safetensors")
        generate_archives(config, "ucf101")
        fetch_dataset(config, "ucf101")
        unpack_dataset(config, "ucf101")
        write_manifest(config, "ucf101")
        extract_shard(config, "ucf101", 0)
        init_tracking(config)
        for method in config.methods:
            run_sweep(config, "ucf101", method)
            train_cell(config, "ucf101", method, 0)
        measure_costs(config)
        write_tables(config)
    return folder
