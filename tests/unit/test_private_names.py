"""No test calls or patches what the library keeps to itself: a private name may change without a test noticing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def defined(source: str) -> set[str]:
    """Private names of a module: functions, classes, attributes, and what stands outside of functions."""
    found = set()

    def visit(node, in_function=False):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function or isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and not in_function:
            found.add(node.id)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function or is_function)

    visit(ast.parse(source))
    return set(filter(is_private, found))


def used(source: str, private: set[str]) -> list[str]:
    """Where a test takes one of the names from something else than itself: by attribute, by import, or in a string."""
    if private.isdisjoint(re.findall(r"\w+", source)):
        return []
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Attribute):
            of_its_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if of_its_own else [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            names = [node.value.rpartition(".")[2]]
        found += [f"line {node.lineno}: {name}" for name in names if name in private]
    return found


def test_no_private_name_of_the_library_is_used():
    modules = [*(ROOT / "ssp").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]
    private = set().union(*(defined(path.read_text()) for path in modules))
    found = {path.relative_to(ROOT).as_posix(): used(path.read_text(), private) for path in TESTS}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "module._unheard_of(1)",
        "from ssp.module import _unheard_of",
        "monkeypatch.setattr(module, '_unheard_of', None)",
        "monkeypatch.setattr('ssp.module._unheard_of', None)",
        "Thing()._unsaid = 1",
    ],
)
def test_a_private_name_is_found(line):
    library = "def _unheard_of(x):\n    _local = x\n\nclass Thing:\n    def __init__(self):\n        self._unsaid = 0\n"
    assert defined(library) == {"_unheard_of", "_unsaid"}
    assert len(used(line, defined(library))) == 1
    assert not used("self._unsaid = _local; other._local; '_unheard_of_too'", defined(library))
