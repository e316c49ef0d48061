"""Writes what the documentation says about the code from the code: `make docs`; a test fails when the two drift apart.

- docs/reference/config.md from the config models, cli.md from the commands, methods.md from the registered methods.
- The table of methods in README.md and docs/methods.md, between two comments that name this script.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import typer

from ssp.cli import app
from ssp.config import Config
from ssp.files import write_text
from ssp.methods.parameters import parameter_table
from ssp.methods.registry import load_method, method_names
from ssp.records.published import BACKBONE, TITLES, published_parameters

ROOT = Path(__file__).resolve().parents[2]
NOTE = "<!-- Written by workflow/scripts/write_docs.py: change the code, then `make docs`. -->"
START, END = "<!-- methods: written by workflow/scripts/write_docs.py -->", "<!-- end of methods -->"
TABLES = {"README.md": True, "docs/methods.md": False}  # hold the table of methods, in short or whole
DATASET = {"hmdb51": (51, 8)}  # classes and frames; new parameters do not depend on them


def table(head: list[str], rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """A Markdown table; columns numbered in `right` are set flush right."""
    rule = ["---:" if i in right else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [head, rule, *rows])


# -- config ----------------------------------------------------------------------------------------------------------


def config_page() -> str:
    """Every key of a config file, section by section, from the JSON schema of the models."""
    schema = Config.model_json_schema()
    places = _places(schema)
    parts = [
        NOTE,
        "# Config file",
        "A config file is YAML, and what it leaves out has the default given here. A key that is not on this page is "
        "an error. `ssp check CONFIG` reads a config and says what is wrong with it; `config/demo.yaml` and "
        "`config/paper.yaml` are complete examples, and `ssp init` writes one for your own videos.",
        "One more key may stand at the top: `extends: demo.yaml`, the path of another config, relative to the file "
        "that says it. Its keys are taken over: mappings merge key by key, `null` removes a key, lists and single "
        "values replace. Hashes and reruns depend on the outcome alone, and an error names the file that says the "
        "wrong key.",
        "`workflow/schemas/config.schema.json` is the same as a JSON schema, for editors that complete keys.",
        "## Top level",
        _keys(schema),
    ]
    for name, at in places.items():
        section = schema["$defs"][name]
        parts += [f"## {name}", _text(section["description"]), f"At {_listed(at)}.", _keys(section)]
    return "\n\n".join(parts) + "\n"


def _places(schema: dict[str, Any]) -> dict[str, list[str]]:
    """Name of each section -> where it stands, in the order in which a reader meets them."""
    found: dict[str, list[str]] = {}

    def walk(section: dict[str, Any], path: str) -> None:
        for key, value in section["properties"].items():
            for name, suffix in _sections(value):
                place = f"{path}{key}{suffix}"
                found.setdefault(name, [])
                if place not in found[name]:
                    found[name].append(place)
                    walk(schema["$defs"][name], f"{place}.")

    walk(schema, "")
    return found


def _sections(value: dict[str, Any], suffix: str = "") -> list[tuple[str, str]]:
    """Sections that a value may hold, each with what stands between the key and it."""
    if "$ref" in value:
        return [(value["$ref"].rpartition("/")[2], suffix)]
    found = [pair for option in value.get("anyOf", []) for pair in _sections(option, suffix)]
    if isinstance(value.get("items"), dict):
        found += _sections(value["items"], suffix + "[]")
    inside = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
    for option in inside:
        if isinstance(option, dict):
            found += _sections(option, suffix + ".<name>")
    return found


def _keys(section: dict[str, Any]) -> str:
    required = section.get("required", [])
    rows = []
    for key, value in section["properties"].items():
        default = "required" if key in required else _default(value)
        rows.append([f"`{key}`", _kind(value), default, _text(value.get("description", ""))])
    return table(["key", "value", "default", "meaning"], rows)


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, dict):
        return "all defaults" if "$ref" in value else "none"
    if default == []:
        return "none"
    return f"`{_plain(default)}`"


def _plain(value: Any) -> str:  # noqa: ANN401 - whatever a config can hold
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_kind(option) for option in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{option}`" for option in value["enum"])
    kind = value.get("type")
    if kind == "array":
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {_kind(value['prefixItems'][0])}"
        return f"list of {_kind(value['items'])}" if value.get("items") else "list"
    if kind == "object":
        inside = next(iter(value.get("patternProperties", {}).values()), value.get("additionalProperties"))
        return f"by name: {_kind(inside)}" if isinstance(inside, dict) else "by name: anything"
    words = {"integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
    text = "path" if value.get("format") == "path" else "text"
    return words.get(kind, text if kind else "anything") + _bounds(value)


def _bounds(value: dict[str, Any]) -> str:
    low, above, high = (value.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    return f", above {above}" if above is not None else ""


def _text(text: str) -> str:
    """A sentence of the code as Markdown: one line, and `<` outside of code is no tag."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def _listed(places: list[str]) -> str:
    return ", ".join(f"`{place}`" for place in places)


