"""Prediction tables: right logits at the right id, whatever the batch size; the same bytes every time."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from ssp.config import Recipe
from ssp.records.predictions import SCHEMA, merge_views, metrics, read_predictions
from ssp.training.evaluate import batching, co_batches, empty_predictions, predict, validate, write_predictions
from ssp.training.execution import Execution
from tests.unit.toy import CPU, Clips, small_model


def test_every_view_gets_the_logits_of_its_own_clip():
    model, clips = small_model("ssp"), Clips(5, "test", views=3)
    rows = clips.rows.iloc[::-1].reset_index(drop=True)  # ids that are not in order
    calls = []
    table = predict(model, clips, rows, batch_size=4, execution=CPU, on_batch=lambda *call: calls.append(call))
    assert calls == [(4, 15), (8, 15), (12, 15), (15, 15)]
    assert list(zip(table["id"], table["view"], strict=True)) == sorted(
        (rows["id"][row], view) for row in range(5) for view in range(3)
    )
    model.eval()
    for index in range(15):
        clip, label, row, view = clips[index]
        found = table[(table["id"] == rows["id"][row]) & (table["view"] == view)].iloc[0]
        with torch.no_grad():
            expected = model(clip[None])[0].numpy()
        np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
        assert (found["label"], found["group"]) == (label, rows["group"][row])


def test_evaluation_mode_is_used_and_left_again():
    model = small_model("ssp", drop_path=0.9)
    model.train()
    clips = Clips(6, "test")
    first = predict(model, clips, clips.rows, batch_size=12, execution=CPU)
    assert model.training
    second = predict(model, clips, clips.rows, batch_size=5, execution=CPU)
    np.testing.assert_allclose(np.stack(first["logits"]), np.stack(second["logits"]), atol=1e-5)
    model.eval()
    validate(model, Clips(3, "val"), batch_size=2, execution=CPU)
    assert not model.training


def test_validation_counts_hits_and_averages_over_videos():
    model, clips = small_model("ssp"), Clips(7, "val")
    loss, top1 = validate(model, clips, batch_size=3, execution=CPU)
    model.eval()
    with torch.no_grad():
        logits = model(torch.stack([clips[i][0] for i in range(7)]))
    labels = torch.from_numpy(clips.labels)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert top1 == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())


def test_batches_of_the_published_evaluation():
    """Five videos of two views on two devices of two clips each: view after view, dealt out in turn."""
    order = [(view, video) for view in range(2) for video in range(5)]  # clip number: video x 2 + view
    clips = [video * 2 + view for view, video in order]
    assert clips == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert co_batches(5, 2, 2, 2) == [[0, 4], [8, 3], [7], [2, 6], [1, 5], [9]]
    assert co_batches(5, 1, 2, 2) == [[0, 2], [4], [1, 3], [0]]  # the first comes again, to give both as many
    assert co_batches(1, 1, 4, 4) == [[0]] * 4
    assert [len(batch) for batch in co_batches(1530, 24, 16, 4)][:574] == [16] * 573 + [12]
    assert all(len({clip % 24 for clip in batch}) == 1 for batch in co_batches(1600, 24, 16, 4))  # of one view


def test_a_recipe_says_which_clips_share_a_batch():
    plain = Recipe(epochs=1, batch_size=8, micro_batch=2)
    assert batching(plain, "test") == batching(plain, "validation") == {"batch_size": 4, "devices": None}
    together = Recipe(epochs=1, batch_size=8, micro_batch=2, co_batched={"devices": 4, "validation": 1, "test": 16})
    assert batching(together, "test") == {"batch_size": 16, "devices": 4}
    assert batching(together, "validation") == {"batch_size": 1, "devices": 4}


@pytest.mark.parametrize("entropy_norm", ["published", "fixed"])
def test_logits_of_the_published_gate_are_those_among_its_batch_mates(entropy_norm):
    """Against a forward pass for each batch; and they are others than in the order of videos, with this gate alone."""
    torch.manual_seed(1)
    model, clips = small_model("ssp", entropy_norm=entropy_norm), Clips(5, "test")
    for parameter in model.parameters():
        parameter.data += 0.4 * torch.randn_like(parameter)  # prompts start at zero, and the gate with them
    model.eval()
    expected = {}
    for batch in co_batches(5, 2, 2, 2):
        with torch.no_grad():
            for clip, logits in zip(batch, model(torch.stack([clips[i][0] for i in batch])), strict=True):
                expected.setdefault(divmod(clip, 2), logits.numpy())
    table = predict(model, clips, clips.rows, batch_size=2, devices=2, execution=CPU)
    rows = {name: row for row, name in enumerate(clips.rows["id"])}
    places = [(rows[name], view) for name, view in zip(table["id"], table["view"], strict=True)]
    assert sorted(places) == sorted(expected)
    found = np.stack(table["logits"])
    np.testing.assert_allclose(found, np.stack([expected[place] for place in places]), atol=1e-5)
    in_order = np.stack(predict(model, clips, clips.rows, batch_size=2, execution=CPU)["logits"])
    assert (np.abs(found - in_order).max() > 1e-4) == (entropy_norm == "published")


def test_a_clip_that_fills_up_a_batch_counts_in_validation_and_is_predicted_once():
    model, clips = small_model("linear"), Clips(5, "val")
    model.eval()
    with torch.no_grad():
        logits = model(torch.stack([clips[i][0] for i in range(5)]))
    hits = (logits.argmax(1) == torch.from_numpy(clips.labels)).tolist()
    _, top1 = validate(model, clips, batch_size=2, devices=2, execution=CPU)
    assert top1 == pytest.approx(100 * sum([*hits, hits[0]]) / 6)
    assert len(predict(model, clips, clips.rows, batch_size=2, devices=2, execution=CPU)) == 5


def test_loader_processes_give_the_same(tmp_path):
    model, clips = small_model("linear"), Clips(6, "test")
    plain = predict(model, clips, clips.rows, batch_size=4, execution=CPU)
    workers = predict(model, clips, clips.rows, batch_size=4, execution=Execution(CPU.device, loader_workers=2))
    write_predictions(plain, tmp_path / "a.parquet")
    write_predictions(workers, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_file_is_read_back_as_it_was_written(tmp_path):
    clips = Clips(4, "test")
    table = predict(small_model("linear"), clips, clips.rows, batch_size=8, execution=CPU)
    path = tmp_path / "deep" / "seed0.parquet"
    write_predictions(table, path)
    first = path.read_bytes()
    write_predictions(table, path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["seed0.parquet"]
    assert (pq.read_schema(path).names, pq.read_schema(path).metadata) == (SCHEMA.names, None)
    back = read_predictions(path)
    pd.testing.assert_frame_equal(back.drop(columns="logits"), table.drop(columns="logits"), check_dtype=False)
    assert np.array_equal(np.stack(back["logits"]), np.stack(table["logits"]))
    assert metrics(merge_views(back)) == metrics(merge_views(table))


def test_predictions_of_a_failed_cell_have_all_columns_and_no_rows(tmp_path):
    path = tmp_path / "seed0.parquet"
    write_predictions(empty_predictions(), path)
    back = read_predictions(path)
    assert list(back.columns) == SCHEMA.names and back.empty
    assert metrics(merge_views(back))["videos"] == 0
