"""Writes workflow/schemas/config.schema.json from the config models; a test fails when the two drift apart."""

import json
from pathlib import Path

from ssp.config import Config
from ssp.files import write_text

SCHEMA = Path(__file__).resolve().parent.parent / "schemas" / "config.schema.json"


def schema() -> str:
    """The JSON schema of config files, as stored (`ssp.config` also checks what a schema cannot say)."""
    return json.dumps(Config.model_json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema())
    print(f"Wrote {SCHEMA}")
