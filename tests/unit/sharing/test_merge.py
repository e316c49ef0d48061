"""`ssp merge`: what goes together becomes one folder that verifies, and what does not is named and writes nothing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from ssp.cli import app
from ssp.config import load_results_config
from ssp.errors import ConfigError, RecordError
from ssp.files import file_sha256
from ssp.paths import Paths
from ssp.records.choice import Choice
from ssp.records.record import load_record, save_record
from ssp.records.shared import load_contributors
from ssp.records.sums import write_sums
from ssp.sharing.merge import merge
from ssp.sharing.pack import pack
from ssp.sharing.weights import Weights
from ssp.verify import verify_results
from tests.unit.made_results import make_tables
from tests.unit.sharing.conftest import OTHER_ROW, stand_ins

OUT = Path("results/both")


def seal(folder):
    """Tables and checksums that go with what is there now."""
    config = load_results_config(folder)
    make_tables(config)
    write_sums(config)


def main_table(folder):
    return pd.read_csv(folder / "tables/main.csv").set_index(["dataset", "method"])


def change_config(folder, change):
    plain = yaml.safe_load((folder / "config.yaml").read_text())
    change(plain)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))


def joined(*sources):
    merged = merge(sources, OUT)
    assert merged.conflicts == []
    assert verify_results(OUT).wrong == {}
    return merged


@pytest.fixture(scope="module")
def joined_rows(made, tmp_path_factory):
    """`lab` and `other_row`, joined once: a folder that has them and the outcome."""
    folder = tmp_path_factory.mktemp("joined")
    with stand_ins() as patch:
        patch.chdir(folder)
        sides = (("lab", made("lab")), ("rows", made("rows", **OTHER_ROW)))
        joined(*(Path(shutil.copytree(folder, name)) for name, folder in sides))
    return folder


@pytest.fixture
def rows_of_both(joined_rows, tmp_path, monkeypatch):
    """A copy of that folder; gives the folder of `other_row`."""
    shutil.copytree(joined_rows, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("rows")


def refused(*sources):
    """The lines that say why; nothing was written."""
    conflicts = merge(sources, OUT).conflicts
    assert conflicts and not OUT.exists() and not list(OUT.parent.glob(".*"))
    return conflicts


def test_seeds_of_two_machines_are_one_table(lab, other_seeds):
    done = CliRunner().invoke(app, ["merge", "lab", "seeds", "--out", str(OUT)])
    assert done.exit_code == 0, done.output
    found = verify_results(OUT)
    assert not found.wrong and found.contributors == {"lab": 10, "seeds": 8}
    assert "Records joined from: lab (10), seeds (8)." in " ".join(found.told().split())
    table = main_table(OUT)
    assert set(table["n_seeds"]) == {3, 4}  # one seed of lab's has failed
    for cell, row in table.iterrows():
        parts = [main_table(folder).loc[cell] for folder in (lab, other_seeds)]
        mean = sum(part["mean"] * part["n_seeds"] for part in parts) / sum(part["n_seeds"] for part in parts)
        assert row["mean"] == pytest.approx(mean)
    for seed, source in ((0, lab), (3, other_seeds)):
        for name in (f"records/ssv2/ssp/seed{seed}.json", f"predictions/ssv2/ssp/seed{seed}.parquet"):
            assert file_sha256(OUT / name) == file_sha256(source / name)
    contributors = load_contributors(load_results_config(OUT))
    assert contributors.records["records/ssv2/ssp/seed3.json"] == ["seeds"]
    assert contributors.contributors["lab"].sums == file_sha256(lab / "SHA256SUMS")
    assert "Joined from lab (10 runs), seeds (8 runs)." in (OUT / "tables/main.md").read_text()
    assert "<dt>joined from</dt><dd>lab (10), seeds (8)</dd>" in (OUT / "report.html").read_text()


@pytest.mark.usefixtures("rows_of_both")
def test_what_both_have_is_taken_once_and_rows_of_both_are_compared():
    config = load_results_config(OUT)
    assert list(config.methods) == ["ssp", "linear", "vpt"] and config.seeds == [0, 1]
    contributors = load_contributors(config).records
    assert contributors["records/ssv2/ssp/seed0.json"] == ["lab", "rows"]
    assert contributors["records/ssv2/vpt/seed0.json"] == ["rows"]
    assert len(list(OUT.glob("records/*/ssp/*.json"))) == 4
    assert {"ssp", "linear", "vpt"} == {row for _, row in main_table(OUT).index}


@pytest.mark.slow
@pytest.mark.usefixtures("rows_of_both")
def test_tables_and_report_are_made_again_by_the_commands_that_make_them():
    before = {path: path.read_bytes() for path in [*OUT.glob("tables/*.*"), OUT / "report.html"]}
    for command in ("tables", "report"):
        done = CliRunner().invoke(app, [command, "--config", str(OUT / "config.yaml")])
        assert done.exit_code == 0, done.exception
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed in ([], ["report.html"])  # matplotlib draws it a picture with ids of its own


def test_times_of_a_row_that_was_measured_elsewhere_are_not_put_beside_the_others(rows_of_both):
    costs = json.loads((OUT / "costs.json").read_text())["rows"]
    assert costs["ssp"]["step_seconds"] and not costs["vpt"]["step_seconds"]
    theirs = json.loads((rows_of_both / "costs.json").read_text())["rows"]["vpt"]
    assert costs["vpt"]["flops"] == theirs["flops"] and costs["vpt"]["saved_bytes"] == theirs["saved_bytes"]
    assert "vpt was not measured: not in one job with the other rows" in (OUT / "tables/costs.md").read_text()


@pytest.mark.slow
def test_rows_of_a_method_that_is_not_installed_are_shown(lab, other_row, monkeypatch):
    """As if vpt were somebody's own: no config that trains may name it, results may."""
    from ssp.config import checks, load_config

    monkeypatch.setattr(checks, "method_names", lambda: ["linear", "ssp"])
    with pytest.raises(ConfigError, match="unknown method"):
        load_config(other_row / "config.yaml")
    joined(lab, other_row)
    assert main_table(OUT).loc[("ssv2", "vpt"), "status"] == "ok"
    assert CliRunner().invoke(app, ["tables", "--config", str(OUT / "config.yaml")]).exit_code == 0
    done = CliRunner().invoke(app, ["train", "--config", f"{OUT}/config.yaml", "--dataset", "ssv2", "--method", "vpt"])
    assert done.exit_code != 0


