"""Who has read test: one line for each finished reading of a run's test videos, `results/<config>/readings/`.

Design choices
- A record cannot remember what was before it: Snakemake removes it before it is made anew. These files are no declared
  output, so they stay.
- A choice is a config slice and the hyper-parameters under it. That another choice than the record's own has read test
  is marked in the tables: whoever made the later one may have looked.
- A training is one reading of its choice, however often it runs: killed between reading and record, or again for a lost
  file or with other code, it leaves no second line. A reading that gave no numbers leaves none.
- No file, no memory, and no harm: nothing but counts and marks follows from it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ssp.config.problems import problems
from ssp.errors import RecordError
from ssp.files import write_text
from ssp.records.record import Chosen, EarlierChoice, Moment, Record, Stored, load_record, running_code, save_record


class Reading(Stored):
    """One reading of all test videos of a run."""

    by: Literal["train", "evaluate"]
    config_hash: str
    hyperparameters: Chosen
    run: Moment

    @property
    def choice(self) -> tuple[str, Chosen]:
        """What was read from."""
        return self.config_hash, self.hyperparameters


def load_readings(path: Path) -> list[Reading]:
    """All readings of a run, oldest first; none where there is no file.

    Raises:
        RecordError: a line is no reading, or the file cannot be read.
    """
    fix = "delete it, and what it remembers of earlier readings is gone; then run again"
    try:
        return [Reading.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); mend that and run again") from None
    except ValidationError as error:
        raise RecordError(f"{path}: not a list of readings of test: {problems(error, Reading)}; {fix}") from None


def this_moment() -> Moment:
    """Now, by the code that runs."""
    return Moment(at=datetime.now(UTC).isoformat(timespec="milliseconds"), commit=running_code().commit)


def note_reading(path: Path, reading: Reading) -> None:
    """Add a reading, that of a training only where its choice has none."""
    known = load_readings(path)
    if reading.by == "train" and any(("train", reading.choice) == (other.by, other.choice) for other in known):
        return
    write_text(path, "".join(f"{one.model_dump_json()}\n" for one in (*known, reading)))


def count_rereading(record_path: Path, path: Path) -> Record:
    """Count that test was read again with the saved weights of a run: among its readings, and in its record."""
    record = load_record(record_path)
    choice = (record.config_hash, record.hyperparameters)
    note_reading(path, Reading(by="evaluate", config_hash=choice[0], hyperparameters=choice[1], run=this_moment()))
    # Of both: the readings may have been deleted, or a kill have come between the two.
    moments = list(dict.fromkeys([*record.rereadings, *rereadings(load_readings(path), choice)]))
    counted = record.model_copy(update={"test_readings": 1 + len(moments), "rereadings": moments})
    save_record(counted, record_path)
    return counted


def counted(readings: list[Reading], choice: tuple[str, Chosen | None]) -> dict[str, Any]:
    """What a record says of the readings of test, from its own choice and from others before."""
    return {
        "test_readings": sum(reading.choice == choice for reading in readings),
        "rereadings": rereadings(readings, choice),
        "earlier_test_readings": earlier_choices(readings, choice),
    }


def rereadings(readings: list[Reading], choice: tuple[str, Chosen | None]) -> list[Moment]:
    """When test was read again from a choice, after its training."""
    return [reading.run for reading in readings if reading.by == "evaluate" and reading.choice == choice]


def earlier_choices(readings: list[Reading], choice: tuple[str, Chosen | None]) -> list[EarlierChoice]:
    """The choices other than this one that test was read from, in the order of their first readings."""
    by_choice: list[tuple[tuple[str, Chosen], list[Reading]]] = []
    for reading in readings:
        own = next((found for other, found in by_choice if other == reading.choice), None)
        if own is None:
            by_choice.append((reading.choice, own := []))
        own.append(reading)
    return [
        EarlierChoice(config_hash=other[0], hyperparameters=other[1], test_readings=len(found))
        for other, found in by_choice
        if other != choice
    ]
