"""The command line: every command explains itself, mistakes are one line, and nothing is imported for a --help."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from ssp.cli import app, main
from ssp.training.stopping import stop_if_asked, stoppable
from tests.unit.tiny_benchmark import PLAIN

ROOT = Path(__file__).parents[3]
COMMANDS = {
    "data": {"generate", "fetch", "unpack", "manifest", "frames", "check"},
    "tracking": {"init"},
    None: {"init", "plan", "rehearse", "check", "pretrain", "fetch-weights", "sweep", "train", "explain", "costs"}
    | {
        "tables",
        "report",
        "params",
        "evaluate",
        "predict",
        "export",
        "power",
        "new-method",
        "ablation",
        "ablation-curve",
    }
    | {"ablation-curve", "verify", "seal", "trace", "pack", "merge", "compare", "status"},
}


def call(monkeypatch, *arguments) -> int:
    """Exit code of the command line with these arguments."""
    monkeypatch.setattr(sys, "argv", ["ssp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_all_commands_of_the_workflow_are_there_with_an_example():
    group = typer.main.get_command(app)
    found = {None: {name for name, command in group.commands.items() if not hasattr(command, "commands")}}
    found |= {name: set(command.commands) for name, command in group.commands.items() if hasattr(command, "commands")}
    assert found == COMMANDS
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {None: command})
        for leaf, command in inner.items():
            words = " ".join(["ssp", name, leaf] if leaf else ["ssp", name])
            assert command.help and command.epilog.startswith(f"Example: {words} "), words


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['ssp', 'train', '--help']\n"
        "from ssp.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'optuna', 'numpy', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Example: ssp train" in done.stdout


@pytest.mark.parametrize(("given", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_do_not_spin_unless_asked_to(given, expected):
    code = (
        "import os, sys; sys.argv = ['ssp', 'tracking', '--help']\n"
        "from ssp.cli import main\n"
        "assert 'torch' not in sys.modules\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == expected


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = PLAIN | {"data_root": "data"}
    plain["backbone"]["checkpoints"]["f4"]["local"] = "backbone.safetensors"
    Path("tiny.yaml").write_text(yaml.safe_dump(plain))
    return "tiny.yaml"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sweep", "--config", "no.yaml", "--dataset", "a", "--method", "b"], "no.yaml: cannot be read"),
        (["sweep", "--dataset", "ssv2", "--method", "ssp"], "--dataset: 'ssv2' is not in tiny.yaml; it has: ucf101"),
        (["train", "--dataset", "ucf101", "--method", "lora", "--seed", 0], "--method: 'lora' is not in tiny.yaml"),
        (["pretrain", "--checkpoint", "f8"], "--checkpoint: 'f8' is not in tiny.yaml; it has: f4"),
        (["fetch-weights", "--checkpoint", "f4"], "backbone.checkpoints.f4 has no archive to fetch"),
        (["train", "--dataset", "ucf101", "--method", "ssp", "--seed", 5], "no seed 5; it has: 0, 1"),
        (
            ["evaluate", "--dataset", "ucf101", "--method", "ssp", "--seed", 0],
            "seed0.json: missing; make it with: python -m ssp train",
        ),
        (["predict", "no.mp4", "--dataset", "ucf101", "--method", "ssp"], "no.mp4"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(config_file, monkeypatch, capsys, arguments, line):
    config = [] if "--config" in arguments else ["--config", config_file]
    assert call(monkeypatch, *arguments, *config) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and line in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "ssp plan: give one config file"),
        (["no.yaml"], "no.yaml: cannot be read"),
        (["tiny.yaml", "--budget", 0], "--budget: 0 hours are none; give a positive number"),
        (["tiny.yaml", "--json", "--requests"], "--budget, --requests, --json: give one of them"),
        (["tiny.yaml", "--requests"], "--requests: nothing was measured"),
        (["tiny.yaml", "--records", "nowhere"], "nowhere: no config.yaml; give a folder of results"),
    ],
)
def test_a_plan_that_cannot_be_made_is_one_line(config_file, monkeypatch, capsys, arguments, line):
    assert call(monkeypatch, "plan", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and line in captured.err


def test_a_plan_is_printed_in_words_and_as_json(config_file, monkeypatch, capsys):
    assert call(monkeypatch, "plan", config_file) == 0
    assert "Speeds assumed, nothing was measured" in capsys.readouterr().out
    assert call(monkeypatch, "plan", config_file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["speeds"]["measured"] is False
    assert call(monkeypatch, "plan", config_file, "--budget", "100") == 0
    assert "the whole config fits" in capsys.readouterr().out


def test_unknown_options_are_refused(monkeypatch, capsys):
    assert call(monkeypatch, "sweep", "--confg", "x") == 2
    assert "--confg" in capsys.readouterr().err


def test_defects_keep_their_traceback(config_file, monkeypatch):
    monkeypatch.setattr("ssp.config.load_config", lambda path, **_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["ssp", "tables", "--config", config_file])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.EACCES, "a.csv: cannot be read or written (Permission denied); give this user the right to, or run as"),
        (errno.EIO, "a.csv: cannot be read or written (Input/output error); see whether the disk is well"),
        (errno.ENOSPC, "a.csv: cannot be written (No space left on device); make room there and run again"),
    ],
)
def test_a_file_that_the_system_refuses_is_one_line(config_file, monkeypatch, capsys, code, line):
    def refuse(path, **_):
        raise OSError(code, os.strerror(code), "a.csv")

    monkeypatch.setattr("ssp.config.load_config", refuse)
    assert call(monkeypatch, "tables", "--config", config_file) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1


def test_ctrl_c_ends_with_130(config_file, monkeypatch, capsys):
    def interrupt(path, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ssp.config.load_config", interrupt)
    assert call(monkeypatch, "tables", "--config", config_file) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_parameters_of_a_config_in_every_format(config_file, monkeypatch, capsys):
    outputs = {}
    for name in ("table", "csv", "md", "tex"):
        assert call(monkeypatch, "params", "--config", config_file, "--format", name) == 0
        outputs[name] = capsys.readouterr().out
    header, *rows = outputs["csv"].splitlines()
    assert header.startswith("backbone,method,dataset,total,trainable,extra,head")
    assert {row.split(",")[1] for row in rows} == set(PLAIN["methods"])
    assert outputs["md"].startswith("| backbone") and r"\toprule" in outputs["tex"]
    total = int(rows[0].split(",")[3])
    assert f"{total:,}" in outputs["table"]


def test_check_says_what_a_config_asks_for(monkeypatch, capsys):
    for arguments in (["config/demo.yaml"], ["--config", "config/demo.yaml"]):
        monkeypatch.chdir(ROOT)
        assert call(monkeypatch, "check", *arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("demo: ") and lines[-1] == "config/demo.yaml is fine"


def test_check_names_the_file_and_all_that_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "config" / "demo.yaml").read_text()
    Path("bad.yaml").write_text(text.replace("inner_dim:", "iner_dim:").replace("num_prompts: 8", "num_prompts: x"))
    assert call(monkeypatch, "check", "bad.yaml") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "error: bad.yaml: methods.vpt.options.num_prompts: give a whole number, not 'x'; "
        "methods.ssp.options.iner_dim: unknown option; did you mean 'inner_dim'?\n"
    )


@pytest.mark.parametrize("command", [["check"], ["data", "check"]])
def test_a_check_wants_one_config(monkeypatch, capsys, command):
    for arguments in ([], ["a.yaml", "--config", "b.yaml"]):
        assert call(monkeypatch, *command, *arguments) == 1
        assert capsys.readouterr().err.startswith(f"error: ssp {' '.join(command)}: give one config file")


def test_tracking_init_makes_both_databases(tiny, tmp_path, monkeypatch, capsys):
    config = tiny(sweep__storage=f"sqlite:///{tmp_path}/studies.db")
    Path("tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Path("results/tiny/mlflow/ready.json").unlink()
    assert call(monkeypatch, "tracking", "init", "--config", "tiny.yaml") == 0
    assert capsys.readouterr().out == "tracking is ready: results/tiny/mlflow/ready.json\n"
    assert Path("results/tiny/mlflow/ready.json").is_file() and Path("studies.db").stat().st_size


def test_sweep_train_evaluate_predict(tiny, tiny_data, tmp_path, monkeypatch, capsys):
    """One cell from the choice to the classes of a video, through the commands alone."""
    config = tiny(sweep__trials=1, sweep__epochs=1)
    Path("tiny.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    cell = ["--config", "tiny.yaml", "--dataset", "ucf101", "--method", "linear"]
    assert call(monkeypatch, "sweep", *cell) == 0
    assert "ucf101 linear: chosen: trial 0 of 1, validation top-1" in capsys.readouterr().out
    assert call(monkeypatch, "train", *cell, "--seed", 0) == 0
    assert "ucf101 linear seed 0: test top-1" in capsys.readouterr().out
    assert call(monkeypatch, "evaluate", *cell, "--seed", 0) == 0
    captured = capsys.readouterr()
    assert "This reads test again, and the record counts it" in captured.err
    assert captured.out.endswith("equal to the record; test was read 2 times from this choice\n")
    record = Path("results/tiny/records/ucf101/linear/seed0.json")
    record.write_text(record.read_text().replace('"correct": ', '"correct": 1'))
    assert call(monkeypatch, "evaluate", *cell, "--seed", 0) == 1
    assert f"\nerror: {record}: test read again gives correct " in capsys.readouterr().err

    import pandas as pd

    from ssp.records.predictions import merge_views, read_predictions

    manifest = pd.read_parquet(tiny_data / "ucf101" / "manifest.parquet").set_index("id")
    merged = merge_views(read_predictions("results/tiny/predictions/ucf101/linear/seed0.parquet")).iloc[0]
    video = tiny_data / "ucf101" / "videos" / manifest.loc[merged["id"], "path"]
    assert call(monkeypatch, "predict", video, *cell) == 0
    lines = capsys.readouterr().out.splitlines()
    names = dict(zip(manifest["label"], manifest["class_name"], strict=True))
    assert len(lines) == 5 and lines[0].split("%")[1].strip() == names[merged["predicted"]]
    shares = [float(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100.01
    Path("broken.mp4").write_bytes(b"this is no video")
    assert call(monkeypatch, "predict", "broken.mp4", *cell) == 1
    assert "\nerror: broken.mp4: cannot be decoded" in capsys.readouterr().err


def test_a_training_that_was_asked_to_stop_says_how_to_go_on(monkeypatch, capfd):
    def asked(*_):
        os.kill(os.getpid(), signal.SIGUSR1)
        stop_if_asked()

    monkeypatch.setattr("ssp.jobs.seed.train_cell", asked)
    cell = ("--config", ROOT / "config/demo.yaml", "--dataset", "hmdb51", "--method", "ssp", "--seed", 0)
    with stoppable():
        code = call(monkeypatch, "train", *cell)
    assert (code, capfd.readouterr().err) == (75, "interrupted (SIGUSR1); run the same command again\n")
