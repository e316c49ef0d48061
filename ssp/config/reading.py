"""From a YAML file to a checked config; every error is one line that names the file and the key.

A config may build on another: `extends: demo.yaml`, relative to its own file. Mappings merge key by key, null removes a
key, anything else replaces. Checked, copied for the jobs and hashed is the outcome; no trace of `extends` is left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ssp.config.benchmark import Config
from ssp.config.problems import problems
from ssp.errors import ConfigError

EXTENDS = "extends"
_KEY = re.compile(r"(?:^|(?<=; ))[\w-]+(?:\.[\w-]+)*(?=: )")  # in front of a problem


class Origin(str):
    """What messages call a config. Of one that extends others it knows which file says a key."""

    files: dict[tuple[str, ...], str]

    def __new__(cls, name: str, files: dict[tuple[str, ...], str]) -> Origin:
        """Make one of a name, and of the file behind each key."""
        origin = super().__new__(cls, name)
        origin.files = files
        return origin


class _TwiceError(Exception):
    """A key that a mapping has twice; the message says where."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # libyaml's, where PyYAML was built with it, is quicker
    """YAML as it is, but for keys that are there twice: PyYAML would keep the last and say nothing."""

    def construct_document(self, node: yaml.Node) -> Any:  # noqa: ANN401 - whatever a YAML file holds
        _check_keys(node)
        return super().construct_document(node)


def _check_keys(node: yaml.Node) -> None:
    """Raises _TwiceError where a mapping, at any depth, has a key twice."""
    waiting, seen = [node], set()
    while waiting:
        node, lines = waiting.pop(), {}
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:  # an alias leads where its anchor is
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        for key, value in node.value:
            waiting.append(value)
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue  # what `<<: *other` brings may be overridden
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _TwiceError(
                    f"key '{key.value}' is there twice, in line {lines[name]} and line {line}; remove one"
                )
            lines[name] = line


def read_yaml(path: str | Path) -> Any:  # noqa: ANN401 - whatever a YAML file holds
    """Read a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML, or has a key twice; the message names the lines.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
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


class _Dumper(yaml.SafeDumper):
    """YAML in which what stands twice is written twice, without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def yaml_text(data: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    """YAML for a reader: keys in their order, short lists and mappings in one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def load_config(path: str | Path, *, made: bool = False) -> Config:
    """Read and check a config file, with those that it extends.

    Args:
        path: the file.
        made: its results are there, so that it may name methods and sources that are not installed here.

    Raises:
        ConfigError: a file is missing, not YAML, or wrong in a key that the message names.
    """
    return parse_config(*resolved(read_yaml(path), path), made=made).placed(origin=Path(path))


def load_results_config(folder: str | Path) -> Config:
    """Read and check the config of a folder of results, wherever that lies and whatever it is called.

    Raises:
        ConfigError: as `load_config`.
    """
    return load_config(Path(folder) / "config.yaml", made=True).placed(home=Path(folder))


def config_text(config: Config) -> str:
    """The checked copy of a config with all defaults, as YAML: what jobs read, and what lies with the results."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def resolved(data: Any, path: str | Path, below: tuple[Path, ...] = ()) -> tuple[Any, Origin]:  # noqa: ANN401
    """What was read from a file, put over what it extends.

    Args:
        data: the parsed YAML.
        path: the file.
        below: files that extend this one.

    Returns:
        The outcome, without `extends`, and where it comes from.

    Raises:
        ConfigError: a file that is extended is missing, not YAML, no mapping, or extends itself.
    """
    files = {keys: str(path) for keys in _keys(data)}
    if not isinstance(data, dict) or EXTENDS not in data:
        return data, Origin(str(path), files if below else {})
    own, name = {key: value for key, value in data.items() if key != EXTENDS}, data[EXTENDS]
    if not isinstance(name, str):
        raise ConfigError(f"{path}: {EXTENDS}: give the path of one config, relative to this file, not {name!r}")
    base, around = Path(os.path.normpath(Path(path).parent / os.path.expanduser(name))), (*below, Path(path))
    if base.resolve() in (file.resolve() for file in around):
        chain = " > ".join(map(str, (*around, base)))
        raise ConfigError(f"{path}: {EXTENDS}: goes in a circle ({chain}); remove one of them")
    if not base.is_file():
        raise ConfigError(f"{path}: {EXTENDS}: no file {base}; give a path relative to this file")
    under, origin = resolved(read_yaml(base), base, around)
    if not isinstance(under, dict):
        raise ConfigError(f"{base}: a config is a mapping of keys, and {path} extends it")
    return _over(under, own), Origin(str(path), origin.files | files)


def _over(under: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """One mapping put over another."""
    merged = dict(under)
    for key, value in own.items():
        if value is None and key in under:
            del merged[key]
        elif isinstance(value, dict) and isinstance(under.get(key), dict):
            merged[key] = _over(under[key], value)
        else:
            merged[key] = value
    return merged


def _keys(data: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - whatever YAML holds
    """Every key of nested mappings, with those above it."""
    for key, value in data.items() if isinstance(data, dict) else ():
        yield (*above, str(key))
        yield from _keys(value, (*above, str(key)))


def parse_config(data: Any, origin: str, *, made: bool = False) -> Config:  # noqa: ANN401 - whatever YAML holds
    """Check a config that was already read.

    Args:
        data: the parsed YAML.
        origin: name of the file, for the error message; `resolved` has it.
        made: as `load_config`.

    Raises:
        ConfigError: one line with every wrong key and what is expected there.
    """
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{origin}: a config is a mapping of keys, this is {found}")
    try:
        return Config.model_validate(data, context={"made": made})
    except ValidationError as error:
        raise refusal(origin, problems(error, Config)) from None


def refusal(origin: str, problems: str) -> ConfigError:
    """The error for problems that begin with their keys, separated by "; ".

    Where the config extends others, each key gets the file in front that says it.
    """
    files = origin.files if isinstance(origin, Origin) else {}

    def named(found: re.Match[str]) -> str:
        keys = tuple(found[0].split("."))
        said = next((files[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in files), None)
        return f"{said or origin}: {found[0]}" if said or keys[0] in Config.model_fields else found[0]

    text = _KEY.sub(named, problems) if files else problems
    return ConfigError(text if text != problems and _KEY.match(problems) else f"{origin}: {text}")
