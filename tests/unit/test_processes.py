"""What processes set up for themselves: `ssp.processes`."""

import ctypes
import logging
import sys
from types import SimpleNamespace

import pytest

from ssp.cli import main
from ssp.config import ComputePlan
from ssp.processes import keep_freed_memory
from ssp.training.execution import Execution


def test_a_command_keeps_as_much_memory_as_the_job_in_it(monkeypatch):
    said = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *about: said.append(about)))
    monkeypatch.setattr(sys, "argv", ["ssp", "--help"])
    monkeypatch.setattr(logging.getLogger("ssp"), "handlers", [])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with pytest.raises(SystemExit):
        main()
    of_the_command = said.copy()
    Execution.of(ComputePlan(), "train", "float32")
    assert len(of_the_command) == 2 and said == of_the_command * 2


def test_another_c_library_keeps_what_it_keeps(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
