"""Errors a user can mend: one clear line that names the file or key and the fix.

The command line turns every `SSPError` into that one line on stderr and exit code 1; any other exception is a defect of
this software and keeps its traceback.
"""


class SSPError(Exception):
    """Base of all errors caused by input; the message is one line with what is wrong, where, and what to do."""


class ConfigError(SSPError):
    """A config file, a key in it, or a name given on the command line is wrong."""


class DataError(SSPError):
    """An archive, annotation, manifest or frame store is missing, damaged or contradicts the config."""


class CheckpointError(SSPError):
    """Weights are missing, misshapen, or of a kind that is never loaded (a file that would run code)."""


class StorageError(SSPError):
    """A file cannot be written or read: the disk is full, read-only or broken, or permission is missing."""


class ServiceError(SSPError):
    """A database or server that the config names does not answer; nobody has to change anything for the next time."""


class RecordError(SSPError):
    """A result record, predictions file or study contradicts its schema or its neighbours."""


def first_line(said: object) -> str:
    """The first line of what an error, or the reason that it holds, says; its kind where it says nothing."""
    lines = str(said).strip().splitlines()
    return lines[0] if lines else type(said).__name__
