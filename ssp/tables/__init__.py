"""Tables of a config from its result records: CSV for programs, Markdown and LaTeX for readers, and the terminal.

Tables are pure functions of records: same records, same bytes. `cells` reads and checks the records of runs; `crossed`
and `stats` are the statistics, `claims` and `verdict` what the tables claim by them, `power` what they could. `long`
makes the long tables (`costs` that of costs), `layout` cuts those for readers from them, `markup` writes Markdown and
LaTeX, `terminal` prints.
"""

from __future__ import annotations

from pathlib import Path

from ssp.config import Config
from ssp.files import write_text
from ssp.paths import Paths
from ssp.tables.cells import Reader
from ssp.tables.layout import lay_out
from ssp.tables.long import COLUMNS, LongTables, build_tables, made_with, to_csv
from ssp.tables.markup import dataframe_to_latex, dataframe_to_markdown
from ssp.tables.terminal import print_tables

__all__ = ["LongTables", "build_tables", "dataframe_to_latex", "dataframe_to_markdown", "print_tables", "write_tables"]


def write_tables(config: Config) -> list[Path]:
    """Write the tables of a config under `results/<config>/tables`: first all is computed, then each file replaced.

    Returns:
        Paths of what was written: {main, parameters, costs, uncertainty, differences, verdict}.{csv, md, tex},
        pairs.csv, ranks.csv and seeds.csv, and config.json, which says what they were made with.

    Raises:
        RecordError: a record is missing, stale or broken; the message names it and the command that makes it.
    """
    texts = table_texts(config)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def table_texts(config: Config, read: Reader | None = None) -> dict[Path, str]:
    """What the files of the tables are to hold; `read` may remember what it has read.

    Raises:
        RecordError: as `write_tables`.
    """
    tables = build_tables(config, read)
    folder = Paths.of(config).tables
    texts = {folder / f"{name}.csv": to_csv(getattr(tables, name)) for name in COLUMNS}
    for name, layout in lay_out(config, tables).items():
        for kind, text in layout.texts(f"tab:{config.name}-{name}").items():
            texts[folder / f"{name}.{kind}"] = text
    return texts | {Paths.of(config).tables_config: made_with(config.tables_slice())}
