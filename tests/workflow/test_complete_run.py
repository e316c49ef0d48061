"""The whole workflow on the smallest config: what it wrote is right, not only there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import softmax

from ssp.config import load_config, slice_hash
from ssp.data.manifest import manifest_hash
from ssp.plan.estimate import estimate
from ssp.plan.measured import find_speeds
from ssp.records.usage import jobs as jobs_of
from ssp.records.usage import read_usage
from ssp.sharing.opening import opened
from ssp.sharing.pack import pack
from ssp.sharing.weights import Weights
from ssp.verify import verify_results
from ssp.verify.rerun import rerun
from ssp.verify.trace import trace

pytestmark = [pytest.mark.workflow, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def records(tiny_run) -> dict[tuple[str, str, int], dict]:
    config, folder = tiny_run.config, tiny_run.folder
    return {run: json.loads((folder / tiny_run.paths.record(*run)).read_text()) for run in config.runs()}


@pytest.fixture(scope="module")
def predictions(tiny_run, records) -> dict[tuple[str, str, int], pd.DataFrame]:
    return {key: pd.read_parquet(tiny_run.folder / tiny_run.paths.predictions(*key)) for key in records}


@pytest.fixture(scope="module")
def manifests(tiny_run) -> dict[str, pd.DataFrame]:
    return {d: pd.read_parquet(tiny_run.folder / tiny_run.paths.manifest(d)) for d in tiny_run.config.datasets}


def _accuracy(predictions: pd.DataFrame) -> float:
    """Top-1 in percent, from the definition: mean softmax over the views of a video, then the largest."""
    hits = []
    for _, views in predictions.groupby("id"):
        mean = softmax(np.stack(views["logits"]).astype(np.float64), axis=1).mean(axis=0)
        hits.append(mean.argmax() == views["label"].iloc[0])
    return 100 * float(np.mean(hits))


def test_every_cell_finished(records):
    assert {key: record["reason"] for key, record in records.items() if record["status"] != "ok"} == {}


def test_every_test_video_was_read_once_in_every_view(tiny_run, predictions, manifests):
    for (dataset, *_), rows in predictions.items():
        clips = tiny_run.config.datasets[dataset].clips
        test = manifests[dataset].query("split == 'test'")
        assert len(test) == tiny_run.config.datasets[dataset].expected.test
        views = list(range(clips.test_segments * clips.test_crops))
        assert list(zip(rows["id"], rows["view"], strict=True)) == [(i, v) for i in sorted(test["id"]) for v in views]
        labels = test.set_index("id")["label"]
        assert (labels.loc[rows["id"]].to_numpy() == rows["label"].to_numpy()).all()
        classes = tiny_run.config.datasets[dataset].expected.classes
        assert set(rows["logits"].map(len)) == {classes}


def test_records_say_what_the_predictions_say(records, predictions):
    for key, record in records.items():
        assert record["metrics"]["top1"] == pytest.approx(_accuracy(predictions[key]))
        assert record["metrics"]["videos"] == predictions[key]["id"].nunique()
        assert record["metrics"]["views"] == len(predictions[key])


def test_the_main_table_follows_from_the_predictions(tiny_run, predictions):
    table = pd.read_csv(tiny_run.folder / tiny_run.paths.tables / "main.csv")
    assert list(table.columns) == ["dataset", "method", "mean", "sd", "n_seeds", "published", "status"]
    cells = table[table["dataset"].isin(tiny_run.config.datasets)].set_index(["dataset", "method"])
    assert len(cells) == len(tiny_run.config.datasets) * len(tiny_run.config.methods)
    for (dataset, method), row in cells.iterrows():
        seeds = [_accuracy(predictions[dataset, method, seed]) for seed in tiny_run.config.seeds]
        assert row["mean"] == pytest.approx(np.mean(seeds), abs=0.01)
        assert row["sd"] == pytest.approx(np.std(seeds, ddof=1), abs=0.01)
        assert (row["n_seeds"], row["status"]) == (len(seeds), "ok")


def test_the_parameter_table_follows_from_the_architecture(tiny_run, records):
    table = pd.read_csv(tiny_run.folder / tiny_run.paths.tables / "parameters.csv").set_index(["method", "dataset"])
    width, depth = tiny_run.config.backbone.architecture.embed_dim, tiny_run.config.backbone.architecture.depth
    prompts = tiny_run.config.methods["vpt"].options["num_prompts"]
    for dataset, chosen in tiny_run.config.datasets.items():
        head = (width + 1) * chosen.expected.classes
        assert set(table.xs(dataset, level="dataset")["head"]) == {head}
        assert table.loc[("linear", dataset), "trainable"] == head + width  # and the final norm
        assert table.loc[("vpt", dataset), "extra"] == depth * prompts * width
        assert table.loc[("ssp", dataset), "extra"] == table.loc[("ssp", dataset), "trainable"] - head - width > 0
    for (dataset, method, _), record in records.items():
        if method not in tiny_run.config.methods:
            continue
        counts = table.loc[(method, dataset), ["total", "trainable", "extra", "head"]]
        tuned = counts["trainable"] - counts["head"] - width  # without head and final norm
        assert record["parameters"] == counts.astype(int).to_dict() | {"tuned": tuned}


def test_the_costs_are_of_the_models_that_were_trained(tiny_run, records):
    folder, paths = tiny_run.folder, tiny_run.paths
    table = pd.read_csv(folder / paths.tables / "costs.csv").set_index("method")
    assert list(table.index) == list(tiny_run.config.methods)
    assert (table.loc["linear", ["step", "memory", "inference"]] == 1).all()
    assert (table[["step", "memory", "inference", "gflops"]] > 0).all().all()
    first = next(iter(tiny_run.config.datasets))
    for method, row in table.iterrows():
        record = records[first, method, 0]
        assert row["parameters"] == record["parameters"]["tuned"]
        assert row["scan"] == record["scan"]["backend"]
        weights = folder / paths.weights(first, method, 0)
        assert 0 < weights.stat().st_size - 1e6 * row["saved_mb"] < 8000  # the run's metadata
    page = (folder / paths.report).read_text()
    assert 'id="costs"' in page and "× linear" in page


def test_records_trace_back_to_config_and_manifest(tiny_run, records):
    config, paths = tiny_run.config, tiny_run.paths
    for (dataset, method, seed), record in records.items():
        assert record["config"] == json.loads(json.dumps(config.cell_slice(dataset, method)))
        assert record["config_hash"] == slice_hash(config.cell_slice(dataset, method))
        assert record["manifest_hash"] == manifest_hash(tiny_run.folder / paths.manifest(dataset))
        assert record["seed"] == seed
        assert record["epochs"] == config.datasets[dataset].recipe.epochs
        assert record["sweep"]["trials"] == config.sweep.trials
        assert record["git"]["commit"]
        assert record["versions"]["torch"]
        choice = json.loads((tiny_run.folder / paths.choice(dataset, config.rows[method].tuned_as)).read_text())
        chosen = choice["hyperparameters"]
        chosen["options"] |= config.rows[method].varied
        assert record["hyperparameters"] == chosen


def test_validation_is_carved_from_train_by_group(manifests, tiny_run):
    for dataset, manifest in manifests.items():
        expected = tiny_run.config.datasets[dataset].expected
        assert (manifest["split"] == "test").sum() == expected.test
        assert (manifest["split"] != "test").sum() == expected.train
        groups = {split: set(rows["group"]) for split, rows in manifest.groupby("split")}
        assert groups["train"]
        assert groups["val"]
        assert not groups["train"] & groups["val"]


def test_mlflow_has_every_run(tiny_run, records):
    mlflow = pytest.importorskip("mlflow")
    runs = mlflow.MlflowClient(f"sqlite:///{tiny_run.folder / tiny_run.paths.mlflow / 'mlflow.db'}")
    for record in records.values():
        run = runs.get_run(record["run"]["mlflow_run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"]


def test_the_terminal_shows_tables_paths_and_the_mlflow_command(tiny_run):
    out, paths = tiny_run.done.out, tiny_run.paths
    words = out.split()
    main = pd.read_csv(tiny_run.folder / paths.tables / "main.csv")
    for mean, sd in zip(main["mean"], main["sd"], strict=True):
        assert f"{mean:.1f} ± {sd:.1f}" in out
    parameters = pd.read_csv(tiny_run.folder / paths.tables / "parameters.csv")
    assert {f"{count:,}" for count in parameters["trainable"]} <= set(words)
    assert max(map(len, out[out.index(tiny_run.config.title[:40]) : out.index("Written:")].splitlines())) <= 80
    assert {str(paths.report), f"{paths.results}/records", f"{paths.figures}/*.{{pdf,png}}"} <= set(words)
    assert "mlflow ui --backend-store-uri sqlite:///results/tiny/mlflow/mlflow.db" in out


def test_figures_and_report_are_written(tiny_run, records):
    folder, paths = tiny_run.folder, tiny_run.paths
    assert (folder / paths.figures / "accuracy_against_parameters.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / paths.figures / "accuracy_against_parameters.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / paths.report).read_text()
    for record in records.values():
        assert record["run"]["mlflow_run_id"] in page
        assert record["config_hash"] in page


def test_what_ssp_attends_to_is_drawn_and_shown(tiny_run, records):
    folder, paths = tiny_run.folder, tiny_run.paths
    page = (folder / paths.report).read_text()
    for dataset in tiny_run.config.datasets:
        facts = json.loads((folder / paths.explained(dataset)).read_text())
        assert facts["made_from"]["predictions"] == records[dataset, "ssp", 0]["predictions"]["sha256"]
        assert (folder / paths.explained_picture(dataset)).read_bytes().startswith(b"\x89PNG")
        assert [len(clip["gate"]) for clip in facts["clips"]] == [4, 4]
        assert all(clip["id"] in page[page.index('id="explained"') :] for clip in facts["clips"])


def test_it_goes_together_and_a_copy_anywhere_does(tiny_run, tmp_path):
    copy = Path(shutil.copytree(tiny_run.folder / tiny_run.paths.results, tmp_path / "theirs"))
    for folder in (tiny_run.folder / tiny_run.paths.results, copy):
        found = verify_results(folder)
        assert found.lines == []
        assert found.counts["weights"] == found.counts["records with their predictions"] == len(tiny_run.config.runs())
        assert found.readings["once"] == len(tiny_run.config.runs())
    assert "recomputed" in trace(copy, "ucf101", "ssp")


def test_half_of_the_run_plans_the_whole_within_30_percent(tiny_run, tmp_path, monkeypatch):
    """One seed of two, and what its jobs took; then all that all took."""
    home = tmp_path / "half"
    whole = tiny_run.folder / tiny_run.config.home
    shutil.copytree(whole, home, ignore=shutil.ignore_patterns("mlflow", "seed1.*"))
    plain = yaml.safe_load((home / "config.yaml").read_text()) | {"seeds": [0]}
    (home / "config.yaml").write_text(yaml.safe_dump(plain))
    monkeypatch.chdir(tiny_run.folder)
    config = load_config(whole / "config.yaml")
    speeds, _ = find_speeds(config, home)
    plan = estimate(config, speeds)
    assert plan.jobs() == sum(tiny_run.done.jobs.values()) - tiny_run.done.jobs["all"]
    paths = (tiny_run.paths.usage(rule, *job) for rule, found in jobs_of(config).items() for job in found)
    written = [tiny_run.folder / path for path in paths if (tiny_run.folder / path).is_file()]
    assert len(written) > 30
    measured = sum(read_usage(path).s for path in written)
    assert 3600 * plan.hours().value == pytest.approx(measured, rel=0.3)


def test_nothing_half_written_is_left(tiny_run):
    assert [path for path in tiny_run.folder.rglob("*.tmp") if ".snakemake" not in path.parts] == []


def test_jobs_read_the_checked_config(tiny_run):
    assert load_config(tiny_run.folder / tiny_run.paths.config) == tiny_run.config
    assert yaml.safe_load((tiny_run.folder / tiny_run.paths.config).read_text())["name"] == "tiny"


def test_the_results_are_packed_and_a_run_is_trained_again_from_the_archive(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_run.folder)
    archive = pack(tiny_run.paths.results, tmp_path / "tiny.zip", Weights.none)
    with opened(archive) as folder:
        assert verify_results(folder).wrong == {}
        outcome = rerun(folder, "ucf101", "linear", 1)
    assert outcome.same and "predictions: the same, byte by byte" in outcome.lines, outcome.lines
