"""`ssp verify`: what is in order passes, and a byte that was changed in any file that something rests on is named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_config, load_results_config
from ssp.files import file_sha256, write_text
from ssp.records.choice import Choice
from ssp.records.predictions import SCHEMA, merge_views, metrics, read_predictions
from ssp.records.readings import Reading
from ssp.records.record import Chosen, EarlierChoice, Moment, load_record, save_record
from ssp.records.sums import UNCHECKED, write_sums
from ssp.verify import verify_results
from ssp.verify.reading import processes
from tests.unit.made_results import make_tables

NOTHING_RESTS_ON = ["logs/train.log", "logs/train.tsv", "mlflow/mlflow.db", "scan.done", "state/x.journal"]


@pytest.fixture(scope="module")
def made(made_results):
    """A folder of results in order, and its files."""
    folder = made_results
    return folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def drawing():
    """A test that asks for this draws figures anew."""


@pytest.fixture(autouse=True)
def drawn_before(made, request, monkeypatch):
    """Drawing takes most of the time of a check: what comes out is what came out at first, but where a test draws."""
    if "drawing" in request.fixturenames:
        return

    def copied(config, *rest):
        for path in rest[-1]:
            (original,) = (made[0] / "figures").rglob(path.name)
            shutil.copy(original, path)

    for drawing in ("write_figures", "write_curve"):
        monkeypatch.setattr(f"ssp.verify.made.{drawing}", copied)
        monkeypatch.setattr(f"tests.unit.made_results.{drawing}", lambda *_: None)


@pytest.fixture
def results(made, tmp_path):
    """A copy of it, under another name, somewhere else."""
    return Path(shutil.copytree(made[0], tmp_path / "theirs"))


def wrong(folder):
    return verify_results(folder).wrong


def reseal(folder):
    """What a forger would do: checksums that go with what is there now."""
    write_sums(load_results_config(folder))


def edit(path, change):
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


@pytest.mark.usefixtures("drawing")
def test_results_in_order_pass_and_what_was_checked_is_told(results):
    done = CliRunner().invoke(app, ["verify", str(results)])
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert f"{results}: all of this goes together. Checked: " in told
    for words in (
        "4 choices",
        "10 records with their predictions",  # 2 data sets x 2 rows x 2 seeds, and 2 points of the ablation
        "9 once, 1 never (failed)",
        "1 costs",
        "26 tables",
        "4 figures",
        "Not shown by this check: - that report.html shows these tables",
    ):
        assert words in told, words
    assert max(map(len, done.output.splitlines())) <= max(80, len(str(results)) + 1)


@pytest.mark.slow
def test_it_needs_neither_torch_nor_data(results):
    code = (
        "import sys; from pathlib import Path; from ssp.verify import verify_results\n"
        f"assert not verify_results(Path({str(results)!r})).wrong\n"
        "assert not {'torch', 'lmdb', 'av', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_byte_that_was_changed_is_named_whatever_file_it_is_in(made, results):
    """In the middle of each file. Where SHA256SUMS still is a list of checksums, the file of that line is named."""
    _, names = made
    assert len(names) > 60 and set(UNCHECKED) > {name.split("/")[0] for name in NOTHING_RESTS_ON}
    missed, blamed = [], {}
    for name in names:
        path = results / name
        content = path.read_bytes()
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        blamed[name] = sorted(wrong(results))
        path.write_bytes(content)
        if name not in blamed[name]:
            missed.append(name)
    assert [name for name in missed if name != "SHA256SUMS"] == NOTHING_RESTS_ON
    assert blamed["SHA256SUMS"] and not any(blamed[name] for name in NOTHING_RESTS_ON)
    others = {name: found for name, found in blamed.items() if found != [name] and name != "config.yaml"}
    assert len(others) < len(names) / 2  # what rests on a file may be named as well, but not everything


def test_a_file_that_is_missing_or_too_much_is_named(results):
    (results / "weights/hmdb51/ssp/seed0.safetensors").unlink()
    shutil.copy(results / "records/hmdb51/ssp/seed1.json", results / "records/hmdb51/ssp/seed7.json")
    reseal(results)
    found = wrong(results)
    assert found["weights/hmdb51/ssp/seed0.safetensors"] == ["missing"]
    assert found["records/hmdb51/ssp/seed7.json"][0].startswith("nothing that config.yaml asks for")
    assert set(found) == {"weights/hmdb51/ssp/seed0.safetensors", "records/hmdb51/ssp/seed7.json"}


@pytest.mark.parametrize("name", ["tables/main.md", "tables/ablations/prompts.csv"])
def test_a_table_must_be_what_the_records_make(results, name):
    lengthen(results / name)
    reseal(results)
    assert list(wrong(results)) == [name]


@pytest.mark.usefixtures("drawing")
def test_a_figure_must_be_what_the_tables_make(results):
    lengthen(results / "figures/ablations/prompts.png")
    reseal(results)
    assert list(wrong(results)) == ["figures/ablations/prompts.png"]


def lengthen(path):
    path.write_bytes(path.read_bytes() + b" ")


def test_predictions_are_of_the_test_list_under_its_labels(results):
    """Labels that were changed so that more is right, with a record and checksums that go with them."""
    path = results / "predictions/hmdb51/linear/seed0.parquet"
    rows = read_predictions(path)
    rows["label"] = [
        int(np.argmax(rows["logits"][i // 2 * 2] + rows["logits"][i // 2 * 2 + 1])) for i in range(len(rows))
    ]
    pq.write_table(pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False), path)
    record = load_record(results / "records/hmdb51/linear/seed0.json")
    counts = metrics(merge_views(rows))
    assert counts["top1"] == 100
    forged = record.model_copy(
        update={
            "metrics": record.metrics.model_copy(update=counts),
            "predictions": record.predictions.model_copy(update={"sha256": file_sha256(path)}),
        }
    )
    save_record(forged, results / "records/hmdb51/linear/seed0.json")
    reseal(results)
    problems = wrong(results)["predictions/hmdb51/linear/seed0.parquet"]
    assert re.fullmatch(r"\d+ videos are not on the test list under that label and group", problems[0])


@pytest.mark.slow
def test_several_processes_find_what_one_finds(results, monkeypatch):
    """Of runs that are in order, whose predictions are broken or others than was sealed, and without a record."""
    (results / "predictions/hmdb51/ssp/seed0.parquet").write_text("no parquet")
    other = results / "predictions/hmdb51/linear/seed0.parquet"
    shutil.copy(results / "predictions/hmdb51/linear/seed1.parquet", other)
    (results / "records/hmdb51/linear/seed1.json").unlink()
    reseal(results)
    alone = verify_results(results)
    assert {"predictions/hmdb51/ssp/seed0.parquet", "predictions/hmdb51/linear/seed0.parquet"} < set(alone.wrong)
    read_here = []
    monkeypatch.setattr("ssp.verify.reading.processes", lambda sizes: 2)
    monkeypatch.setattr("ssp.records.runs.recorded_predictions", lambda path, *_: read_here.append(path))
    together = verify_results(results)
    assert together.lines == alone.lines and together.told() == alone.told()
    assert not read_here


@pytest.mark.slow
def test_processes_that_are_killed_leave_the_reading_to_this_one(results, monkeypatch):
    monkeypatch.setattr("ssp.verify.reading.processes", lambda sizes: 2)
    monkeypatch.setattr("ssp.verify.reading.end_with_parent", end_at_once)
    found = verify_results(results)
    assert not found.wrong and found.counts["records with their predictions"] == 10


def end_at_once():
    os._exit(1)


@pytest.mark.parametrize(
    ("sizes", "cores", "gib", "expected"),
    [
        ([], 8, 64, 1),
        ([10**6] * 900, 8, 64, 1),  # little to read
        ([3 * 10**8] * 148, 8, 64, 8),
        ([3 * 10**8] * 148, 8, 16, 4),  # 2.1 GB each, and half of the memory
        ([3 * 10**8] * 148, 8, 2, 1),
        ([6 * 10**8] * 2, 8, 64, 2),
    ],
)
def test_processes_are_as_many_as_cores_and_memory_allow(sizes, cores, gib, expected, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": gib << 18, "SC_PAGE_SIZE": 4096}.get)
    assert processes(sizes) == expected


def test_without_checksums_it_says_what_that_leaves_open(results):
    (results / "SHA256SUMS").unlink()
    found = verify_results(results)
    assert not found.wrong and any("SHA256SUMS is not there" in text for text in found.unshown)
    path = results / "tables/seeds.csv"
    path.write_text(path.read_text().replace("hmdb51", "hmdb52", 1))
    assert list(wrong(results)) == ["tables/seeds.csv"]


def forge_choice(folder, change):
    """A choice that was edited, with checksums that go with it."""
    edit(folder / "sweeps/hmdb51/linear.json", change)
    Choice.model_validate_json((folder / "sweeps/hmdb51/linear.json").read_bytes())  # it is one
    reseal(folder)
    return wrong(folder)


def test_the_choice_is_the_best_of_its_trials(results):
    found = forge_choice(results, lambda plain: plain["trials"][0].update(value=70.0))
    assert "its value is not the validation top-1 of its last epoch" in "; ".join(found["sweeps/hmdb51/linear.json"])
    assert "the best of its trials is 0 (70.0 %), chosen was 1" in "; ".join(found["sweeps/hmdb51/linear.json"])


def test_every_trial_that_was_asked_for_is_there(results):
    found = forge_choice(results, lambda plain: plain["trials"].pop(0))
    assert "has trials 1, 2, not the 3 that the config asks for" in found["sweeps/hmdb51/linear.json"]


def test_a_record_is_trained_from_its_choice(results):
    path = results / "records/hmdb51/linear/seed0.json"
    record = load_record(path)
    save_record(record.model_copy(update={"hyperparameters": Chosen(lr=0.1, weight_decay=0.05, drop_path=0.0)}), path)
    reseal(results)
    problems = wrong(results)["records/hmdb51/linear/seed0.json"]
    assert problems == ["its hyperparameters are not those that the sweep chose"]


def test_a_config_that_was_changed_makes_its_runs_stale(results):
    plain = yaml.safe_load((results / "config.yaml").read_text())
    plain["datasets"]["ssv2"]["start"]["lr"] = 0.5
    (results / "config.yaml").write_text(yaml.safe_dump(plain))
    reseal(results)
    found = wrong(results)
    stale = {name for name, problems in found.items() if any("another config" in problem for problem in problems)}
    assert {"records/ssv2/ssp/seed0.json", "sweeps/ssv2/linear.json"} <= stale
    assert not any("hmdb51/linear" in name for name in stale)
    assert "was dataset.start.lr = 0.01; now dataset.start.lr = 0.5" in found["records/ssv2/ssp/seed0.json"][0]


def test_what_came_after_a_look_at_test_is_counted_and_a_lost_note_is_named(results):
    path, note = results / "records/ssv2/ssp/seed1.json", results / "readings/ssv2/ssp/seed1.jsonl"
    record = load_record(path)
    other = Chosen(lr=0.3, weight_decay=0.05, drop_path=0.0)
    line = json.loads(note.read_text())
    note.write_text(json.dumps(line | {"hyperparameters": other.model_dump()}) + "\n" + note.read_text())
    reseal(results)
    problems = wrong(results)["readings/ssv2/ssp/seed1.jsonl"]
    assert problems == ["notes 1 of this choice and others, its record counts otherwise"]
    earlier = [EarlierChoice(config_hash=record.config_hash, hyperparameters=other, test_readings=1)]
    save_record(record.model_copy(update={"earlier_test_readings": earlier}), path)
    make_tables(load_results_config(results))
    reseal(results)
    found = verify_results(results)
    assert not found.wrong and found.readings["after a look from another choice"] == 1
    note.unlink()
    reseal(results)
    assert wrong(results) == {"readings/ssv2/ssp/seed1.jsonl": ["missing; the record counts 1 of test"]}


def test_a_training_anew_that_failed_keeps_the_reading_of_the_one_before_it(results):
    path, note = results / "records/ssv2/linear/seed1.json", results / "readings/ssv2/linear/seed1.jsonl"
    record = load_record(path)
    assert record.status == "failed" and not note.exists()
    moment = Moment(at="2000-01-01T00:00:00Z", commit="0" * 40)
    reading = Reading(
        by="train", config_hash=record.config_hash, hyperparameters=record.hyperparameters, run=moment
    ).model_dump_json()
    write_text(note, f"{reading}\n")
    save_record(record.model_copy(update={"test_readings": 1}), path)
    make_tables(load_results_config(results))
    reseal(results)
    found = verify_results(results)
    assert not found.wrong and found.readings["once"] == 10
    note.write_text(f"{reading}\n{reading}\n")
    save_record(record.model_copy(update={"test_readings": 2}), path)
    make_tables(load_results_config(results))
    reseal(results)
    assert wrong(results) == {
        "readings/ssv2/linear/seed1.jsonl": ["notes 2 trainings that read test from this choice"],
    }


def test_numbers_without_a_training_that_read_test_are_named(results):
    note = results / "readings/ssv2/ssp/seed1.jsonl"
    note.write_text(note.read_text().replace('"by":"train"', '"by":"evaluate"'))
    path = results / "records/ssv2/ssp/seed1.json"
    moment = Moment.model_validate(json.loads(note.read_text())["run"])
    save_record(load_record(path).model_copy(update={"rereadings": [moment]}), path)
    make_tables(load_results_config(results))
    reseal(results)
    assert wrong(results) == {"readings/ssv2/ssp/seed1.jsonl": ["notes 0 trainings that read test from this choice"]}


def test_records_from_before_weights_were_hashed_say_so(results):
    path = results / "records/hmdb51/ssp/seed1.json"
    save_record(load_record(path).model_copy(update={"weights_sha256": None}), path)
    reseal(results)
    found = verify_results(results)
    assert not found.wrong
    assert any(text.startswith("that weights are the runs' own, of 1 records") for text in found.unshown)


def test_what_is_no_folder_of_results_is_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text("name: [")
    assert list(wrong(tmp_path)) == ["config.yaml"]
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "no")])
    assert "no such folder or archive; give one of results" in str(done.exception)


def test_the_checksums_are_those_of_coreutils(results):
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    done = subprocess.run(command, cwd=results, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_where_a_config_is_from_makes_no_difference_to_what_it_says(results):
    config = load_results_config(results)
    assert config == load_config(results / "config.yaml") and config.home == results
    moved = config.placed(origin=Path("my configs/a.yaml"))
    assert moved == config and moved.home == results
    assert moved.command("train", seed=0) == "python -m ssp train --config 'my configs/a.yaml' --seed 0"
