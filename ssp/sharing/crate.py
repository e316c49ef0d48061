"""`ro-crate-metadata.json` of packed results: a Workflow Run RO-Crate, written by the `rocrate` library.

The workflow that ran, its config and manifests, when it ran, on what, and every file that came out, with its checksum.
Nothing here depends on when or where it is packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from ssp.config import Config
from ssp.files import json_text
from ssp.records.record import Record

METADATA = "ro-crate-metadata.json"
WORKFLOW = "workflow/Snakefile"
LICENCES = "LICENCES.md"
_CRATE = "1.1"  # of the RO-Crate standard, which these profiles build on
_PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
_TERMS = "https://w3id.org/ro/terms/workflow-run/context"  # has sha256
_FORMATS = {
    ".cff": "text/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tex": "application/x-tex",
    ".txt": "text/plain",
    ".yaml": "text/yaml",
}
_INPUTS = ("config.yaml", "manifests/")


class Packed(NamedTuple):
    """A file of the archive."""

    bytes: int
    sha256: str | None
    """None: of the list of checksums itself, which has that of this crate."""


def crate_metadata(config: Config, records: Sequence[Record], files: Mapping[str, Packed]) -> str:
    """The metadata file, as JSON-LD.

    Args:
        config: of the results.
        records: all of them.
        files: everything else in the archive, by name; `workflow/Snakefile` and `LICENCES.md` are among them.
    """
    crate = ROCrate(version=_CRATE)
    crate.metadata.extra_contexts.append(_TERMS)
    entities = {name: _file(crate, name, packed) for name, packed in sorted(files.items())}
    end = max(map(_ended, records))
    crate.name, crate.datePublished, crate.license = config.title, end, entities[LICENCES]
    crate.description = (
        f"Results of {len(records)} trainings of '{config.name}': unpack them and check them with `ssp verify`. "
        f"{LICENCES} says what is known of licences."
    )
    profiles = [
        crate.add(ContextEntity(crate, url, {"@type": "CreativeWork", "name": name, "version": version}))
        for url, name, version in _PROFILES
    ]
    crate.root_dataset["conformsTo"] = profiles
    crate.root_dataset["mentions"] = [_run(crate, config, records, entities, end)]
    return json_text(crate.metadata.generate())


def _file(crate: ROCrate, name: str, packed: Packed) -> Entity:
    about: dict[str, Any] = {"contentSize": str(packed.bytes)}
    about |= {"sha256": packed.sha256} if packed.sha256 else {}
    suffix = name[name.rfind(".") :] if "." in name else ""
    about |= {"encodingFormat": _FORMATS[suffix]} if suffix in _FORMATS else {}
    if name == WORKFLOW:
        return crate.add_workflow(None, name, main=True, lang="snakemake", properties=about | {"name": "Benchmark"})
    return crate.add_file(None, name, properties=about)


def _run(crate: ROCrate, config: Config, records: Sequence[Record], files: dict[str, Entity], end: datetime) -> Entity:
    """What was done: the workflow, on what, when, by which code, and what came out."""
    commits = sorted({record.git.commit for record in records})
    devices = sorted({record.device for record in records})
    inputs = [name for name in files if name.startswith(_INPUTS)]
    made = ("tables/", "figures/", "records/", "predictions/", "weights/", "sweeps/", "explained/", "report.html")
    action = crate.add_action(
        instrument=files[WORKFLOW],
        identifier="#run",
        object=[files[name] for name in inputs],
        result=[files[name] for name in files if name.startswith(made)],
        properties={
            "name": f"Run of {config.name}",
            "description": f"{len(records)} trainings on {', '.join(devices)}, by commit {', '.join(commits)}.",
            "startTime": min(map(_started, records)).isoformat(),
            "endTime": end.isoformat(),
        },
    )
    action["actionStatus"] = "http://schema.org/CompletedActionStatus"
    return action


def _started(record: Record) -> datetime:
    return datetime.fromisoformat(record.run.started)


def _ended(record: Record) -> datetime:
    return _started(record) + timedelta(seconds=record.run.seconds - record.run.seconds_before)
