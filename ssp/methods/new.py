"""`ssp new-method`: the files of a tuning method that works as it stands, to be changed into one's own.

Design choices
- It works in a clone: there a method is one file in baselines/, and registered by a line in pyproject.toml.
- All is checked before anything is written; each file is written whole; and what is there already as it would be
  written is left alone, so that the command can be repeated after it was cut off.
- Config and pyproject.toml are edited as text, since comments have to survive, and read again before they are kept.
"""

from __future__ import annotations

import keyword
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ssp.config.plugins import METHODS, PACKAGE, method_targets
from ssp.errors import ConfigError
from ssp.files import write_text

ROOT = PACKAGE.parent
TEMPLATES = Path(__file__).parent / "templates"
RANK = 4  # in the config: small, as the demo's backbone is


def new_method(name: str, config: Path | None = None) -> list[Path]:
    """Write a method's file and test, its entry point, its row in a config, and the pages of the documentation.

    Args:
        name: what configs will call it, such as `my_method`.
        config: the config that gets the row; by default config/demo-all.yaml, which has every method.

    Returns:
        Paths of the files, without the pages of the documentation.

    Raises:
        ConfigError: this is no clone, the name is none or taken, or a file is not as it is expected.
    """
    pyproject, config = ROOT / "pyproject.toml", config or ROOT / "config" / "demo-all.yaml"
    if not pyproject.is_file():
        raise ConfigError(
            "new-method: works in a clone of the repository; elsewhere, register an entry point of your own"
        )
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(f"new-method: '{name}' cannot be a module's name; take one such as my_method")
    kind = "".join(word.capitalize() for word in name.split("_"))
    words = {"name": name, "title": name.replace("_", " ").capitalize(), "class": f"{kind}Tuning"}
    target = f"baselines.{name}:{words['class']}"
    if method_targets().get(name, target) != target:
        raise ConfigError(f"new-method: '{name}' is a method already ({method_targets()[name]})")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    texts = {
        ROOT / "baselines" / f"{name}.py": environment.get_template("method.py.j2").render(words),
        ROOT / "tests" / "methods" / f"test_{name}.py": environment.get_template("test.py.j2").render(words),
    }
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"new-method: {path.relative_to(ROOT)} is there already; take another name")
    texts[pyproject] = _registered(pyproject, name, target)
    texts[config] = _with_row(config, name, words["title"])
    if _is_taken(name):  # last, for it imports torch
        raise ConfigError(f"new-method: '{name}' is a part of the backbone, as parameters' names show; take another")
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    # In a process of its own: this one has already read which methods there are.
    pages = subprocess.run(
        [sys.executable, ROOT / "workflow" / "scripts" / "write_docs.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if pages.returncode:
        raise ConfigError(
            f"new-method: the documentation cannot be written; `make docs` says why\n{pages.stderr[-500:]}"
        )
    return list(texts)


def _is_taken(name: str) -> bool:
    """Whether the bare backbone has an attribute of that name, under which the method would register its modules."""
    import torch

    from ssp.methods.build import build_model

    with torch.device("meta"):
        return hasattr(build_model({"embed_dim": 16, "depth": 1, "patch_size": 8}, "linear", 2, img_size=8), name)


def _registered(pyproject: Path, name: str, target: str) -> str:
    """pyproject.toml with the entry point, in its place in the alphabet if the others are in theirs."""
    lines, head = pyproject.read_text(encoding="utf-8").splitlines(), f'[project.entry-points."{METHODS}"]'
    if head not in lines:
        raise ConfigError(f"pyproject.toml: has no section {head}")
    start = lines.index(head) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].strip() or lines[i].startswith("[")), len(lines))
    line = f'{name} = "{target}"'
    if line not in lines[start:end]:
        lines.insert(next((i for i in range(start, end) if lines[i] > line), end), line)
    text = "\n".join(lines) + "\n"
    if tomllib.loads(text)["project"]["entry-points"][METHODS].get(name) != target:
        raise ConfigError(f"pyproject.toml: {head} cannot be extended; add the line {line}")
    return text


def _with_row(config: Path, name: str, title: str) -> str:
    """A config with the method's row, behind the other rows."""
    from ssp.config import read_yaml

    row = {"title": title, "options": {"rank": RANK}}
    rows = read_yaml(config).get("methods")
    text = config.read_text(encoding="utf-8")
    if isinstance(rows, dict) and name in rows:
        return text
    block = f"  {name}: {{title: {title}, options: {{rank: {RANK}}}}}"
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if re.fullmatch(r"methods:\s*(#.*)?", line)]
    if starts:
        last = starts[0]
        for i in range(starts[0] + 1, len(lines)):
            if re.match(r"[^\s#]", lines[i]):
                break
            if lines[i].strip() and lines[i][0] == " ":
                last = i
        lines.insert(last + 1, block)
        text = "\n".join(lines) + "\n"
        if yaml.safe_load(text).get("methods") == (rows or {}) | {name: row}:
            return text
    raise ConfigError(f"{config}: `methods` is not a block of rows that could be extended; add there {block.strip()}")
