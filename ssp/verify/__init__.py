"""Whether results follow from each other, file by file: for somebody's folder, without data, GPU and torch.

- `reading`: records with their predictions, by several processes where these are many.
- `runs`: choices from their trials, records from their sealed predictions and their choice, readings of test counted.
- `made`: tables, figures, explanations, computed again from records and compared.
- `trace`: one number back to where it comes from.
- Beside that, each file is compared with its checksum in SHA256SUMS, and the folder with what its config asks for.

What is wrong is one line a file. What such a check cannot show is said, too: whoever makes up predictions and all that
follows from them is met by training again, not here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from ssp.config import Config, load_results_config
from ssp.errors import ConfigError
from ssp.files import file_sha256
from ssp.paths import Paths
from ssp.records.explained import explained_datasets
from ssp.records.shared import check_shared, load_contributors, load_left_out
from ssp.records.sums import checked_files, read_sums
from ssp.verify.made import check_made
from ssp.verify.reading import reader
from ssp.verify.runs import check_runs
from ssp.verify.verification import Verification

__all__ = ["Verification", "verify_results"]


def verify_results(folder: Path) -> Verification:
    """Check a folder of results, `results/<name>` or a copy of one.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one of results, such as results/demo")
    found = Verification(folder)
    try:
        config = load_results_config(folder)
    except ConfigError as error:
        found.add("config.yaml", f"{str(error).partition(': ')[2]}; nothing else can be judged without it")
        return found
    left_out: list[str] = []
    with found.of(Paths.of(config).left_out):
        left_out = load_left_out(config)
    hashed = cache(file_sha256)
    _check_sums(found, config, left_out, hashed)
    _check_names(found, config, left_out)
    _check_shared(found, config)
    with reader(config) as read:
        check_runs(found, config, read, hashed)
        check_made(found, config, read)
    found.unshown += [
        "that these predictions are those of these weights: `ssp evaluate` shows it of a run, with data and backbone",
        "that nobody has looked at test by other means than `ssp train` and `ssp evaluate` in this folder",
    ]
    return found


def _check_sums(found: Verification, config: Config, left_out: list[str], hashed: Callable[[Path], str]) -> None:
    """Every file against its checksum, where checksums were written; threads share the hashing out."""
    sums, files = None, checked_files(config)
    with found.of(Paths.of(config).sums):
        sums = read_sums(config)
        if sums is None:
            found.unshown.append(
                "that no byte was changed which nothing follows from (of config, times, curves, trials, report.html): "
                f"{Paths.of(config).sums.name} is not there; the workflow writes it at its end, by hand `ssp seal` does"
            )
    if sums is None:
        return
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(hashed, [found.folder / name for name in files]))
    for name, digest in zip(files, digests, strict=True):
        if name not in sums:
            found.add(name, "not in SHA256SUMS: it came later")
        elif digest != sums[name]:
            found.add(name, "changed: not the SHA-256 that SHA256SUMS has")
    for name in sums.keys() - set(files) - set(left_out):
        found.add(name, "missing, but in SHA256SUMS")
    found.counts["files as SHA256SUMS has them"] = sum(name in sums and name not in found.wrong for name in files)


def _check_shared(found: Verification, config: Config) -> None:
    """What results that were packed or joined say of that goes with what is there."""
    paths = Paths.of(config)
    with found.of(paths.contributors):
        for path, problem in check_shared(config):
            found.add(path, problem)
        if joined := load_contributors(config):
            found.contributors.update(joined.counts())


def _check_names(found: Verification, config: Config, left_out: list[str]) -> None:
    """What the config asks for is there, but for weights that were left out, and in its folders nothing else."""
    there = set(checked_files(config))
    expected = {path.relative_to(found.folder).as_posix() for path in expected_files(config)}
    may_be = {path.relative_to(found.folder).as_posix() for path in optional_files(config)}
    for name in expected - there - set(left_out):
        found.add(name, "missing")
    if absent := len((expected - there) & set(left_out)):
        found.unshown.append(
            f"that {absent} files of tuned weights are the runs' own: they were left out when this was packed; records "
            "have their checksums"
        )
    folders = {name.partition("/")[0] for name in expected | may_be if "/" in name}
    for name in there - expected - may_be:
        if name.partition("/")[0] in folders:
            found.add(name, "nothing that config.yaml asks for; remove it, or take its row, data set or seed in")


def expected_files(config: Config) -> list[Path]:
    """What a finished workflow leaves behind in the folder of its results."""
    paths, runs = Paths.of(config), config.runs()
    used = {config.datasets[name].checkpoint for name in config.datasets}
    return [
        paths.config,
        *(paths.choice(*study) for study in config.studies()),
        *(of(*run) for run in runs for of in (paths.record, paths.predictions, paths.weights)),
        *(paths.kept_manifest(dataset) for dataset in config.datasets),
        *(paths.backbone(name) for name in used if config.backbone.checkpoints[name].pretrain),
        paths.costs,
        *paths.table_files,
        paths.tables_config,
        *paths.figure_files,
        *(path for name in config.ablations for path in (*paths.ablation_tables(name), paths.ablation_config(name))),
        *(path for name in config.ablations if config.curve_axis(name) for path in paths.ablation_curves(name)),
        *(paths.explained(dataset) for dataset in explained_datasets(config)),
        paths.report,
    ]


def optional_files(config: Config) -> list[Path]:
    """What may be there besides: of a run that failed there is no picture, and before any reading no list of them."""
    paths = Paths.of(config)
    return [
        *(paths.readings(*run) for run in config.runs()),
        *(paths.explained_picture(dataset) for dataset in explained_datasets(config)),
        *(paths.backbone_report(name) for name in config.backbone.checkpoints),
    ]
