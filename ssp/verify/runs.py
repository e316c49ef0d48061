"""Choices and records of a folder of results: each follows from what it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from ssp.config import Config, slice_hash
from ssp.data.manifest import content_hash, read_manifest
from ssp.paths import Paths
from ssp.records.choice import Choice, last_rung, load_choice, ranked
from ssp.records.predictions import merged_ids, recorded_predictions
from ssp.records.readings import counted, load_readings
from ssp.records.record import Record
from ssp.tables.cells import Reader
from ssp.verify.verification import Verification


def check_runs(found: Verification, config: Config, read: Reader, hashed: Callable[[Path], str]) -> None:
    """Check choices, records, predictions, weights, backbones and the readings of test.

    Args:
        found: what the check has found so far.
        config: of the results.
        read: `read_tested` of it.
        hashed: `file_sha256`, which may remember.
    """
    paths, choices = Paths.of(config), {}
    for study in config.studies():
        path = paths.choice(*study)
        with found.of(path):
            choices[study] = load_choice(path, config, *study)
            for problem in _choice_problems(config, choices[study]):
                found.add(path, problem)
            found.counts["choices"] += 1
    manifests = _manifests(found, config)
    unsealed = undated = 0
    for run in config.runs():
        dataset, method, seed = run
        path = paths.record(*run)
        with found.of(path):
            record, videos = read(*run)
            found.counts["records with their predictions"] += 1
            for problem in _record_problems(
                config, record, choices.get((dataset, config.rows[method].tuned_as, config.study_of(seed)))
            ):
                found.add(path, problem)
            if record.status == "failed":
                predictions = paths.predictions(*run)
                if len(recorded_predictions(predictions, record.predictions.sha256, "")):
                    found.add(predictions, "holds predictions, but its record says that the run failed")
            if dataset in manifests:
                _check_test_list(found, config, record, videos, *manifests[dataset])
            _check_weights(found, paths, record, hashed)
            unsealed += record.weights_sha256 is None
            checkpoint = config.datasets[dataset].checkpoint
            backbone = paths.backbone(checkpoint)  # where the config has pre-trained it
            if backbone.is_file() and record.backbone_hash not in (None, hashed(backbone)[:16]):
                found.add(path, f"was trained from another file than backbone/{backbone.name}")
            _check_readings(found, paths, record)
            undated += record.git.commit == "unknown" or record.git.dirty is not False
    if unsealed:
        found.unshown.append(f"that weights are the runs' own, of {unsealed} records: these are older than that hash")
    if undated:
        found.unshown.append(f"which code made {undated} records: no commit was known, or changes were uncommitted")


def _choice_problems(config: Config, choice: Choice) -> Iterator[str]:
    """What of a choice does not follow from its trials."""
    if slice_hash(choice.config) != choice.config_hash:
        yield "its config is not the one of its config_hash"
    trials, rungs = choice.trials, config.rungs(choice.dataset)
    for number, rung in enumerate(rungs):
        before = [trial for trial in trials if trial.rung == number - 1 and trial.epochs]
        asked = min(rung.trials, len(ranked(before))) if number else rung.trials
        first = sum(earlier.trials for earlier in rungs[:number])
        own = [trial.number for trial in trials if trial.rung == number]
        if own != list(range(first, first + asked)):
            where = f" in rung {number}" if len(rungs) > 1 else ""
            there = ", ".join(map(str, own)) or "none"
            yield f"has trials {there}{where}, not the {asked} that the config asks for"
    if choice.budget != rungs:
        yield "its budget is not that of the config"
    for trial in trials:
        shared = trial.hyperparameters.model_dump()
        values = shared | shared.pop("options")
        if any(values.get(name) != value for name, value in trial.params.items()):
            yield f"trial {trial.number}: its hyperparameters are not those of its params"
        if trial.state == "complete" and (not trial.epochs or trial.epochs[-1].val_top1 != trial.value):
            yield f"trial {trial.number}: its value is not the validation top-1 of its last epoch"
    if not rungs:
        return
    best = next(iter(ranked([trial for trial in last_rung(trials) if trial.epochs])), None)
    outcome = (best.number, best.value, best.hyperparameters) if best else (None, None, None)
    if (choice.trial, choice.value, choice.hyperparameters) != outcome:
        yield f"the best of its trials is {outcome[0]} ({outcome[1]} %), chosen was {choice.trial} ({choice.value} %)"


def _record_problems(config: Config, record: Record, choice: Choice | None) -> Iterator[str]:
    """What of a record does not follow from its config and its choice."""
    if slice_hash(record.config) != record.config_hash:
        yield "its config is not the one of its config_hash"
    if choice is None:
        return
    chosen = choice.hyperparameters
    if chosen is not None:
        varied = config.rows[record.method].varied
        chosen = chosen.model_copy(update={"options": chosen.options | varied})
    if record.hyperparameters != chosen:
        yield "its hyperparameters are not those that the sweep chose"
    if record.sweep != choice.summary():
        yield "what it says of the sweep is not what the choice says"
    if record.manifest_hash != choice.manifest_hash:
        yield "was made from another manifest than its choice"
    if record.backbone_hash != choice.backbone_hash and None not in (record.backbone_hash, choice.backbone_hash):
        yield "was trained from another backbone than its choice was made with"


Listed = set[tuple[str, int, str]]
"""A test list: id as in merged predictions, label and group of each video."""


def _manifests(found: Verification, config: Config) -> dict[str, tuple[str, Listed]]:
    """Hash and test list of the kept manifests, those that can be read."""
    manifests = {}
    for dataset in config.datasets:
        path = Paths.of(config).kept_manifest(dataset)
        if path.is_file():
            with found.of(path):
                manifest = read_manifest(path)
                listed = manifest.loc[manifest["split"] == "test", ["id", "label", "group"]]
                listed = listed.assign(id=merged_ids(listed["id"], config.quirk("merge_ids"))).drop_duplicates("id")
                manifests[dataset] = content_hash(manifest), _videos(listed)
                found.counts["manifests"] += 1
    return manifests


def _videos(rows: pd.DataFrame) -> Listed:
    return set(zip(*(rows[name].tolist() for name in ("id", "label", "group")), strict=True))


def _check_test_list(
    found: Verification, config: Config, record: Record, videos: pd.DataFrame | None, digest: str, listed: Listed
) -> None:
    """Predictions are of the manifest's test videos, under their labels and groups."""
    paths, run = Paths.of(config), (record.dataset, record.method, record.seed)
    if digest != record.manifest_hash:
        found.add(paths.record(*run), f"made with another manifest than manifests/{record.dataset}.parquet")
    if videos is None:
        return
    if strange := _videos(videos) - listed:
        found.add(paths.predictions(*run), f"{len(strange)} videos are not on the test list under that label and group")
    if missing := len(listed) - len(videos):
        found.readings[f"without {missing} broken videos"] += 1


