"""The run of a seed: record and predictions tell the same story, test is read once, kills and failures are survived."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ssp.jobs.inference
import ssp.jobs.lease
import ssp.jobs.seed
import ssp.jobs.training
import ssp.training.loop
from ssp.backbone.checkpoint import read_metadata, save_tuned
from ssp.config import slice_hash
from ssp.errors import ConfigError, RecordError
from ssp.jobs.cell import Cell
from ssp.jobs.inference import evaluate_saved
from ssp.jobs.seed import train_cell
from ssp.jobs.sweep import run_sweep
from ssp.jobs.tracking import TrackedRun, Tracking
from ssp.jobs.training import predict_test, train_epochs
from ssp.records.predictions import merge_views, metrics, read_predictions
from ssp.records.record import git_state, load_record
from ssp.training.loop import trained_tensors

CHEAP = {"sweep__trials": 1, "sweep__epochs": 1}


@pytest.fixture
def cell(tiny):
    """A cell whose choice is made."""
    config = tiny(**CHEAP)
    run_sweep(config, "ucf101", "ssp")
    return Cell(config, "ucf101", "ssp")


def train(cell, seed=0):
    return train_cell(cell.config, cell.dataset, cell.method, seed)


def essence(record) -> dict:
    return record.model_dump(exclude={"run"})


def children(cell, record):
    client = Tracking(cell.config).client
    return client, client.get_run(record.run.mlflow_run_id)


def test_record_predictions_weights_and_tracking_agree(cell, monkeypatch):
    reads = []
    clips = Cell.clips
    monkeypatch.setattr(Cell, "clips", lambda self, split, seed=0: reads.append(split) or clips(self, split, seed))
    record = train(cell)
    assert reads == ["trainval", "test"]  # test comes last, and once
    assert load_record(cell.paths.record("ucf101", "ssp", 0)) == record
    assert (record.status, record.epochs, record.device, len(record.curves)) == ("ok", 3, "cpu", 3)

    path = cell.paths.predictions("ucf101", "ssp", 0)
    assert record.predictions.path == str(path)
    assert record.predictions.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    predictions = read_predictions(path)
    assert len(predictions) == 40 and sorted(set(predictions["view"])) == [0, 1]
    assert record.metrics.model_dump(exclude={"val_top1", "val_loss"}) == metrics(merge_views(predictions))
    assert record.metrics.videos == 20 and record.metrics.val_top1 is None
    counts = record.parameters
    assert counts.extra + counts.head + 16 == counts.trainable < counts.total
    assert record.hyperparameters.lr == 0.01 and record.sweep.trials == 1
    assert not cell.paths.training_state("ucf101", "ssp", 0).exists()
    assert record.run.seconds > 0 and record.run.peak_memory_mb > 50 and len(record.run.epoch_seconds) == 3

    client, run = children(cell, record)
    choice = json.loads(cell.paths.choice("ucf101", "ssp").read_text())
    assert run.data.tags["mlflow.parentRunId"] == choice["run"]["cell_run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_top1"] == record.metrics.top1
    assert run.data.params["lr"] == "0.01" and run.data.params["option.inner_dim"] == "8"
    for tag in ("git_commit", "config_hash", "manifest_hash", "scan_backend", "version.torch", "seed"):
        assert run.data.tags[f"ssp.{tag}"], tag
    points = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(p.step, p.value) for p in points] == [(c.epoch, c.train_loss) for c in record.curves]
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"seed0.parquet", "seed0.safetensors"}


@pytest.mark.slow
def test_steps_of_an_epoch_follow_what_is_trained_on(tiny, monkeypatch):
    steps = []

    def fit(model, train_set, val_set, **arguments):
        arguments["on_step"] = lambda done, of: steps.append(of)
        return loop_fit(model, train_set, val_set, **arguments)

    loop_fit = ssp.jobs.training.fit
    config = tiny(**CHEAP)
    run_sweep(config, "ucf101", "linear")
    monkeypatch.setattr(ssp.jobs.training, "fit", fit)
    train_cell(config, "ucf101", "linear", 0)
    assert set(steps) == {3 * (30 // 8)}  # all training videos of the list
    rest = len(Cell(config, "ucf101", "linear").rows("train"))
    assert 15 < rest < 24
    steps.clear()
    apart = tiny(**CHEAP, refit=False)
    train_cell(apart, "ucf101", "linear", 0)
    assert set(steps) == {3 * (rest // 8)}


def test_without_refit_validation_is_measured_and_the_choice_is_the_same(cell, tiny):
    apart = tiny(**CHEAP, refit=False)
    assert apart.sweep_slice("ucf101", "ssp") == cell.config.sweep_slice("ucf101", "ssp")
    assert apart.cell_slice("ucf101", "ssp") != cell.config.cell_slice("ucf101", "ssp")
    record = train_cell(apart, "ucf101", "ssp", 0)
    assert record.metrics.val_top1 == record.curves[-1].val_top1 is not None
    client, run = children(Cell(apart, "ucf101", "ssp"), record)
    points = client.get_metric_history(run.info.run_id, "val_top1")
    assert [(p.step, p.value) for p in points] == [(c.epoch, c.val_top1) for c in record.curves]


def test_the_published_epoch_is_the_best_one_on_test(cell, tiny, monkeypatch):
    """The weights saved and tested are those of the first epoch whose top-1 on the test list no other exceeds."""
    published = tiny(**CHEAP, quirks__best_epoch="published")
    assert published.sweep_slice("ucf101", "ssp") == cell.config.sweep_slice("ucf101", "ssp")  # no search sees it
    place, read, measured = ("ucf101", "ssp", 0), [], [(1.5, 10.0), (1.2, 30.0), (1.0, 30.0)]
    clips = Cell.clips
    of, weights = [], {}

    def seen(self, split, seed=0, **more):
        read.append((split, more))
        return clips(self, split, seed, **more)

    def validated(_, val_set, **more):
        of.append(val_set)
        return measured[len(of) - 1]

    def epochs(*arguments, **named):
        for epoch in train_epochs(*arguments, **named):
            weights[epoch.epoch] = {name: t.clone() for name, t in trained_tensors(arguments[1]).items()}
            yield epoch

    monkeypatch.setattr(Cell, "clips", seen)
    monkeypatch.setattr(ssp.training.loop, "validate", validated)
    monkeypatch.setattr(ssp.jobs.seed, "train_epochs", epochs)
    record = train_cell(published, *place)
    assert read == [("test", {"central": True}), ("trainval", {}), ("test", {})]
    assert {(one.mode, len(one)) for one in of} == {("val", 20)} and len(of) == 3
    assert record.best_epoch.model_dump() == {"epoch": 2, "measured_on": "test"} and record.epochs == 3
    assert (record.metrics.val_loss, record.metrics.val_top1) == (1.2, 30.0)
    saved = load_file(cell.paths.weights(*place))
    assert all(torch.equal(tensor, weights[2][name]) for name, tensor in saved.items())
    assert not all(torch.equal(tensor, weights[3][name]) for name, tensor in saved.items())
    assert "equal to the record" in evaluate_saved(published, *place)

    plain = train_cell(cell.config, *place)
    assert plain.best_epoch is None and len(of) == 3  # nothing was measured on test
    saved = load_file(cell.paths.weights(*place))
    assert all(torch.equal(tensor, weights[3][name]) for name, tensor in saved.items())


@pytest.mark.slow
def test_a_killed_run_with_the_best_epoch_ends_with_the_same_bytes(cell, tiny, monkeypatch):
    """Killed after the last epoch, when the model has other weights than those of the best."""
    published = tiny(**CHEAP, quirks__best_epoch="published")
    place, accuracy = ("ucf101", "ssp", 0), iter([50.0, 20.0, 10.0] * 2)
    monkeypatch.setattr(ssp.training.loop, "validate", lambda *_, **__: (1.0, next(accuracy)))

    def outputs():
        return [path.read_bytes() for path in (cell.paths.predictions(*place), cell.paths.weights(*place))]

    whole = train_cell(published, *place)
    expected = outputs()

    def kill(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ssp.jobs.seed, "save_tuned", kill)
    with pytest.raises(KeyboardInterrupt):
        train_cell(published, *place)
    monkeypatch.setattr(ssp.jobs.seed, "save_tuned", save_tuned)
    resumed = train_cell(published, *place)
    assert resumed.run.resumed_after_epoch == 3 and resumed.best_epoch.epoch == 1
    assert outputs() == expected and essence(resumed) == essence(whole)


def test_clips_are_co_batched_as_the_recipe_says(tiny, monkeypatch):
    together = {"devices": 4, "validation": 1, "test": 3}
    config = tiny(sweep__trials=0, refit=False, datasets__ucf101__recipe__co_batched=together)
    run_sweep(config, "ucf101", "linear")
    asked = []

    def spy(owner, name):
        real = getattr(owner, name)

        def called(*arguments, batch_size, devices, **named):
            asked.append((name, batch_size, devices))
            return real(*arguments, batch_size=batch_size, devices=devices, **named)

        monkeypatch.setattr(owner, name, called)

    spy(ssp.training.loop, "validate")
    spy(ssp.jobs.training, "predict")
    record = train_cell(config, "ucf101", "linear", 0)
    assert asked == [("validate", 1, 4)] * 3 + [("predict", 3, 4)]
    assert record.config["dataset"]["recipe"]["co_batched"] == together and record.metrics.views == 40


def test_without_search_and_validation(tiny):
    config = tiny(sweep__trials=0)
    choice = run_sweep(config, "ucf101", "ssp")
    assert (choice.trials, choice.trial, choice.value) == ([], None, None)
    chosen = choice.hyperparameters
    assert (chosen.lr, chosen.drop_path, chosen.options["inner_dim"]) == (0.01, 0.1, 8)
    assert train_cell(config, "ucf101", "ssp", 0).hyperparameters == chosen


@pytest.mark.slow
def test_reading_test_again_gives_the_record_and_is_counted_there(cell):
    def again():
        return evaluate_saved(cell.config, "ucf101", "ssp", 0).splitlines()[-1]

    path, readings = (where("ucf101", "ssp", 0) for where in (cell.paths.record, cell.paths.readings))
    before = train(cell).model_dump(mode="json")
    assert (before["test_readings"], before["rereadings"], before["earlier_test_readings"]) == (1, [], [])
    assert again() == "equal to the record; test was read 2 times from this choice"
    after = json.loads(path.read_text())
    assert after["test_readings"] == 2 and [moment["commit"] for moment in after["rereadings"]] == [git_state().commit]
    assert after | {"test_readings": 1, "rereadings": []} == before
    assert again().endswith("3 times from this choice")
    path.unlink()  # made anew from the same choice, it has not forgotten
    assert (train(cell).test_readings, len(load_record(path).rereadings)) == (3, 2)
    readings.unlink()
    assert again().endswith("4 times from this choice")


@pytest.mark.slow
def test_readings_are_counted_one_at_a_time(cell, monkeypatch):
    train(cell)
    place, real, held = cell.paths.lease(cell.paths.record("ucf101", "ssp", 0)), ssp.jobs.inference.count_rereading, []

    def count(*paths):
        held.append((place / "holder").exists())
        return real(*paths)

    monkeypatch.setattr(ssp.jobs.inference, "count_rereading", count)
    evaluate_saved(cell.config, "ucf101", "ssp", 0)
    assert held == [True] and not (place / "holder").exists()


@pytest.mark.slow
def test_other_numbers_than_the_records_are_an_error_which_says_where_they_may_come_from(cell):
    train(cell)
    path = cell.paths.record("ucf101", "ssp", 0)
    plain = json.loads(path.read_text())
    correct = plain["metrics"]["correct"]
    plain["metrics"]["correct"] += 1
    path.write_text(json.dumps(plain))
    with pytest.raises(RecordError) as caught:
        evaluate_saved(cell.config, "ucf101", "ssp", 0)
    assert str(caught.value) == (
        f"{path}: test read again gives correct {correct}, not {correct + 1}; device, scan and versions are the "
        "record's, so data or code are others; run again: python -m ssp train --config "
        "results/tiny/config.yaml --dataset ucf101 --method ssp --seed 0"
    )
    assert load_record(path).test_readings == 2
    path.write_text(json.dumps(plain | {"device": "abacus", "versions": plain["versions"] | {"torch": "0.1"}}))
    with pytest.raises(RecordError, match=r"is device cpu \(recorded: abacus\), torch \S+ \(recorded: 0.1\), which"):
        evaluate_saved(cell.config, "ucf101", "ssp", 0)


@pytest.mark.slow
def test_what_is_not_the_records_own_is_not_compared_with_it_and_counts_no_reading(cell, tiny):
    train(cell, 0), train(cell, 1)
    for place, refused in (
        (cell.paths.predictions, r"seed0\.parquet: not the file that its record was made from"),
        (cell.paths.weights, r"seed0\.safetensors: not the weights that its record was measured with"),
    ):
        own, other = place("ucf101", "ssp", 0), place("ucf101", "ssp", 1)
        kept = own.read_bytes()
        own.write_bytes(other.read_bytes())
        with pytest.raises(RecordError, match=refused):
            evaluate_saved(cell.config, "ucf101", "ssp", 0)
        own.write_bytes(kept)
    more_views = tiny(**CHEAP, datasets__ucf101__clips__test_segments=3)
    with pytest.raises(RecordError, match=r"seed0\.json: stale, made with another config.*test_segments = 3"):
        evaluate_saved(more_views, "ucf101", "ssp", 0)
    assert load_record(cell.paths.record("ucf101", "ssp", 0)).test_readings == 1


def choose(cell, lr):
    path = cell.paths.choice("ucf101", "ssp")
    choice = json.loads(path.read_text())
    choice["hyperparameters"]["lr"] = lr
    path.write_text(json.dumps(choice))


@pytest.mark.slow
def test_a_choice_after_test_was_read_from_another_is_marked(cell, tiny):
    path = cell.paths.record("ucf101", "ssp", 0)
    first = train(cell)
    evaluate_saved(cell.config, "ucf101", "ssp", 0)
    path.unlink()  # as Snakemake does
    choose(cell, 0.02)
    second = train(cell)
    (earlier,) = second.earlier_test_readings
    assert (earlier.config_hash, earlier.hyperparameters.lr, earlier.test_readings) == (first.config_hash, 0.01, 2)
    assert (second.test_readings, second.rereadings, second.read_before) == (1, [], 2)
    assert essence(train(cell)) == essence(second)  # the same choice is no new one
    assert train(cell, 1).read_before == 0  # a seed that never read test

    apart = train_cell(tiny(**CHEAP, refit=False), "ucf101", "ssp", 0)  # the same hyper-parameters under another config
    assert apart.hyperparameters == second.hyperparameters
    hashes = [(choice.config_hash, choice.hyperparameters.lr) for choice in apart.earlier_test_readings]
    assert hashes == [(first.config_hash, 0.01), (first.config_hash, 0.02)] and apart.read_before == 3

    cell.paths.readings("ucf101", "ssp", 0).unlink()
    assert train(cell).earlier_test_readings == []


@pytest.mark.slow
def test_a_kill_between_reading_test_and_the_record_leaves_one_reading(cell, monkeypatch):
    whole = train(cell)
    cell.paths.record("ucf101", "ssp", 0).unlink()
    cell.paths.readings("ucf101", "ssp", 0).unlink()

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ssp.jobs.seed, "save_record", kill)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(cell)
    assert essence(train(cell)) == essence(whole)
    choose(cell, 0.02)
    assert train(cell).read_before == 1


def test_saved_weights_carry_the_config(cell):
    record = train(cell)
    metadata = read_metadata(cell.paths.weights("ucf101", "ssp", 0))
    assert json.loads(metadata["config"]) == record.config == cell.config.cell_slice("ucf101", "ssp")
    assert slice_hash(json.loads(metadata["config"])) == record.config_hash
    assert metadata["status"] == "ok" and metadata["cell"] == "tiny/ucf101/ssp/seed0"


@pytest.mark.parametrize("epoch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_killed_run_ends_with_the_same_bytes(cell, monkeypatch, epoch):
    def outputs():
        place = ("ucf101", "ssp", 1)
        return [p.read_bytes() for p in (cell.paths.predictions(*place), cell.paths.weights(*place))]

    whole = train(cell, 1)
    expected = outputs()
    for path in (cell.paths.record("ucf101", "ssp", 1), cell.paths.predictions("ucf101", "ssp", 1)):
        path.unlink()

    real = ssp.jobs.seed.train_epochs

    def killed(*args, **kwargs):
        for result in real(*args, **kwargs):
            if result.epoch == epoch:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(ssp.jobs.seed, "train_epochs", killed)
    with pytest.raises(KeyboardInterrupt):
        train(cell, 1)
    assert not cell.paths.record("ucf101", "ssp", 1).exists()
    monkeypatch.setattr(ssp.jobs.seed, "train_epochs", real)
    resumed = train(cell, 1)
    assert resumed.run.resumed_after_epoch == epoch
    assert resumed.run.seconds > resumed.run.seconds_before > whole.run.seconds_before == 0
    assert resumed.run.seconds_before == pytest.approx(sum(resumed.run.epoch_seconds[:epoch]), abs=0.01)
    assert outputs() == expected and essence(resumed) == essence(whole)

    client, run = children(cell, resumed)
    steps = [p.step for p in client.get_metric_history(run.info.run_id, "train_loss")]
    assert steps == [1, 2, 3] and run.info.status == "FINISHED"  # one run, each epoch in it once
    choice = json.loads(cell.paths.choice("ucf101", "ssp").read_text())
    siblings = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{choice['run']['cell_run_id']}'"
    )
    assert [r.info.status for r in siblings] == ["FINISHED", "FINISHED"]  # the whole one, and the continued one


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "step"), [(ssp.jobs.seed, "save_record"), (TrackedRun, "log_artifact")])
def test_killed_at_the_very_end_it_ends_as_the_same_tracked_run(cell, monkeypatch, owner, step):
    def kill(*_):
        raise KeyboardInterrupt

    real = getattr(owner, step)
    monkeypatch.setattr(owner, step, kill)
    with pytest.raises(KeyboardInterrupt):
        train(cell)
    monkeypatch.setattr(owner, step, real)
    record = train(cell)
    assert record.run.resumed_after_epoch == record.epochs == 3
    client, run = children(cell, record)
    choice = json.loads(cell.paths.choice("ucf101", "ssp").read_text())
    (only,) = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{choice['run']['cell_run_id']}'"
    )
    assert (only.info.run_id, only.info.status) == (record.run.mlflow_run_id, "FINISHED")


@pytest.mark.slow
def test_killed_before_its_record_appears_it_trains_nothing_again(cell, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ssp.jobs.lease, "write_text", kill)  # between the draft and its place
        with pytest.raises(KeyboardInterrupt):
            train(cell)
    assert not cell.paths.record("ucf101", "ssp", 0).exists()
    record = train(cell)
    assert record.run.resumed_after_epoch == record.epochs == 3
    assert not cell.paths.training_state("ucf101", "ssp", 0).exists()


@pytest.mark.slow
def test_seeds_differ_in_all_but_what_they_share(cell):
    first, second = train(cell, 0), train(cell, 1)
    assert first.predictions.sha256 != second.predictions.sha256
    assert first.config_hash == second.config_hash and first.hyperparameters == second.hyperparameters


def test_a_loss_that_is_not_finite_is_a_failed_cell_with_everything_a_workflow_needs(cell, monkeypatch):
    path = cell.paths.choice("ucf101", "ssp")
    choice = json.loads(path.read_text())
    choice["hyperparameters"]["lr"] = 1e30
    path.write_text(json.dumps(choice))
    record = train(cell)
    assert record.status == "failed" and record.metrics is None
    assert record.reason.startswith("training loss is nan in epoch 1")
    assert record.test_readings == 0 and not cell.paths.readings("ucf101", "ssp", 0).exists()
    assert load_record(cell.paths.record("ucf101", "ssp", 0)) == record
    assert read_predictions(cell.paths.predictions("ucf101", "ssp", 0)).empty
    with safe_open(cell.paths.weights("ucf101", "ssp", 0), framework="np") as weights:
        metadata = weights.metadata()
        assert metadata["status"] == "failed" and metadata["reason"] == record.reason and not list(weights.keys())
        assert json.loads(metadata["config"]) == record.config
    _, run = children(cell, record)
    assert run.info.status == "FAILED" and run.data.tags["ssp.reason"] == record.reason
    with pytest.raises(RecordError, match="seed 0 has no weights: the run failed"):
        evaluate_saved(cell.config, "ucf101", "ssp", 0)


def test_running_out_of_memory_in_the_test_is_a_failed_cell(cell, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError("no memory for 3 clips")

    monkeypatch.setattr("ssp.jobs.training.predict", exhausted)
    record = train(cell)
    assert (record.status, record.reason) == ("failed", "out of memory: no memory for 3 clips")
    assert record.epochs == 3 and len(record.curves) == 3 and record.parameters


def test_logits_that_are_not_finite_are_a_failed_cell(cell, monkeypatch):
    real = ssp.jobs.training.predict

    def broken(*arguments, **named):
        table = real(*arguments, **named)
        table["logits"].iloc[3][0] = np.nan
        return table

    monkeypatch.setattr("ssp.jobs.training.predict", broken)
    record = train(cell)
    assert record.reason == "logits of the test set are not finite"
    assert read_predictions(cell.paths.predictions("ucf101", "ssp", 0)).empty


def test_failed_sweep_fails_its_cells(cell):
    path = cell.paths.choice("ucf101", "ssp")
    choice = json.loads(path.read_text()) | {
        "status": "failed",
        "reason": "all 1 trials failed",
        "hyperparameters": None,
    }
    path.write_text(json.dumps(choice))
    record = train(cell)
    assert (record.status, record.reason) == ("failed", "sweep: all 1 trials failed")
    assert record.hyperparameters is None and record.epochs == 0


def test_a_choice_made_on_other_data_is_refused(cell):
    path = cell.paths.choice("ucf101", "ssp")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest_hash": "0" * 64}))
    with pytest.raises(
        RecordError, match=r"ssp\.json: was chosen on another manifest of 'ucf101'.*run again: .* sweep"
    ):
        train(cell)
    assert not cell.paths.record("ucf101", "ssp", 0).exists()


@pytest.mark.slow
def test_a_swapped_backbone_is_noticed(cell, monkeypatch):
    """Other weights under the same name: neither a choice nor a training that was begun goes on with them."""

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ssp.jobs.seed, "predict_test", kill)
    with pytest.raises(KeyboardInterrupt):
        train(cell)
    monkeypatch.setattr(ssp.jobs.seed, "predict_test", predict_test)
    swapped = cell.paths.results.resolve() / "swapped.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(cell.backbone_file()).items()}, swapped)
    monkeypatch.setattr(Cell, "backbone_file", lambda _: swapped)
    with pytest.raises(
        RecordError, match=r"ssp\.json: was chosen with other weights than .*swapped.*run again: .* sweep"
    ):
        train(cell)
    path = cell.paths.choice("ucf101", "ssp")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backbone_hash": None}))
    record = train(cell)
    assert record.run.resumed_after_epoch is None
    assert record.backbone_hash == hashlib.sha256(swapped.read_bytes()).hexdigest()[:16]


def test_wrong_names_and_missing_choices_are_one_line(tiny):
    config = tiny(**CHEAP)
    with pytest.raises(ConfigError, match="no data set 'nothing'; it has: ucf101"):
        train_cell(config, "nothing", "ssp", 0)
    with pytest.raises(ConfigError, match="no seed 7; it has: 0, 1"):
        train_cell(config, "ucf101", "ssp", 7)
    with pytest.raises(RecordError, match=r"ssp\.json: no such sweep choice; run: .* --dataset ucf101"):
        train_cell(config, "ucf101", "ssp", 0)
