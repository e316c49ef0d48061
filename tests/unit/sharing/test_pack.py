"""`ssp pack`: what goes into the archive, that it verifies when unpacked, and that it is the same bytes each time."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_results_config, parse_config
from ssp.records.record import load_record, save_record
from ssp.records.sums import UNCHECKED, write_sums
from ssp.sharing.pack import pack
from ssp.sharing.weights import Weights
from ssp.verify import verify_results
from tests.unit.made_records import make_config


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return Path(folder)


def names(archive):
    with zipfile.ZipFile(archive) as content:
        return set(content.namelist())


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_a_claim_rests_on_is_packed_and_verifies(lab):
    done = CliRunner().invoke(app, ["pack", str(lab)])
    assert done.exit_code == 0, done.output
    packed = names("tried.zip")
    rests = {name for name in files(lab) if name.split("/")[0] not in UNCHECKED}
    assert len(rests) > 60 and rests <= packed
    about = {"CITATION.cff", "LICENCES.md", "environment.txt", "ro-crate-metadata.json", "workflow/Snakefile"}
    assert about <= packed - rests and not {name.split("/")[0] for name in packed} & set(UNCHECKED)
    folder = unpacked("tried.zip", "theirs")
    found = verify_results(folder)
    assert not found.wrong and found.counts["files as SHA256SUMS has them"] == len(packed) - 1
    done = CliRunner().invoke(app, ["verify", "tried.zip"])
    assert done.exit_code == 0 and done.output.startswith("tried.zip: all of this goes together.")


@pytest.mark.slow
def test_the_same_results_give_the_same_archive(lab):
    pack(lab, Path("first.zip"))
    copy = Path(shutil.copytree(lab, "elsewhere"))
    for path in copy.rglob("*"):
        path.touch()
    (copy / "logs/more.log").write_text("nothing rests on this")
    pack(copy, Path("second.zip"))
    pack(unpacked("first.zip", "again"), Path("third.zip"))
    hashes = {hashlib.sha256(Path(f"{name}.zip").read_bytes()).hexdigest() for name in ("first", "second", "third")}
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kept"), [("none", set()), ("best", {"ssp"}), ("all", {"ssp", "linear"})])
def test_weights_are_left_out_as_wished_and_are_no_damage(lab, weights, kept):
    pack(lab, Path("some.zip"), Weights(weights))
    rows = {name.split("/")[2] for name in names("some.zip") if name.startswith("weights/")}
    assert {row for row in rows if "+" not in row} == kept  # ssp has the highest mean on both data sets
    found = verify_results(unpacked("some.zip", "theirs"))
    assert not found.wrong
    told = [text for text in found.unshown if "tuned weights" in text]
    assert bool(told) == (weights != "all")
    if weights == "none":
        assert told[0].startswith("that 10 files of tuned weights are the runs' own: they were left out")


@pytest.mark.slow
def test_nothing_but_weights_may_be_missing_from_a_pack(lab):
    pack(lab, Path("none.zip"), Weights.none)
    folder = unpacked("none.zip", "theirs")
    (folder / "records/ssv2/ssp/seed0.json").unlink()
    assert "missing, but in SHA256SUMS" in verify_results(folder).wrong["records/ssv2/ssp/seed0.json"]
    listed = json.loads((folder / "left_out.json").read_text())
    listed["weights"].append("records/ssv2/ssp/seed0.json")
    (folder / "left_out.json").write_text(json.dumps(listed))
    write_sums(load_results_config(folder))
    found = verify_results(folder)
    assert "left_out.json" in found.wrong and "records/ssv2/ssp/seed0.json" in found.wrong


@pytest.mark.slow
def test_weights_that_were_left_out_cannot_be_packed(lab):
    pack(lab, Path("none.zip"), Weights.none)
    folder = unpacked("none.zip", "theirs")
    done = CliRunner().invoke(app, ["pack", str(folder), "--out", "more.zip"])
    assert done.exit_code == 1 and not Path("more.zip").exists()
    assert re.match(r"--weights all: weights/\S+ was left out of these results", str(done.exception))
    pack(folder, Path("again.zip"), Weights.none)
    assert Path("again.zip").read_bytes() == Path("none.zip").read_bytes()


def test_what_does_not_verify_is_not_packed(lab):
    path = lab / "records/ssv2/ssp/seed0.json"
    record = load_record(path)
    save_record(record.model_copy(update={"epochs": 9}), path)
    done = CliRunner().invoke(app, ["pack", str(lab)])
    assert done.exit_code == 1 and not Path("tried.zip").exists()
    assert str(done.exception).startswith("lab: not in order: records/ssv2/ssp/seed0.json: changed")


@pytest.mark.parametrize("out", ["lab/own.zip", "own.tar"])
def test_the_archive_is_a_zip_outside_of_the_folder(lab, out):
    done = CliRunner().invoke(app, ["pack", str(lab), "--out", out])
    assert done.exit_code == 1 and str(done.exception).startswith(f"--out: {out}: give a name that ends in .zip")


@pytest.mark.slow
def test_it_needs_no_torch(lab):
    code = (
        "import sys; from pathlib import Path; from ssp.sharing.pack import pack; import ssp.sharing.merge\n"
        "import ssp.sharing.compare; assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_it_is_a_workflow_run_ro_crate(lab):
    """As the profile asks: the main workflow and its language, an action with what went in and came out."""
    from rocrate.rocrate import ROCrate

    pack(lab, Path("tried.zip"))
    folder = unpacked("tried.zip", "theirs")
    crate = ROCrate(folder)  # the library reads what it wrote
    root = crate.root_dataset
    profiles = {entity.id for entity in root["conformsTo"]}
    assert {f"https://w3id.org/ro/wfrun/{kind}/0.5" for kind in ("process", "workflow")} < profiles
    workflow = root["mainEntity"]
    assert workflow.id == "workflow/Snakefile" and workflow["programmingLanguage"]["name"] == "Snakemake"
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(workflow.type)
    (action,) = [root["mentions"]] if not isinstance(root["mentions"], list) else root["mentions"]
    assert action.type == "CreateAction" and action["instrument"] is workflow
    assert "config.yaml" in {entity.id for entity in action["object"]}
    assert {"report.html", "tables/main.csv", "records/ssv2/ssp/seed0.json"} <= {e.id for e in action["result"]}
    assert root["license"].id == "LICENCES.md" and root["datePublished"] == "2000-01-01T00:00:01+00:00"
    described = {unquote(entity.id): entity for entity in root["hasPart"]}
    assert set(described) == files(folder) - {"ro-crate-metadata.json"}
    for name, entity in described.items():
        path = folder / name
        assert int(entity["contentSize"]) == path.stat().st_size
        if name != "SHA256SUMS":
            assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_continued_training_ended_as_long_after_its_last_start_as_that_took(lab):
    for path in lab.glob("records/*/*/*.json"):
        record = load_record(path)
        run = record.run.model_copy(update={"seconds": 7200.0, "seconds_before": 7198.0})
        save_record(record.model_copy(update={"run": run}), path)
    write_sums(load_results_config(lab))
    pack(lab, Path("tried.zip"))
    crate = json.loads((unpacked("tried.zip", "theirs") / "ro-crate-metadata.json").read_text())
    (run,) = [entity for entity in crate["@graph"] if entity["@id"] == "#run"]
    (root,) = [entity for entity in crate["@graph"] if entity["@id"] == "./"]
    assert run["startTime"] == "2000-01-01T00:00:00+00:00"
    assert run["endTime"] == root["datePublished"] == "2000-01-01T00:00:02+00:00"


def test_the_environment_can_be_installed_and_names_what_differed(lab):
    from ssp.sharing.notes import environment_lock

    record = load_record(lab / "records/ssv2/ssp/seed0.json")
    others = [record.model_copy(update={"versions": {"python": "3.11.7", "torch": v}}) for v in ("2.0", "2.1", "2.1")]
    Path("pins.txt").write_text("# pinned\ntorch==2.2\ntyper==0.29.2\n")
    lines = environment_lock(others, Path("pins.txt")).splitlines()
    assert lines[0].startswith("# Python 3.11.7.")
    assert lines[1] == "# torch: 2.0 (1 records), 2.1 (2 records)"
    assert [line for line in lines if not line.startswith("#")] == ["typer==0.29.2"]
    assert "torch==2.1" in environment_lock(others[1:], Path("pins.txt")).splitlines()


def test_licences_are_said_where_they_are_known_and_else_that_they_are_not():
    from ssp.sharing.notes import licence_notes

    config = make_config(datasets=("hmdb51", "ssv2", "breakfast"))
    assert licence_notes(config).count("generated by this software") == 3
    real = config.model_dump(mode="json")
    for dataset in real["datasets"].values():
        dataset["generate"] = None
    real["datasets"]["ssv2"]["licence_page"] = "https://example.org/licence"
    text = licence_notes(parse_config(real, "real.yaml"))
    assert "- `breakfast`: CC BY 4.0" in text and "- `hmdb51`: licence unknown here" in text
    assert (
        "- `ssv2`: a licence of its own, which whoever downloads it has to accept (https://example.org/licence)" in text
    )