def _check_weights(found: Verification, paths: Paths, record: Record, hashed: Callable[[Path], str]) -> None:
    weights = paths.weights(record.dataset, record.method, record.seed)
    if record.weights_sha256 is None or not weights.is_file():  # a missing one is named already
        return
    found.counts["weights"] += 1
    if hashed(weights) != record.weights_sha256:
        found.add(weights, "not the weights that its record has the SHA-256 of")


def _check_readings(found: Verification, paths: Paths, record: Record) -> None:
    """The record counts the readings that are noted; that of a training with numbers is one of them, and one alone."""
    path = paths.readings(record.dataset, record.method, record.seed)
    if record.test_readings is None:
        found.readings["not noted"] += 1
        return
    if record.test_readings and not path.is_file():
        found.add(path, f"missing; the record counts {record.test_readings} of test")
        return
    with found.of(path):
        readings, choice = load_readings(path), (record.config_hash, record.hyperparameters)
        noted = counted(readings, choice)
        told = record.model_dump(include=set(noted))
        if Record.model_validate(record.model_dump() | noted).model_dump(include=set(noted)) != told:
            found.add(path, f"notes {noted['test_readings']} of this choice and others, its record counts otherwise")
        trained = sum(reading.by == "train" and reading.choice == choice for reading in readings)
        # A failed run may be a training anew of one that had its numbers: that one's reading stays noted.
        if trained > 1 or (record.metrics and not trained):
            found.add(path, f"notes {trained} trainings that read test from this choice")
        words = ("never (failed)", "once", "again by ssp evaluate")
        found.readings[words[min(record.test_readings, 2)]] += 1
        found.readings["after a look from another choice"] += bool(record.earlier_test_readings)
