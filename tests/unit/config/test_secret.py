"""Addresses from the environment, and messages without passwords."""

import pytest

from ssp.config.secret import public, resolve, without_secret
from ssp.errors import ConfigError


def test_an_address_is_taken_from_the_environment_where_the_config_says_so(monkeypatch):
    monkeypatch.setenv("SSP_STUDIES", "postgresql://me:secret@host/db")
    assert resolve("env:SSP_STUDIES", "sweep.storage") == "postgresql://me:secret@host/db"
    assert resolve("journal", "sweep.storage") == "journal"
    for unset in ("env:SSP_NONE", "env:"):
        with pytest.raises(ConfigError, match=r"sweep\.storage: the environment variable \w* ?is not set here; export"):
            resolve(unset, "sweep.storage")
    monkeypatch.setenv("SSP_STUDIES", "")
    with pytest.raises(ConfigError, match="SSP_STUDIES is not set"):
        resolve("env:SSP_STUDIES", "sweep.storage")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg2://me:s%40cret@host:5432/db", "postgresql+psycopg2://me:***@host:5432/db"),
        ("http://me:s@cret@host", "http://me:***@host"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_an_address_is_shown_without_its_password(address, shown):
    assert public(address) == shown
    assert without_secret(f"no answer from {address}", address) == f"no answer from {shown}"


def test_a_message_may_have_the_password_as_it_was_meant():
    assert without_secret("FATAL: s@cret is wrong", "http://me:s%40cret@host") == "FATAL: *** is wrong"
