"""Own videos in a table: a CSV with the columns `path` and `label`, and where it says more split, group, start, end.

- Paths are relative to the CSV's folder. Labels follow the sorted names, or numbers, of the classes.
- `split` is train, val or test, in every line or in none.
- `group` is what must not straddle train and test: a person, a place, a recording; without it each video is its own.
- `start` and `end` are seconds: the line is about that segment of the video, which may have more lines then.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from ssp.data.sources import SPLITS, VIDEO_SUFFIXES, Entry, Listing, Tree, numbered
from ssp.errors import DataError

REQUIRED = ("path", "label")
COLUMNS = (*REQUIRED, "split", "group", "start", "end")


def read(tree: Tree, split: int) -> Listing:
    """The videos, or segments of videos, of the table."""
    table = tree.one("*.csv")
    lines = [*_lines(table)]
    labels = numbered({row["label"] for _, row in lines}, str(table))
    there, seen, entries = set(tree.videos), {}, []
    for number, row in lines:
        path = os.path.relpath(row["path"], tree.folder) if os.path.isabs(row["path"]) else row["path"]
        path = Path(os.path.normpath(path)).as_posix()
        if path not in there:
            raise DataError(f"{table}: line {number}: {_missing(tree.folder, path)}; mend the line, or remove it")
        try:
            segment = _segment(row)
            part = _split(row)
        except ValueError as problem:
            raise DataError(f"{table}: line {number}: {problem}") from None
        before, label = seen.setdefault((path, segment), (number, row["label"]))
        if before != number:
            what = "twice" if label == row["label"] else f"as '{label}' and as '{row['label']}'"
            raise DataError(
                f"{table}: line {number}: '{path}' is listed {what} (see line {before}); "
                "a video has one label: remove a line, or give start and end of segments"
            )
        name = path if segment is None else f"{path}#{row.get('start') or 0}-{row.get('end', '')}"
        entries.append(Entry(name, path, labels[row["label"]], row["label"], part, row.get("group") or path, segment))
    if any(row.get("split") for _, row in lines) and (without := [n for n, row in lines if not row.get("split")]):
        raise DataError(f"{table}: line {without[0]}: no split; write train, val or test in every line, or in none")
    return Listing([*labels], entries)


def _lines(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines with their numbers, cells without blanks around them."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            head = [name.strip().lower() for name in next(rows, [])]
            _check_head(table, head)
            for cells in rows:
                if not any(map(str.strip, cells)):
                    continue
                row = dict(zip(head, map(str.strip, cells), strict=False))
                if len(cells) != len(head) or not all(row[name] for name in REQUIRED):
                    raise DataError(
                        f"{table}: line {rows.line_num}: give {', '.join(head)}, separated by commas (a cell that "
                        'holds one stands in "quotes"); path and label cannot be empty'
                    )
                yield rows.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read ({error}); save it as CSV in UTF-8") from None


def _check_head(table: Path, head: list[str]) -> None:
    """The first line names known columns, each once, path and label among them."""
    known = ", ".join(COLUMNS)
    if missing := [name for name in REQUIRED if name not in head]:
        raise DataError(
            f"{table}: line 1: no column '{missing[0]}'; name the columns there, separated by commas: {known}"
        )
    for name in head:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, n=1)
            fix = f"did you mean '{near[0]}'?" if near else "remove it"
            raise DataError(f"{table}: line 1: unknown column '{name}'; {fix} known: {known}")
        if head.count(name) > 1:
            raise DataError(f"{table}: line 1: column '{name}' is there twice; remove one")


def _missing(folder: Path, path: str) -> str:
    """Why a path is none of the videos below the folder."""
    if path.startswith("../"):
        return f"'{path}' lies outside of {folder}; put the table into a folder above all its videos"
    if (folder / path).is_file():
        return f"'{path}' is no video by its name ({', '.join(VIDEO_SUFFIXES)})"
    return f"no file '{path}' in {folder}"


def _split(row: dict[str, str]) -> str | None:
    said = row.get("split", "").lower()
    if said and said not in SPLITS:
        raise ValueError(f"split '{row['split']}' is not known; write train, val or test")
    return SPLITS.get(said)


def _segment(row: dict[str, str]) -> tuple[float, float | None] | None:
    """Start and end in seconds; no end: that of the video; None: the whole video."""
    if not row.get("start") and not row.get("end"):
        return None
    try:
        start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
    except ValueError:
        raise ValueError("start and end are no numbers; write seconds, such as 12.5") from None
    if not 0 <= start < (math.inf if end is None else end) or (end is not None and not math.isfinite(end)):
        raise ValueError(f"start {start:g} and end {end} are no segment; write seconds, the smaller first")
    return start, end
