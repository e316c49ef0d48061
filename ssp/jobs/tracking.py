"""MLflow: every trial and every seed is a run there, with curves while it trains. No table reads it.

Design choices
- A database backend: SQLite under results/<config>/mlflow, or the address that the config names (a database or a
  server). The database is made once, by a rule of its own (`init_tracking`): several processes that meet a new database
  at once break it. So does a kill in the middle of it, but for SQLite, where half of one never gets its name.
- Runs nest: sweep > trial > fold (of several), cell > seed. The sweep's process makes the cell's parent run and notes
  its id in the choice file, so that seeds which start at the same moment find one parent.
- A killed job leaves a run RUNNING. Its successor finds it by the tag `ssp.key`: continued training goes on in the same
  run, anything else closes it as KILLED.
- Artifacts lie beside the database also after a folder was copied: a copy never writes into the original.
- A tracker that fails halfway stops tracking with a warning; it does not stop the training.
- mlflow is imported when the first run starts (about 2.4 s of CPU with its database part), and sends no telemetry.
"""

from __future__ import annotations

import logging
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssp.config import Config, slice_hash
from ssp.config.secret import ENVIRONMENT, public, resolve, without_secret
from ssp.errors import ConfigError, ServiceError, first_line
from ssp.files import remove_leftovers, temporary_path, write_json
from ssp.paths import Paths

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it has the password, and jobs' output is logged
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # the default waits for minutes

Status = Literal["FINISHED", "FAILED", "KILLED"]
_BATCH = 100  # params and tags that one request may hold


def tracking_uri(config: Config) -> str:
    """Address of the tracking store, with its password."""
    if config.tracking.uri:
        return resolve(config.tracking.uri, "tracking.uri")
    return f"sqlite:///{(Paths.of(config).mlflow / 'mlflow.db').resolve()}"


def shown_uri(config: Config) -> str:
    """The address as it may be written down: without a password, and as the environment variable where it is one."""
    own = config.tracking.uri or ""
    return own if own.startswith(ENVIRONMENT) else public(tracking_uri(config))


def init_tracking(config: Config) -> Path:
    """Make or upgrade the database, make the experiment, and write `ready.json` with their names.

    Raises:
        ConfigError: the database cannot be opened or is a newer MLflow's, or the experiment was deleted.
        ServiceError: no database or MLflow server answers.
    """
    paths, uri = Paths.of(config), tracking_uri(config)
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    name = config.tracking.experiment or config.name
    if uri.startswith(("http://", "https://")):
        _check_server(uri, shown_uri(config))
        location = None  # the server's own
    else:
        _make_database(uri, shown_uri(config))
        location = (paths.mlflow / "artifacts").resolve().as_uri()
    with _asking(uri, shown_uri(config)):
        client = _client(uri)
        found = client.get_experiment_by_name(name)
        identity = found.experiment_id if found else client.create_experiment(name, artifact_location=location)
    if found and found.lifecycle_stage != "active":
        raise ConfigError(
            f"tracking.experiment: '{name}' was deleted at {shown_uri(config)}; restore it or name another one"
        )
    if found and config.tracking.uri is None and found.artifact_location != location:
        _follow(uri, found.artifact_location, location)
    ready = paths.mlflow / "ready.json"
    write_json(ready, _place(config) | {"experiment_id": identity})
    return ready


def _place(config: Config) -> dict[str, str]:
    """Where runs go, as `ready.json` has it; an environment variable may be another one the next time."""
    shown, place = shown_uri(config), {"experiment": config.tracking.experiment or config.name}
    if shown.startswith(ENVIRONMENT):
        place["address"] = slice_hash({"uri": public(tracking_uri(config))})
    return {"uri": shown} | place


def _follow(uri: str, old: str, new: str) -> None:
    """MLflow keeps absolute addresses of artifacts: in a folder that was copied or moved they become its own."""
    from sqlalchemy import create_engine, text

    log.info("artifacts of earlier runs were written to %s; from now on MLflow has them in %s", old, new)
    engine = create_engine(uri)
    with engine.begin() as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved = f"UPDATE {table} SET {column} = :new || substr({column}, :length + 1) "
            moved += f"WHERE {column} = :old OR substr({column}, 1, :length + 1) = :old || '/'"
            database.execute(text(moved), {"old": old, "new": new, "length": len(old)})
    engine.dispose()


def _check_server(uri: str, shown: str) -> None:
    address = re.sub("//[^/]*@", "//", uri.rstrip("/"))  # urllib would take a password for a part of the host
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=20):
            pass
    except (OSError, HTTPException, ValueError) as error:  # the second: what answers speaks something else
        reason = without_secret(first_line(getattr(error, "reason", None) or error), uri)
        raise ServiceError(
            f"tracking.uri: no MLflow server answers at {shown} ({reason}); "
            "start it, or set tracking.uri to null for a database of its own"
        ) from None


def _make_database(uri: str, shown: str) -> None:
    """Make or upgrade a database. A new SQLite file gets its name when complete: MLflow cannot mend half of one."""
    file = re.fullmatch("sqlite:///([^?]+)", uri)
    path = Path(file[1]) if file else None
    if path is None or path.exists():
        _upgrade_database(uri, shown)
        return
    remove_leftovers(path)
    temporary = temporary_path(path)
    try:
        _upgrade_database(f"sqlite:///{temporary}", shown)
        if not path.exists():  # another process may have been quicker, and be at work there
            temporary.rename(path)
    finally:
        remove_leftovers(path)


