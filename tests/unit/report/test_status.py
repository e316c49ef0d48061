"""The status of a workflow is read from its folder: done, running, failed and why; and shown beside one that runs."""

import json
import os
import pty
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from ssp.files import write_json, write_text
from ssp.paths import Paths
from ssp.report.status import follow, read_status, status_lines
from tests.unit.made_records import hits_of, make_config, write_cell


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_config(datasets=("ssv2",), methods=("ssp", "vpt"), seeds=(0, 1))


def stage(status, rule):
    return next((stage.done, stage.of) for stage in status.stages if stage.rule == rule)


def test_nothing_yet(config):
    status = read_status(config)
    assert (status.done, status.running, status.failed) == (0, [], [])
    assert stage(status, "train") == (0, 4) and stage(status, "sweep") == (0, 2)
    assert status_lines(status, 80)[0] == f"0 of {status.of} jobs are done"


def test_done_running_failed_and_stopped(config):
    paths = Paths.of(config)
    write_cell(config, "ssv2", "ssp", 0, hits_of(0.5))
    write_cell(config, "ssv2", "ssp", 1, reason="loss is not finite " + "x" * 2000, parameters=None)
    running = paths.log("train", "ssv2", "vpt", "seed0").with_suffix(".now")
    sign = {"host": socket.gethostname(), "pid": os.getpid(), "job": "17", "began": time.time() - 150}
    write_json(running, sign | {"step": ["tried/ssv2/vpt seed 0", 30, 120, 300.0]})
    write_text(paths.log("train", "ssv2", "vpt", "seed1"), "12:00:00 epoch 1\nerror: no GPU here\n\n")
    write_text(paths.usage("tables"), "s\tmax_rss\tcpu_time\n1\t1\t1\n")
    status = read_status(config)
    assert stage(status, "train") == (2, 4) and stage(status, "tables") == (1, 1)
    assert [name for name, _ in status.failed] == ["train ssv2 ssp seed1", "train ssv2 vpt seed1"]
    lines = status_lines(status, 100)
    assert max(map(len, lines)) == 100  # a reason of two kilobytes is cut
    where = f"on {socket.gethostname()}, batch job 17"
    assert f"  train ssv2 vpt seed0, 25 %, 5:00 min left, for 2:30 min, {where}"[:100] in lines
    assert any(line.endswith("seed1.log ends with: error: no GPU here") for line in status_lines(status, 1000))


def test_a_log_that_goes_away_while_it_is_read_is_none(config, monkeypatch):
    """As Snakemake removes it when it starts the job anew."""
    log = Paths.of(config).log("train", "ssv2", "vpt", "seed1")
    write_text(log, "error: no GPU here\n")
    assert [name for name, _ in read_status(config).failed] == ["train ssv2 vpt seed1"]
    read_text = Path.read_text

    def read_late(path, *arguments, **more):
        path.unlink(missing_ok=True)
        return read_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", read_late)
    assert read_status(config).failed == []
    assert not log.exists()


def test_workers_of_a_sweep_are_done_when_they_say_so_and_when_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = {"trials": 4, "workers": 2}
    config = make_config(datasets=("ssv2",), methods=("ssp", "vpt"), seeds=(0,), sweep=sweep)
    paths = Paths.of(config)
    assert stage(read_status(config), "search") == (0, 4)
    write_text(paths.worker("ssv2", "ssp", 1), "")
    assert stage(read_status(config), "search") == (1, 4)
    write_json(paths.choice("ssv2", "vpt"), {})  # the workers' files are gone by then
    status = read_status(config)
    assert stage(status, "search") == (3, 4) and stage(status, "sweep") == (1, 2)


WORKFLOW = """
import json, os, socket, sys, time
sys.stderr.write("Job 1: Training\\n" * 100)
with open({sign!r}, "w") as file:
    about = dict(host=socket.gethostname(), pid=os.getpid(), job=None, began=time.time(), step=["t", 1, 2, 10.0])
    json.dump(about, file)
time.sleep(3)
os.remove({sign!r})
sys.stderr.write("Error in rule train:\\n    message: it broke\\n\\nafter\\n")
print("the tables")
sys.exit(3)
"""


def in_terminal(act, key_after=None):
    """What a function, called in a process with a terminal of 80 columns, writes there; and its result as exit code.

    Ctrl-C is pressed once a text has appeared.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115 - pytest has replaced them
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that were started in the background ignore it
        code = act()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    said = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        said += part
        if key_after and key_after in said:
            os.write(terminal, b"\x03")
            key_after = None
    return said.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_a_workflow_is_followed_on_a_terminal_and_its_words_go_to_a_file(config, tmp_path, capfd):
    paths = Paths.of(config)
    sign = paths.log("train", "ssv2", "vpt", "seed0").with_suffix(".now")
    sign.parent.mkdir(parents=True)
    command = [sys.executable, "-c", WORKFLOW.format(sign=str(sign.absolute()))]
    with capfd.disabled():
        said, code = in_terminal(lambda: follow(config, command))
    assert code == 3
    assert "jobs are done" in said and "train ssv2 vpt seed0, 50 %" in said and "the tables" in said
    assert "Job 1" not in said and "Error in rule train:" in said and "it broke" in said and "after" not in said
    file = paths.results / "logs" / "workflow.log"
    assert str(file) in said and "Job 1: Training" in file.read_text()


def test_without_a_terminal_the_workflow_speaks_for_itself(config, capfd):
    assert follow(config, [sys.executable, "-c", "import sys; print('out'); sys.exit('words')"]) == 1
    assert capfd.readouterr() == ("out\n", "words\n")
    assert json.dumps([*Paths.of(config).results.glob("logs/*")]) == "[]"


def test_ctrl_c_says_how_to_go_on(config, capfd):
    work = "import time\ntry: print('at work', flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print('saved')"
    command = [sys.executable, "-c", work]
    with capfd.disabled():
        said, code = in_terminal(lambda: follow(config, command), key_after=b"at work")
    assert code == 130
    assert "saved" in said and "Interrupted; jobs save how far they are ..." in said and "Traceback" not in said
    assert said.replace("\r", "").endswith("\nRun the same command again: it goes on from here.\n")
