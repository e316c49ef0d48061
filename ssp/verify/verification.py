"""What a check of results has found, and how it is told."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ssp.errors import SSPError


@dataclass
class Verification:
    """What a check of a folder has found so far."""

    folder: Path
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by the file's name in the folder."""
    counts: Counter = field(default_factory=Counter)
    """What was checked."""
    readings: Counter = field(default_factory=Counter)
    """Runs by how test was read."""
    contributors: Counter = field(default_factory=Counter)
    """Records by who contributed them, where results were joined."""
    unshown: list[str] = field(default_factory=list)
    """What this check cannot show of this folder."""

    def add(self, path: Path | str, problem: str) -> None:
        """Note that a file is not as it should be."""
        name = Path(path)
        name = name.relative_to(self.folder) if name.is_relative_to(self.folder) else name
        problems = self.wrong.setdefault(name.as_posix(), [])
        if problem not in problems:
            problems.append(problem)

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """A block that reads a file; what it raises is noted of the file that the message names, else of `path`."""
        try:
            yield
        except SSPError as error:
            named, _, problem = str(error).partition(": ")
            if problem and Path(named).is_relative_to(self.folder):
                self.add(named, problem)
            else:
                self.add(path, str(error))

    @property
    def lines(self) -> list[str]:
        """One line for each file that something is wrong with."""
        return [f"{name}: {'; '.join(problems)}" for name, problems in sorted(self.wrong.items())]

    def told(self, name: object = None, width: int = 80) -> str:
        """What was checked, and what this cannot show; `name` is what to call it, by default its folder."""
        outcome = f"{len(self.wrong)} files are not as they should be" if self.wrong else "all of this goes together"

        def counted(counts: Counter) -> str:
            return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

        paragraphs = [f"{name or self.folder}: {outcome}. Checked: {counted(self.counts) or 'nothing'}."]
        if self.readings:
            paragraphs.append(f"Runs by how test was read: {counted(self.readings)}.")
        if self.contributors:
            told = ", ".join(f"{name} ({count})" for name, count in self.contributors.items())
            paragraphs.append(f"Records joined from: {told}.")
        lines = [line for text in paragraphs for line in textwrap.wrap(text, width, break_on_hyphens=False)]
        if self.unshown:
            lines.append("Not shown by this check:")
        for text in self.unshown:
            lines += textwrap.wrap(f"- {text}", width, subsequent_indent="  ", break_on_hyphens=False)
        return "\n".join(lines)