@pytest.mark.slow
def test_contributors_stay_when_joined_again_from_archives(lab, other_seeds, other_row):
    joined(lab, other_row)
    pack(OUT, Path("both.zip"), Weights.none)
    change_config(other_seeds, lambda plain: None)
    third = Path("results/all")
    conflicts = merge([Path("both.zip"), other_seeds], third).conflicts
    assert conflicts == [f"records/{d}/vpt: nobody has seed 2, 3" for d in ("hmdb51", "ssv2")]
    merged = merge([Path("both.zip"), other_row], third)
    assert merged.conflicts == []
    found = verify_results(third)
    assert not found.wrong and found.contributors == {"lab": 10, "rows": 8}
    assert any("6 files of tuned weights" in text for text in found.unshown)  # linear's and the ablation's


def test_another_protocol_is_named_key_by_key(lab, other_seeds):
    def change(plain):
        plain["datasets"]["ssv2"]["recipe"]["epochs"] = 2
        plain["refit"] = False
        plain["title"] = "Other words"
        plain["data_root"] = "elsewhere"

    change_config(other_seeds, change)
    for path in [*other_seeds.rglob("*.json"), *other_seeds.rglob("*.csv"), other_seeds / "SHA256SUMS"]:
        path.unlink()  # what is left contradicts nothing
    assert refused(lab, other_seeds) == [
        "refit: true in lab, false in seeds",
        "datasets.ssv2.recipe.epochs: 1 in lab, 2 in seeds",
    ]


def test_other_videos_are_named(lab, other_seeds):
    path = other_seeds / "manifests/ssv2.parquet"
    manifest = pd.read_parquet(path)
    manifest.loc[0, "group"] = "another"
    manifest.to_parquet(path, index=False)
    for name in ("records", "predictions", "readings", "sweeps", "tables", "explained"):
        for old in (
            (other_seeds / name).rglob("*ssv2/*/*") if name != "sweeps" else (other_seeds / name).rglob("ssv2/*")
        ):
            old.unlink()
    (other_seeds / "SHA256SUMS").unlink()
    lines = refused(lab, other_seeds)
    assert len(lines) == 1 and lines[0].startswith("manifests.ssv2.hash: ")


