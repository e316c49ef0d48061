"""The stored JSON schema is the one of the config models, and says yes to the shipped configs' keys."""

import importlib.util
import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def _write_schema():
    spec = importlib.util.spec_from_file_location("write_schema", ROOT / "workflow" / "scripts" / "write_schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stored_schema_has_not_drifted():
    module = _write_schema()
    assert module.SCHEMA.read_text() == module.schema(), "run `make schema` and commit the result"


def test_every_key_of_the_shipped_configs_is_in_the_schema():
    schema = json.loads(_write_schema().SCHEMA.read_text())
    for path in (ROOT / "config").glob("*.yaml"):
        data = yaml.safe_load(path.read_text())
        assert set(data) <= set(schema["properties"])
        assert set(schema["required"]) <= set(data)
        for dataset in data["datasets"].values():
            assert set(dataset) <= set(schema["$defs"]["Dataset"]["properties"])
