"""Methods by name: listed without torch, found without installation, one line for an unknown one."""

import subprocess
import sys
from pathlib import Path

import pytest

from ssp.errors import ConfigError
from ssp.methods.method import TuningMethod
from ssp.methods.registry import load_method, method_names

ROOT = Path(__file__).parents[3]


def test_names():
    assert {"ssp", "vpt", "full", "linear"} <= set(method_names())
    assert method_names() == sorted(method_names())


@pytest.mark.parametrize("name", method_names())
def test_every_name_is_a_method(name):
    assert issubclass(load_method(name), TuningMethod)
    assert load_method(name).name == name


def test_unknown_method():
    with pytest.raises(ConfigError, match=r"^unknown method 'magic'; known: .*ssp.*$"):
        load_method("magic")


def test_names_and_config_are_listed_without_torch():
    code = "import sys, ssp.config, ssp.methods.registry as r; r.method_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_library_names_no_baseline():
    """A method is found through its entry point alone."""
    for path in (ROOT / "ssp").rglob("*.py"):
        text = path.read_text()
        assert "import baselines" not in text and "from baselines" not in text, path
