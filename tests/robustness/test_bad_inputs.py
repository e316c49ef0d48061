"""Every broken input is one line that names it and exit code 1; nothing half-written is left, and the next run is good.

One table of cases (`corpus*.py`), one test: damage a copy of a finished benchmark, run the command that meets the
damage, look at what it said and left, take the damage back, and run the command again; where it left nothing, that is
the run of the same command in a benchmark in which nothing was ever broken.
"""

import pytest

from tests.robustness.bench import Bench, call, touched
from tests.robustness.corpus import CONFIGS, Case
from tests.robustness.corpus_archives import ARCHIVES
from tests.robustness.corpus_data import ANNOTATIONS, MANIFESTS, VIDEOS
from tests.robustness.corpus_results import CHECKPOINTS, RECORDS, STORES

pytestmark = pytest.mark.slow
CASES = [*CONFIGS, *ARCHIVES, *VIDEOS, *ANNOTATIONS, *MANIFESTS, *CHECKPOINTS, *RECORDS, *STORES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_bad_input(case: Case, bench: Bench, capfd: pytest.CaptureFixture):
    case.damage(bench)
    before = bench.files()
    answer = call(case.command, capfd)
    assert answer.code == 1, answer
    assert len(answer.lines) == 1, answer.err
    assert answer.lines[0].startswith("error: ")
    assert [part for part in case.says if part not in answer.lines[0]] == [], answer.lines[0]
    assert answer.out == ""
    after = bench.files()
    assert touched(before, after, case.touches) == []
    assert [path for path in after if path.endswith(".tmp")] == []
    if case.heals and after != before:
        bench.undo(before)
        again = call(case.command, capfd)
        assert again.code == 0, again


@pytest.mark.parametrize("command", sorted({case.command for case in CASES if case.heals}))
def test_the_command_succeeds_where_nothing_is_broken(command: str, bench: Bench, capfd: pytest.CaptureFixture):
    answer = call(command, capfd)
    assert answer.code == 0, answer