def _upgrade_database(uri: str, shown: str) -> None:
    """What `mlflow db upgrade` does; `shown` is for messages."""
    from alembic.util.exc import CommandError
    from mlflow.db import upgrade
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    _quiet_mlflow()
    try:
        engine = create_engine(uri)
        inspect(engine).get_table_names()  # mlflow itself would try for minutes
        engine.dispose()
        upgrade.callback(uri)
    except CommandError as error:  # its revision is not known here
        raise ConfigError(
            f"tracking.uri: {shown} cannot be upgraded ({without_secret(first_line(error), uri)}); install the newer "
            "MLflow that has written it, or move it away"
        ) from None
    except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
        reason = without_secret(first_line(getattr(error, "orig", None) or error), uri)
        kind = ServiceError if isinstance(error, OperationalError) else ConfigError
        raise kind(f"tracking.uri: {shown} cannot be opened ({reason}); mend or remove it") from None


def _quiet_mlflow() -> None:
    """Only warnings from now on; importing mlflow sets its own levels, so this comes after."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    _quiet_mlflow()
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _asking(uri: str, shown: str) -> Iterator[None]:
    """A block that asks the tracking store; `shown` is its address for messages.

    Raises:
        ServiceError: it does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = without_secret(first_line(error), uri)
        raise ServiceError(f"tracking.uri: {shown} takes no runs ({reason}); mend or restart it") from None


def _survives(method: Callable) -> Callable:
    """Make a tracking call warn once and stop tracking when it fails, instead of stopping the training."""

    @wraps(method)
    def call(self: TrackedRun, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever the method takes
        if self.broken:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # any failure of the tracker or its transport
            self.broken = True
            said = without_secret(first_line(error), self.client.tracking_uri)
            log.warning("tracking stopped for run %s: %s", self.id, said)

    return call


@dataclass
class TrackedRun:
    """One MLflow run that is being written."""

    client: MlflowClient
    id: str
    broken: bool = False

    @_survives
    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, at: float | None = None) -> None:
        """Log numbers in one request; `at` is Unix time. The same point logged again is kept once."""
        from mlflow.entities import Metric

        stamp = int((at or time.time()) * 1000)
        self.client.log_batch(self.id, metrics=[Metric(k, float(v), stamp, step) for k, v in metrics.items()])

    @_survives
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; a setting cannot be changed later."""
        from mlflow.entities import Param

        entries = [Param(k, str(v)) for k, v in params.items()]
        for i in range(0, len(entries), _BATCH):
            self.client.log_batch(self.id, params=entries[i : i + _BATCH])

    @_survives
    def log_artifact(self, path: Path) -> None:
        """Copy a file into the run's artifacts."""
        self.client.log_artifact(self.id, str(path))

    @_survives
    def finish(self, status: Status = "FINISHED", reason: str | None = None) -> None:
        """Close the run; a reason becomes the tag `ssp.reason`."""
        if reason:
            self.client.set_tag(self.id, "ssp.reason", reason[:5000])
        self.client.set_terminated(self.id, status)


class Tracking:
    """A connection to the tracking store of a config."""

    def __init__(self, config: Config) -> None:
        import json

        self.uri, self.public_uri = tracking_uri(config), shown_uri(config)
        ready, expected = Paths.of(config).mlflow / "ready.json", _place(config)
        try:
            known = dict(json.loads(ready.read_bytes()))
        except (OSError, ValueError, TypeError):  # not there, or not ours
            known = {}
        if {key: known.get(key) for key in expected} != expected:  # a command by hand: no rule came before
            known = json.loads(init_tracking(config).read_text(encoding="utf-8"))
        self.experiment_id = str(known["experiment_id"])
        with _asking(self.uri, self.public_uri):
            self.client = _client(self.uri)
        self._worked = False

    def start(
        self,
        key: str,
        kind: Literal["sweep", "trial", "fold", "cell", "seed"],
        *,
        tags: Mapping[str, str],
        parent: str | None = None,
        resume: bool = False,
    ) -> TrackedRun:
        """Start a run, or go on with one that a killed process left open.

        Args:
            key: what the run is; unique among runs that are open, and its name.
            kind: its level.
            tags: where the numbers come from (commit, hashes, versions).
            parent: id of the run that it is nested under.
            resume: go on in an open run of this key and the same config, data and backbone, if there is one; other open
                runs of the key are closed as KILLED.

        Raises:
            ServiceError: the store does not answer, and has not yet.
        """
        try:
            with _asking(self.uri, self.public_uri):
                run = TrackedRun(self.client, self._open(key, kind, tags, parent, resume))
        except ServiceError as error:
            if not self._worked:
                raise
            log.warning("tracking stopped for %s %s: %s", kind, key, error)
            return TrackedRun(self.client, "", broken=True)
        self._worked = True
        return run

    def _open(self, key: str, kind: str, tags: Mapping[str, str], parent: str | None, resume: bool) -> str:
        """Id of a new run, or of the one to go on in."""
        pattern = f"tags.`ssp.key` = '{key}' and tags.`ssp.kind` = '{kind}' and attributes.status = 'RUNNING'"
        continued = None
        for run in self.client.search_runs([self.experiment_id], pattern):
            same = all(run.data.tags.get(name) == value for name, value in tags.items() if name.endswith("_hash"))
            if resume and same and continued is None:
                continued = run.info.run_id
            else:
                self.client.set_terminated(run.info.run_id, "KILLED")
        if continued:
            return continued
        own = {"ssp.key": key, "ssp.kind": kind} | ({"mlflow.parentRunId": parent} if parent else {})
        run = self.client.create_run(self.experiment_id, run_name=f"{kind} {key}", tags=own | dict(tags))
        return run.info.run_id
