"""Addresses with secrets: the config names an environment variable, `env:NAME`, and what is in it is never written.

A config is kept with the results, its values go into records, packs and logs. Jobs read the variable where they run.
"""

from __future__ import annotations

import os
from urllib.parse import unquote

from ssp.errors import ConfigError

ENVIRONMENT = "env:"


def resolve(address: str, key: str) -> str:
    """An address, from the environment where the config says so.

    Args:
        address: as the config has it.
        key: of the config.

    Raises:
        ConfigError: there is no such environment variable.
    """
    if not address.startswith(ENVIRONMENT):
        return address
    if found := os.environ.get(name := address.removeprefix(ENVIRONMENT)):
        return found
    raise ConfigError(
        f"{key}: the environment variable {name} is not set here; export it where the workflow is started"
    )


def public(address: str) -> str:
    """An address without its password."""
    password = _password(address)
    return address.replace(f":{password}@", ":***@") if password else address


def without_secret(said: str, address: str) -> str:
    """What a library has said about an address, without the password that it may have repeated."""
    for secret in filter(None, {_password(address), unquote(_password(address))}):
        said = said.replace(secret, "***")
    return said


def _password(address: str) -> str:
    head, at, _ = address.rpartition("@")
    return head.rpartition(":")[2] if at and "://" in head and head.count(":") > 1 else ""
