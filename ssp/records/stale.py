"""Results that today's config would not make, or that are gone although others rest on them: what the plan asks.

Snakemake knows what made a file from notes of its own, in `.snakemake`. A folder that was copied without these, or
whose files were put there by hand, must not pass as done; so the files themselves are asked, as tables ask records.

Design choices
- A file says which slice of a config it was made with (`config_hash`); one that cannot be read is stale. Data that were
  made before they said so are not judged.
- Of data only what is there is judged: who removed them to make room does not need them again.
- JSON alone is read, as it is: no torch, no pandas, and a plan takes no longer for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ssp.config import Config, slice_change, slice_hash
from ssp.files import file_sha256
from ssp.paths import Paths


class Stale(NamedTuple):
    """A file that must be made again."""

    path: Path
    why: str


class Asked:
    """The files of a config, asked rule by rule: the first of a job's that makes it run again, or None."""

    def __init__(self, config: Config) -> None:
        self.config, self.paths = config, Paths.of(config)
        self._sweep = cache(lambda *cell: _hashed(config.sweep_slice(*cell)))
        self._cell = cache(lambda *cell: _hashed(config.cell_slice(*cell)))
        self._exists = cache(Path.exists)
        self._change = cache(lambda old, new: slice_change(json.loads(old), json.loads(new)))
        self._backbone, self._manifest = cache(self._backbone_hash), cache(self._manifest_hash)

    def unpacked(self, dataset: str) -> Stale | None:
        """Of the archives of a data set, which are unpacked."""
        return self._of_data(self.paths.unpacked(dataset), self.config.archive_slice(dataset))

    def manifest(self, dataset: str) -> Stale | None:
        """Of the list of videos."""
        return self._of_data(self.paths.manifest_report(dataset), self.config.manifest_slice(dataset))

    def frames(self, dataset: str, shard: int | str) -> Stale | None:
        """Of a shard of the frame store."""
        return self._of_data(self.paths.shard_report(dataset, shard), self.config.frames_slice(dataset))

    def pretrained(self, checkpoint: str) -> Stale | None:
        """Of a backbone that was pre-trained."""
        return self._of_data(self.paths.backbone_report(checkpoint), self.config.backbone_slice(checkpoint))

    def choice(self, dataset: str, method: str, study: int | None = None) -> Stale | None:
        """Of a sweep."""
        path, asked = self.paths.choice(dataset, method, study), (dataset, method, study)
        trained = [run for run in self.config.runs() if self._study(*run) == asked]
        return self._gone([path], [self.paths.record(*run) for run in trained]) or self._of_runs(
            path, dataset, self._sweep(dataset, method)
        )

    def record(self, dataset: str, method: str, seed: int | str) -> Stale | None:
        """Of a training."""
        run = (dataset, method, seed)
        path, after = self.paths.record(*run), [self.paths.tables_config, self.paths.table_files[0], self.paths.report]
        after += [self.paths.ablation_config(name) for name in self.config.ablations]
        return self._gone([path, self.paths.predictions(*run)], after) or self._of_runs(
            path, dataset, self._cell(dataset, method)
        )

    def costs(self) -> Stale | None:
        """Of the costs."""
        gone = self._gone([self.paths.costs], [self.paths.tables_config, self.paths.report])
        return gone or self._changed(self.paths.costs, _hashed(self.config.costs_slice()))

    def tables(self) -> Stale | None:
        """Of the tables."""
        stamp = self.paths.tables_config
        gone = self._gone([stamp, *self.paths.table_files], [*self.paths.figure_files, self.paths.report])
        return gone or self._changed(stamp, _hashed(self.config.tables_slice()))

    def ablation(self, name: str) -> Stale | None:
        """Of the table of an ablation."""
        stamp = self.paths.ablation_config(name)
        gone = self._gone([stamp, *self.paths.ablation_tables(name)], [self.paths.report])
        return gone or self._changed(stamp, _hashed(self.config.ablation_slice(name)))

    def explained(self, dataset: str) -> Stale | None:
        """Of the picture of what SSP attends to."""
        path, config = self.paths.explained(dataset), self.config
        if gone := self._gone([path], [self.paths.report]):
            return gone
        made, record = _read(path), _read(self.paths.record(dataset, config.explained, config.seeds[0]))
        if made is None or record is None:
            return None
        told, run = made.get("made_from") or {}, record.get("predictions") or {}
        hashes = (self._cell(dataset, config.explained).hash, config.seeds[0], run.get("sha256"))
        if (told.get("config_hash"), told.get("seed"), told.get("predictions")) == hashes:
            return None
        return Stale(path, "made from another run than there is now")

    def _study(self, dataset: str, method: str, seed: int) -> tuple[str, str, int | None]:
        return dataset, self.config.rows[method].tuned_as, self.config.study_of(seed)

    def _of_data(self, path: Path, plain: dict[str, Any]) -> Stale | None:
        made = _read(path)
        unknown = made is None or (made and "config_hash" not in made)
        return None if unknown else self._changed(path, _hashed(plain), made)

    def _of_runs(self, path: Path, dataset: str, wanted: _Hashed) -> Stale | None:
        """Of a choice or a record: made with this config, on these videos, from this backbone."""
        made = _read(path)
        if made is None:
            return None
        if changed := self._changed(path, wanted, made):
            return changed
        checkpoint = self.config.datasets[dataset].checkpoint
        for what, was, now in (
            (f"on another manifest of {dataset}", made.get("manifest_hash"), self._manifest(dataset)),
            (f"with another file of backbone {checkpoint}", made.get("backbone_hash"), self._backbone(checkpoint)),
        ):
            if None not in (was, now) and was != now:
                return Stale(path, f"made {what} than there is now")
        return None

    def _gone(self, paths: Iterable[Path], after: Iterable[Path]) -> Stale | None:
        """The first of some files that is gone, if what was made from them is there."""
        gone = next((path for path in paths if not path.exists()), None)
        rests = next((path for path in after if self._exists(path)), None) if gone else None
        return Stale(gone, f"not there, as {rests} is") if rests else None

    def _changed(self, path: Path, wanted: _Hashed, made: dict[str, Any] | None = None) -> Stale | None:
        made = _read(path) if made is None else made
        if made is None or made.get("config_hash") == wanted.hash:
            return None
        if not made:
            return Stale(path, "cannot be read")
        change = self._change(json.dumps(made["config"]), wanted.text) if isinstance(made.get("config"), dict) else ""
        return Stale(path, "made with another config" + (f" ({change})" if change else ""))

    def _manifest_hash(self, dataset: str) -> str | None:
        return (_read(self.paths.manifest_report(dataset)) or {}).get("hash")

    def _backbone_hash(self, name: str) -> str | None:
        """Of a backbone whose file no slice tells from another."""
        checkpoint = self.config.backbone.checkpoints[name]
        path = checkpoint.local or (self.paths.backbone(name) if checkpoint.pretrain else None)
        with suppress(OSError):  # one that may not be read is not judged either: a job that needs it names it
            return file_sha256(path)[:16] if path and path.is_file() else None
        return None


class _Hashed(NamedTuple):
    """A slice as canonical text, and its hash."""

    hash: str
    text: str


def _hashed(plain: dict[str, Any]) -> _Hashed:
    return _Hashed(slice_hash(plain), json.dumps(plain, sort_keys=True))


def _read(path: Path) -> dict[str, Any] | None:
    """What a JSON file says; None where it is not there, nothing where it cannot be read."""
    try:
        made = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}
