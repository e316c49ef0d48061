"""From a YAML file to a checked config; every error is one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ssp.config.benchmark import Config
from ssp.config.problems import problems
from ssp.errors import ConfigError


class _TwiceError(Exception):
    """A key that a mapping has twice; the message says where."""


class _Loader(yaml.SafeLoader):
    """YAML as it is, but for keys that are there twice: PyYAML would keep the last and say nothing."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, lines = super().compose_mapping_node(anchor), {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue  # what `<<: *other` brings may be overridden
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _TwiceError(
                    f"key '{key.value}' is there twice, in line {lines[name]} and line {line}; remove one"
                )
            lines[name] = line
        return node


def read_yaml(path: str | Path) -> Any:  # noqa: ANN401 - whatever a YAML file holds
    """Read a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML, or has a key twice; the message names the lines.
    """
    try:
        return yaml.load(Path(path).read_text(), _Loader)
    except _TwiceError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a config file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text (UTF-8); a config is a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where} ({getattr(error, 'problem', error)})") from None


def load_config(path: str | Path) -> Config:
    """Read and check a config file.

    Raises:
        ConfigError: the file is missing, not YAML, or wrong in a key that the message names.
    """
    return parse_config(read_yaml(path), str(path)).placed(origin=Path(path))


def load_results_config(folder: str | Path) -> Config:
    """Read and check the config of a folder of results, wherever that lies and whatever it is called.

    Raises:
        ConfigError: as `load_config`.
    """
    return load_config(Path(folder) / "config.yaml").placed(home=Path(folder))


def parse_config(data: Any, origin: str) -> Config:  # noqa: ANN401 - whatever a YAML file holds
    """Check a config that was already read.

    Args:
        data: the parsed YAML.
        origin: name of the file, for the error message.

    Raises:
        ConfigError: one line with every wrong key and what is expected there.
    """
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{origin}: a config is a mapping of keys, this is {found}")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {problems(error, Config)}") from None
