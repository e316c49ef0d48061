"""One archive of results that others can check, cite and add to: a zip with everything that a claim rests on.

Design choices
- Only what verifies is packed, so what is packed verifies; a file that changes in between is noticed.
- The same results give the same archive: files in order, without times, and nothing is said of who packs or when.
- Tuned weights may stay out. `left_out.json` names these and their checksums stay, so nothing else may be missing.
- Logs, times, MLflow and what interrupted jobs continue from stay out: nothing rests on them.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from ssp.config import Config, load_results_config
from ssp.errors import ConfigError, RecordError
from ssp.files import atomic_path, file_sha256, json_text
from ssp.paths import Paths
from ssp.records.record import Record, load_record
from ssp.records.shared import LeftOut, load_left_out
from ssp.records.sums import checked_files, read_sums
from ssp.sharing.crate import LICENCES, METADATA, WORKFLOW, Packed, crate_metadata
from ssp.sharing.notes import environment_lock, licence_notes
from ssp.sharing.weights import Weights
from ssp.tables.long import read_tables
from ssp.verify import verify_results

REPOSITORY = Path(__file__).resolve().parents[2]
_DENSE = (".parquet", ".safetensors", ".png", ".pdf")  # compressed as they are, or noise
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name


def pack(folder: Path, out: Path | None = None, weights: Weights = Weights.all) -> Path:
    """Pack a folder of results that verifies.

    Args:
        folder: of results.
        out: the archive; by default <name of the config>.zip here.
        weights: which tuned weights go along.

    Returns:
        The archive.

    Raises:
        ConfigError: `out` is no zip or lies in the folder, or weights that are wanted are not there.
        RecordError: the folder does not verify, or changed while it was packed.
    """
    found = verify_results(folder)
    if found.wrong:
        more = f" (and {len(found.wrong) - 1} more files)" if len(found.wrong) > 1 else ""
        raise RecordError(f"{folder}: not in order: {found.lines[0]}{more}; `ssp verify` names all, mend these first")
    config = load_results_config(folder)
    out = out or Path(f"{config.name}.zip")
    if out.suffix != ".zip" or out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--out: {out}: give a name that ends in .zip, outside of {folder}")
    left_out = _left_out(config, weights)
    contents = _contents(config, left_out)
    sums = read_sums(config) or {}
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(contents):
            sha256 = _write(archive, name, contents[name])
            if isinstance(contents[name], Path) and sums.get(name, sha256) != sha256:
                raise RecordError(f"{folder / name}: changed while it was packed; pack again when nothing runs there")
    return out


def _left_out(config: Config, weights: Weights) -> list[str]:
    """The weights that are not packed, as they are called in the folder."""
    paths = Paths.of(config)
    files = {run: paths.weights(*run).relative_to(paths.results).as_posix() for run in config.runs()}
    wanted = {Weights.all: set(files), Weights.none: set()}.get(weights)
    if wanted is None:
        best = _best_rows(config)
        wanted = {run for run in files if best.get(config.column_of(run[0])) == run[1]}
    absent = set(load_left_out(config))
    if missing := sorted(files[run] for run in wanted if files[run] in absent):
        raise ConfigError(f"--weights {weights}: {missing[0]} was left out of these results; give --weights none")
    return sorted(name for run, name in files.items() if run not in wanted)


def _best_rows(config: Config) -> dict[str, str]:
    """The row with the highest mean of each column; none where all have failed."""
    main = read_tables(config).main
    main = main[main["mean"].notna()]
    return {dataset: rows.loc[rows["mean"].idxmax(), "method"] for dataset, rows in main.groupby("dataset")}


def _contents(config: Config, left_out: list[str]) -> dict[str, Path | bytes]:
    """What goes into the archive, by name: files of the results, and what is written about them."""
    paths = Paths.of(config)
    contents: dict[str, Path | bytes] = {
        name: paths.results / name for name in checked_files(config) if name not in left_out and name != METADATA
    }
    records = [load_record(paths.record(*run)) for run in config.runs()]
    contents |= _about(config, records)
    contents.pop(paths.left_out.name, None)
    if left_out:
        told = LeftOut(weights=left_out).model_dump(mode="json")
        contents[paths.left_out.name] = json_text(told).encode()
    known = read_sums(config) or {}
    sums = {name: known[name] for name in left_out if name in known}
    sums |= {name: _sha256(content, known.get(name)) for name, content in contents.items()}
    packed = {name: Packed(_size(content), sums[name]) for name, content in contents.items()}
    # The list of checksums has that of the crate, so its size alone is known before: one line more.
    lines = len("".join(_line(name, sha256) for name, sha256 in (sums | {METADATA: "0" * 64}).items()).encode())
    packed[paths.sums.name] = Packed(lines, None)
    contents[METADATA] = crate_metadata(config, records, packed).encode()
    sums[METADATA] = _sha256(contents[METADATA], None)
    contents[paths.sums.name] = "".join(_line(name, sums[name]) for name in sorted(sums)).encode()
    return contents


def _about(config: Config, records: Iterable[Record]) -> dict[str, bytes]:
    """Citation, licences, environment and workflow.

    Raises:
        ConfigError: the software was installed without its repository's files.
    """
    rules = sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("workflow/rules/*.smk"))
    files = ["CITATION.cff", WORKFLOW, *rules]
    for name in (*files, "requirements.txt"):
        if not (REPOSITORY / name).is_file():
            raise ConfigError(f"{REPOSITORY / name}: missing; run `ssp pack` in a checkout of the repository")
    found = {name: (REPOSITORY / name).read_bytes() for name in files}
    lock = environment_lock(records, REPOSITORY / "requirements.txt")
    return found | {"environment.txt": lock.encode(), LICENCES: licence_notes(config).encode()}


def _line(name: str, sha256: str) -> str:
    return f"{sha256}  {name}\n"


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sha256(content: Path | bytes, known: str | None) -> str:
    """Of a file that was verified it is known."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return known or file_sha256(content)


def _write(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> str:
    """Add a file, and give the SHA-256 of what was added."""
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system, member.external_attr = 3, 0o100644 << 16  # whichever system packs
    member.compress_type = zipfile.ZIP_STORED if name.endswith(_DENSE) else zipfile.ZIP_DEFLATED
    member.file_size = _size(content)
    hashed = hashlib.sha256()
    source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with source, archive.open(member, "w") as target:
        while chunk := source.read(1 << 20):
            hashed.update(chunk)
            target.write(chunk)
    return hashed.hexdigest()
