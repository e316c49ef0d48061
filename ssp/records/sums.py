"""SHA256SUMS of a folder of results: what a byte that was changed later is found by. `sha256sum -c` reads it, too.

Design choices
- All files but those that nothing rests on: logs, times, MLflow's pages, what interrupted jobs continue from, marks.
- Predictions and weights are not read again: their records have sealed them.
- Written when a workflow has come to its end; by hand with `ssp seal`. It says what whoever wrote it had there.
- Light, as Snakemake writes it in its own environment: no torch, no pandas.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ssp.config import Config
from ssp.errors import RecordError
from ssp.files import file_sha256, write_text
from ssp.paths import Paths

UNCHECKED = ("logs", "mlflow", "state", "scan.done", "tracking.done")
"""At the top of a folder of results: nothing that is claimed rests on these. Nor on hidden files."""


def checked_files(config: Config) -> list[str]:
    """All files of the results that something may rest on, as they are called in the folder."""
    paths = Paths.of(config)
    names = (path.relative_to(paths.results) for path in paths.results.rglob("*") if path.is_file())
    return sorted(
        name.as_posix()
        for name in names
        if name.parts[0] not in (*UNCHECKED, paths.sums.name) and not any(part.startswith(".") for part in name.parts)
    )


def write_sums(config: Config) -> Path:
    """Write the checksums of all files of the results that something may rest on.

    Raises:
        RecordError: a record cannot be read.
    """
    paths = Paths.of(config)
    sealed = {}
    for record in paths.results.glob("records/*/*/*.json"):
        try:
            plain = json.loads(record.read_bytes())
            known = {"predictions": plain["predictions"]["sha256"], "weights": plain.get("weights_sha256")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise RecordError(f"{record}: not a valid record; delete it and run the workflow again") from None
        place = (record.parent.parent.name, record.parent.name, record.stem.removeprefix("seed"))
        sealed[paths.predictions(*place)], sealed[paths.weights(*place)] = known["predictions"], known["weights"]
    files = {name: paths.results / name for name in checked_files(config)}
    lines = [f"{sealed.get(path) or file_sha256(path)}  {name}\n" for name, path in files.items()]
    write_text(paths.sums, "".join(lines))
    return paths.sums


def read_sums(config: Config) -> dict[str, str] | None:
    """Checksums by name of the file; None where none were written.

    Raises:
        RecordError: it is not a list of checksums.
    """
    path = Paths.of(config).sums
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None
    found = [re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line) for line in lines]
    if wrong := [i for i, line in enumerate(found, 1) if line is None]:
        raise RecordError(f"{path}: line {wrong[0]} is no checksum and name of a file")
    return {line[2]: line[1] for line in found}
