"""Tables, figures, costs and explanations of a folder of results, computed again and compared byte by byte."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from ssp.config import Config
from ssp.errors import RecordError
from ssp.figures.ablation import write_curve
from ssp.figures.accuracy import write_figures
from ssp.paths import Paths
from ssp.records.costs import load_costs
from ssp.records.explained import explained_datasets, load_explained
from ssp.tables import table_texts
from ssp.tables.ablations import ablation_texts
from ssp.tables.cells import Reader
from ssp.verify.verification import Verification


def check_made(found: Verification, config: Config, read: Reader) -> None:
    """Check what was made from records."""
    paths = Paths.of(config)
    with found.of(paths.costs):
        load_costs(config)
        found.counts["costs"] += 1
    _check_tables(found, config, read)
    _check_figures(found, config, read)
    for dataset in explained_datasets(config):
        run = (dataset, config.explained, config.seeds[0])
        with found.of(paths.explained(dataset)):
            record, _ = read(*run)
            explained, _ = load_explained(config, record)
            if explained.weights != record.weights_sha256 and None not in (explained.weights, record.weights_sha256):
                found.add(paths.explained(dataset), "made from other weights than the record has the SHA-256 of")
            found.counts["explanations"] += 1
    found.unshown.append("that report.html shows these tables: beside its checksum nothing is known of it")


def _check_tables(found: Verification, config: Config, read: Reader) -> None:
    """The tables that these records make, beside those that are there."""
    wanted: list[tuple[str, Callable[[], dict[Path, str]]]] = [("tables", lambda: table_texts(config, read))]
    wanted += [(f"ablation {name}", lambda name=name: ablation_texts(config, name, read)) for name in config.ablations]
    for what, texts in wanted:
        made: dict[Path, str] = {}
        with found.of(Paths.of(config).tables):
            made = texts()
        if not made:
            found.unshown.append(f"that {what} follow from records: not all of these can be taken as they are")
        for path, text in made.items():
            if not path.is_file():
                continue
            found.counts["tables"] += 1
            if path.read_bytes() != text.encode():
                found.add(path, "not what the records make")


def _check_figures(found: Verification, config: Config, read: Reader) -> None:
    """The figures that these tables make; another matplotlib draws other bytes."""
    paths = Paths.of(config)
    other = []
    with tempfile.TemporaryDirectory() as folder:

        def compare(files: Iterable[Path], draw: Callable[[list[Path]], object]) -> None:
            there = [path for path in files if path.is_file()]
            drawn = [Path(folder) / path.name for path in there]
            if not there:
                return
            with found.of(there[0]):
                draw(drawn)
                other.extend(
                    path for path, new in zip(there, drawn, strict=True) if path.read_bytes() != new.read_bytes()
                )
                found.counts["figures"] += len(there)

        compare(paths.figure_files, lambda files: write_figures(config, files))
        for name in config.ablations:
            if config.curve_axis(name):
                compare(paths.ablation_curves(name), lambda files, name=name: write_curve(config, name, files))
    if not other:
        return
    drawn_by = _versions(config, read)
    if drawn_by == {version("matplotlib")}:
        for path in other:
            found.add(path, "not what the tables make")
        return
    found.counts["figures"] -= len(other)
    found.unshown.append(
        f"that {len(other)} figures follow from tables: here is matplotlib {version('matplotlib')}, "
        f"they were drawn by {', '.join(sorted(drawn_by)) or '(unknown)'}"
    )


def _versions(config: Config, read: Reader) -> set[str]:
    """The versions of matplotlib that the records' environments had."""
    known = set()
    for run in config.runs():
        try:
            known.add(read(*run)[0].versions.get("matplotlib", "(unknown)"))
        except RecordError:
            continue
    return known