@pytest.mark.slow
def test_a_run_that_both_have_and_that_is_not_the_same_is_named(lab, other_row):
    path = other_row / "records/hmdb51/ssp/seed1.json"
    record = load_record(path)
    later = record.run.model_copy(update={"host": "there", "seconds": 9.0})
    save_record(record.model_copy(update={"run": later}), path)
    seal(other_row)
    joined(lab, other_row)  # times and hosts may differ
    record = load_record(path)
    save_record(record.model_copy(update={"device": "another"}), path)
    seal(other_row)
    assert merge([lab, other_row], Path("results/more")).conflicts == [
        "records/hmdb51/ssp/seed1.json: not the same in lab and rows: device; take it out of one of them"
    ]


@pytest.mark.slow
def test_a_search_that_chose_otherwise_is_named(lab, other_seeds):
    """Both have searched: the second one with other trials."""
    path = other_seeds / "sweeps/ssv2/linear.json"
    choice = Choice.model_validate_json(path.read_bytes())
    first = choice.trials[0]
    worse = first.model_copy(
        update={"value": 50.0, "epochs": [*first.epochs[:-1], first.epochs[-1].model_copy(update={"val_top1": 50.0})]}
    )
    path.write_text(choice.model_copy(update={"trials": [worse, *choice.trials[1:]]}).model_dump_json())
    seal(other_seeds)
    assert refused(lab, other_seeds) == [
        "sweeps/ssv2/linear.json: not the same in lab and seeds: trials; take it out of one of them"
    ]


@pytest.mark.slow
def test_parts_of_one_run_are_put_together(lab):
    """Two machines with the same config, each with half of the records; neither has tables yet."""
    halves = []
    for name, dataset in (("one", "hmdb51"), ("two", "ssv2")):
        half = Path(shutil.copytree(lab, name))
        for gone in ("tables", "figures", "report.html", "SHA256SUMS", "explained"):
            path = half / gone
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for kind in ("records", "predictions", "readings", "weights", "sweeps"):
            shutil.rmtree(half / kind / dataset)
        halves.append(half)
    merged = joined(*halves)
    assert merged.notes == []
    for name in ("main.csv", "seeds.csv", "pairs.csv"):
        assert (OUT / "tables" / name).read_bytes() == (lab / "tables" / name).read_bytes()
    shutil.rmtree(OUT)
    assert refused(halves[0], Path(shutil.copytree(halves[0], "three")))[0] == "sweeps/hmdb51/ssp.json: nobody has it"


def test_results_that_are_not_in_order_are_not_joined(lab, other_seeds):
    path = lab / "records/hmdb51/ssp/seed0.json"
    save_record(load_record(path).model_copy(update={"epochs": 7}), path)
    with pytest.raises(RecordError, match=r"^lab: not in order: records/hmdb51/ssp/seed0.json: changed"):
        merge([lab, other_seeds], OUT)
    (other_seeds / "records/hmdb51/ssp/seed2.json").unlink()
    with pytest.raises(RecordError, match=r"^seeds: not in order: records/hmdb51/ssp/seed2.json: .*missing"):
        merge([other_seeds, lab], OUT)
    assert not OUT.exists()


@pytest.mark.slow
def test_records_by_other_code_or_devices_are_joined_and_told(lab, other_seeds):
    for path in other_seeds.rglob("records/*/*/*.json"):
        record = load_record(path)
        git = record.git.model_copy(update={"commit": "1" * 40})
        save_record(record.model_copy(update={"git": git, "device": "GPU"}), path)
    seal(other_seeds)
    notes = joined(lab, other_seeds).notes
    assert notes == [
        "records are of 2 commits: 0000000000 (10), 1111111111 (8)",
        "records are of 2 devices: cpu (10), GPU (8)",
    ]


@pytest.mark.usefixtures("rows_of_both")
def test_who_contributed_a_record_must_be_said():
    config = load_results_config(OUT)
    path = Paths.of(config).contributors
    plain = json.loads(path.read_text())
    del plain["records"]["records/ssv2/vpt/seed0.json"]
    path.write_text(json.dumps(plain))
    write_sums(config)
    assert "does not say who contributed records/ssv2/vpt/seed0.json" in verify_results(OUT).wrong["contributors.json"]


def test_what_is_asked_wrongly_is_one_line(lab):
    with pytest.raises(ConfigError, match="two or more results"):
        merge([lab], OUT)
    with pytest.raises(ConfigError, match="is there already"):
        merge([lab, lab], lab)
    with pytest.raises(ConfigError, match="is there twice"):
        merge([lab, lab], OUT)
