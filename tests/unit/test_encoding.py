"""Text files say their encoding: the locale's is another on the next machine, and people write in all languages."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def unsaid(source: str) -> list[int]:
    """Lines that read or write a file as text without saying its encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if method in ("read_text", "write_text"):
            found.append(node.lineno)
        elif method == "open" or getattr(node.func, "id", "") == "open":
            modes = node.args if method else node.args[1:]  # of other libraries the first argument is a path
            modes = modes or ([] if any(keyword.arg == "fileobj" for keyword in node.keywords) else [ast.Constant("r")])
            if modes and isinstance(modes[0], ast.Constant) and re.fullmatch(r"[rwxat+]+", str(modes[0].value)):
                found.append(node.lineno)
    return found


def test_every_text_file_has_its_encoding_said():
    sources = [path for folder in ("ssp", "baselines", "workflow") for path in (ROOT / folder).rglob("*.py")]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    found = {name: unsaid(source) for name, source in sources.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.read_text(errors='replace')", True),
        ("path.open()", True),
        ("path.open('a')", True),
        ("path.open(newline='')", True),
        ("open(path)", True),
        ("open(path, 'w')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("open(path, 'rb')", False),
        ("path.open('xb')", False),
        ("Image.open(path)", False),
        ("lmdb.open(str(path), subdir=False)", False),
        ("tarfile.open(fileobj=stream, mode='w')", False),
    ],
)
def test_what_is_found(line, is_found):
    assert unsaid(line) == [1] * is_found
