"""Where Optuna keeps studies: a journal file for each, or one relational database for all. No torch here."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from ssp.errors import ConfigError

JOURNAL = "journal"


def open_storage(address: str, journal: Path) -> BaseStorage:
    """The journal file where `address` is "journal", else the database at that URL; both are made if need be.

    Raises:
        ConfigError: the database cannot be opened.
    """
    if address == JOURNAL:
        journal.parent.mkdir(parents=True, exist_ok=True)
        # Absolute: its lock is a link to this path, which Optuna follows to see for how long nobody has released it.
        return JournalStorage(JournalFileBackend(str(journal.absolute())))
    return open_database(address)


def open_database(url: str) -> RDBStorage:
    """A relational database; its tables must be made by one process before several use it."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(f"sweep.storage: cannot be opened ({reason}); give a reachable URL, or journal") from None