# -- commands --------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its arguments, options and example, from the typer commands."""
    group = typer.main.get_command(app)
    leaves = list(_leaves(group, "ssp"))
    rows = [[f"[`{name}`](#{_anchor(name)})", _text(_first(command.help))] for name, command in leaves]
    parts = [
        NOTE,
        "# Command line",
        f"{_flat(group.help)} `ssp` is the same as `python -m ssp`. Every command explains itself with `--help`. A "
        "mistake of the user is one line on stderr and exit code 1; any other exception is a defect and keeps its "
        "traceback.",
        table(["command", "what it does"], rows),
    ]
    for name, command in leaves:
        rows = [[_parameter(p), "required" if p.required else _shown(p.default), p.help or ""] for p in command.params]
        example = command.epilog.removeprefix("Example: ")
        parts += [f"## {name}", _flat(command.help), table(["argument or option", "default", "meaning"], rows)]
        parts.append(f"```sh\n{example}\n```")
    return "\n\n".join(parts) + "\n"


def _leaves(group: Any, path: str) -> Any:  # noqa: ANN401 - typer's own copy of click has no public types
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _parameter(parameter: Any) -> str:  # noqa: ANN401 - as above
    if not parameter.opts[0].startswith("-"):
        return f"`{parameter.metavar}`"
    kind = parameter.type_descriptor.annotation
    choices = "|".join(choice.value for choice in kind) if isinstance(kind, type) and issubclass(kind, Enum) else ""
    return f"`{' '.join([parameter.opts[0], parameter.metavar or choices]).strip()}`"


def _shown(default: Any) -> str:  # noqa: ANN401 - any default
    return "" if default is None else f"`{default.value if isinstance(default, Enum) else default}`"


def _flat(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _first(text: str) -> str:
    return _flat(text).split("\n\n")[0]


def _anchor(heading: str) -> str:
    """As the site generator (and the hosting service) make them from headings."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


# -- methods ---------------------------------------------------------------------------------------------------------


@cache
def added_parameters() -> dict[str, str]:
    """New parameters (neither head nor final norm) of every registered method at its defaults, on VideoMamba-M."""
    counted = parameter_table([BACKBONE], datasets=DATASET).set_index("method")
    every = counted["trainable"] == counted["total"]
    return {name: "0, all train" if every[name] else f"{counted['extra'][name]:,}" for name in counted.index}


def methods_table(short: bool = False) -> str:
    """Registered methods in the paper's order, then the paper's that are not here, so that the state is never a lie.

    With `short`, those that are not the paper's share the last row.
    """
    added, published = added_parameters(), published_parameters()
    names = [name for name in TITLES if name in added] + [name for name in method_names() if name not in TITLES]
    rows = []
    others = [name for name in names if name not in TITLES] if short else []
    for name in names:
        if name in others:
            continue
        kind = load_method(name)
        rows.append([f"`{name}`", kind.title, added[name], _millions(published.get(name)), "implemented"])
    for name in TITLES:
        if name not in added:
            rows.append([f"`{name}`", TITLES[name], "", _millions(published[name]), "not yet"])
    if others:
        rows.append([", ".join(f"`{name}`" for name in others), "not of the paper", "", "", "implemented"])
    head = ["method", "title", "new parameters", "published", "state"]
    return table(head, rows, right=(2, 3))


def _millions(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.2f} M"


def methods_page() -> str:
    """Every registered method: what it is, where it comes from, its options."""
    added = added_parameters()
    parts = [
        NOTE,
        "# Options of methods",
        "What may stand under `methods.<name>.options` in a config, and in `method_options` of `ssp.build_model`. New "
        "parameters are counted on VideoMamba-M with the defaults, without head and final norm.",
    ]
    for name in method_names():
        kind = load_method(name)
        space = kind().sweep_space()
        searched = ", ".join(f"`{key}` {_range(found)}" for key, found in space.items()) or "nothing of its own"
        parts += [
            f"## {name}",
            f"**{kind.title}.** {_text(_first(sys.modules[kind.__module__].__doc__))}",
            f"Source: {kind.source}. New parameters: {added[name]}. Searched beside the shared space: {searched}.",
        ]
        schema = kind.Options.model_json_schema()
        parts.append(_keys(schema) if schema.get("properties") else "No options.")
    return "\n\n".join(parts) + "\n"


def _range(found: Any) -> str:  # noqa: ANN401 - a Range
    if found.choices is not None:
        return " or ".join(map(_plain, found.choices))
    return f"{_plain(found.low)} to {_plain(found.high)}{' (log)' if found.log else ''}"


# -- files -----------------------------------------------------------------------------------------------------------


def with_table(text: str, methods: str) -> str:
    """A page with the table of methods put between its comments."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"needs the comments {START} and {END}")
    return f"{before}{start}\n\n{methods}\n\n{end}{after}"


def pages() -> dict[str, str]:
    """Path from the repository root -> content, of everything that is written here."""
    reference = {"config": config_page(), "cli": cli_page(), "methods": methods_page()}
    written = {f"docs/reference/{name}.md": text for name, text in reference.items()}
    for path, short in TABLES.items():
        written[path] = with_table((ROOT / path).read_text(encoding="utf-8"), methods_table(short))
    return written


if __name__ == "__main__":
    for path, content in pages().items():
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != content:
            write_text(ROOT / path, content)
            print(f"Wrote {path}")
