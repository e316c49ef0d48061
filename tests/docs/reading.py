"""What the documentation consists of: its pages, code blocks, commands and links."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("ssp", "snakemake", "make", "python", "pip", "conda", "bash", "mlflow", "pytest", "ruff", "snakefmt", "git")
OTHERS = ("source", "pre-commit", ".ci/run")  # in shell blocks only
PAGES = sorted(
    [ROOT / "README.md", ROOT / "results" / "README.md", *(ROOT / "docs").rglob("*.md")]
    + [page for page in (ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md") if page.exists()]
)
FENCE = re.compile(r"^ *```(\S*).*?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def is_shell(self):
        lines = [line for line in self.text.splitlines() if line and not line.startswith((" ", "#"))]
        plain = all(line.removeprefix("$ ").split()[0] in (*PROGRAMS, *OTHERS) for line in lines)
        return self.language == "sh" or (not self.language and plain)


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def without_blocks(page):
    return FENCE.sub("", page.read_text())


def commands(page):
    """Command lines of a page as lists of words, and whether each is whole: in a sentence a part may be left out."""
    lines = []
    for block in blocks(page):
        if block.is_shell:
            text = block.text.replace("\\\n", " ").replace(" && ", "\n")
            lines += [(line, True) for line in text.splitlines()]
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_blocks(page))
    lines += [(code, False) for code in inline if code.split()[0] in PROGRAMS and len(code.split()) > 1]
    found = []
    for line, whole in lines:
        words = [word for word in shlex.split(line.removeprefix("$ "), comments=True) if word != "…"]
        if words:
            found.append((words, whole))
    return found


def anchors(page):
    """Anchors of a page's headings, as the site generator and the hosting service make them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def links(page):
    """Relative links and pictures of a page: (path or "", anchor or "")."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))
    return [target.partition("#")[::2] for target in targets if not re.match(r"[a-z]+:", target)]
