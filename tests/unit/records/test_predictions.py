import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax

from ssp.errors import RecordError
from ssp.records.predictions import SCHEMA, merge_views, metrics, read_predictions


def rows(*items):
    """(id, group, label, view, logits) -> predictions."""
    return pd.DataFrame(items, columns=SCHEMA.names)


def test_views_are_merged_by_mean_of_softmax_not_of_logits():
    # One very sure view (class 0, logit 100) against two less sure ones (class 1). The mean of the logits says class 0,
    # the mean of the probabilities class 1: 1/3 against about 2/3.
    predictions = rows(("a", "g", 1, 0, [100.0, 0.0]), ("a", "g", 1, 1, [-9.0, 0.0]), ("a", "g", 1, 2, [-9.0, 0.0]))
    merged = merge_views(predictions)
    assert merged[["predicted", "rank", "views"]].values.tolist() == [[1, 0, 3]]


def test_metrics_by_hand():
    predictions = rows(
        ("a", "g", 0, 0, [3, 2, 1, 0, -1, -2]),  # hit
        ("b", "g", 2, 0, [3, 2, 1, 0, -1, -2]),  # third
        ("c", "h", 5, 0, [3, 2, 1, 0, -1, -2]),  # last: not even among five
    )
    merged = merge_views(predictions)
    assert merged["rank"].tolist() == [0, 2, 5]
    expected = {"top1": 100 / 3, "top5": 200 / 3, "correct": 1, "videos": 3, "views": 3}
    assert metrics(merged) == pytest.approx(expected)


def test_ties_are_ranked_as_argmax_does():
    merged = merge_views(rows(("a", "g", 0, 0, [1.0, 1.0, 1.0]), ("b", "g", 2, 0, [1.0, 1.0, 1.0])))
    assert merged["predicted"].tolist() == [0, 0]
    assert merged["rank"].tolist() == [0, 2]


def test_published_merge_collapses_cameras_and_keeps_the_first_row_of_a_view():
    predictions = rows(
        ("P03/cam01/P03_milk.avi", "P03", 0, 0, [0.0, 5.0]),
        ("P03/cam02/P03_milk.avi", "P03", 0, 0, [5.0, 0.0]),  # dropped: same name, same view
        ("P03/webcam01/P03_milk.avi", "P03", 0, 1, [6.0, 0.0]),  # another view of the same name: merged
        ("P04/cam01/P04_milk.avi", "P04", 0, 0, [5.0, 0.0]),
    )
    fixed, published = merge_views(predictions), merge_views(predictions, "published")
    assert (len(fixed), len(published)) == (4, 2)
    assert published["id"].tolist() == ["P03_milk", "P04_milk"]
    assert published["views"].tolist() == [2, 1]
    # The kept views are [0, 5] and [6, 0]: the surer second one wins. With [4, 0] instead the first one wins, unless
    # the dropped row is counted.
    assert published["predicted"].tolist() == [0, 0]
    other = predictions.assign(logits=[[0.0, 5.0], [9.0, 0.0], [4.0, 0.0], [5.0, 0.0]])
    assert merge_views(other, "published")["predicted"].tolist() == [1, 0]


def test_row_order_does_not_matter():
    rng = np.random.default_rng(0)
    items = [
        (f"v{i:02}", f"g{i % 3}", i % 4, view, rng.normal(size=4).tolist()) for i in range(20) for view in range(3)
    ]
    predictions = rows(*items)
    pd.testing.assert_frame_equal(merge_views(predictions), merge_views(predictions.sample(frac=1, random_state=1)))


def test_many_views_are_merged_bit_by_bit_as_their_softmax_at_once(tmp_path):
    """More rows than are decoded or merged at once, videos of 1 to 5 views, logits so near that a bit may decide."""
    rng = np.random.default_rng(0)
    views = rng.integers(1, 6, 25_000)
    logits = (1 + rng.integers(0, 3, (views.sum(), 4)) * 2.0**-23).astype(np.float32)
    names = [f"v{i:05}" for i in range(len(views))]
    view = np.concatenate([np.arange(count) for count in views])
    made = pd.DataFrame({"id": np.repeat(names, views), "group": "g", "label": 3, "view": view, "logits": list(logits)})
    pq.write_table(pa.Table.from_pandas(made, schema=SCHEMA, preserve_index=False), tmp_path / "seed0.parquet")
    merged = merge_views(read_predictions(tmp_path / "seed0.parquet"))
    probabilities = np.split(softmax(logits.astype(np.float64), axis=1), np.cumsum(views)[:-1])
    mean = np.stack([own.sum(axis=0) / len(own) for own in probabilities])
    assert merged["id"].tolist() == names and merged["views"].tolist() == views.tolist()
    assert merged["predicted"].tolist() == mean.argmax(axis=1).tolist()
    assert merged["rank"].tolist() == (mean[:, :3] >= mean[:, 3:]).sum(axis=1).tolist()


@pytest.mark.parametrize("change", [np.full(3, np.nan), np.zeros(2)])
def test_one_bad_row_among_many_is_an_error(change):
    items = [(f"v{i:04}", "g", 0, view, np.zeros(3)) for i in range(1000) for view in (0, 1)]
    items[1501] = (*items[1501][:4], change)
    with pytest.raises(RecordError, match="'v0750' are not finite" if len(change) == 3 else "differ in length"):
        merge_views(rows(*items))


def test_blocks_of_other_lengths_are_an_error():
    with pytest.raises(RecordError, match="differ in length"):
        merge_views(rows(*((f"v{i:04}", "g", 0, 0, np.zeros(3 + i // 512)) for i in range(1024))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": [[1.0, float("nan")], [1.0, 0.0]]}, "'a' are not finite"),
        ({"logits": [[1.0, 2.0, 3.0], [1.0, 0.0]]}, "differ in length"),
        ({"view": [0, 0], "id": ["a", "a"]}, "is there twice"),
        ({"id": ["a", "a"], "label": [0, 1]}, "disagree"),
        ({"label": [0, 2]}, "outside the 2 classes"),
    ],
)
def test_contradictions_are_errors(change, message):
    predictions = rows(("a", "g", 0, 0, [1.0, 0.0]), ("b", "g", 0, 1, [1.0, 0.0])).assign(**change)
    with pytest.raises(RecordError, match=message):
        merge_views(predictions)


def test_files(tmp_path):
    path = tmp_path / "seed0.parquet"
    with pytest.raises(RecordError, match=r"seed0.parquet: missing"):
        read_predictions(path)
    path.write_text("no parquet")
    with pytest.raises(RecordError, match="not a Parquet file"):
        read_predictions(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(RecordError, match="no column group, label, view, logits"):
        read_predictions(path)
    pq.write_table(SCHEMA.empty_table(), path)  # what a failed cell writes
    merged = merge_views(read_predictions(path))
    assert len(merged) == 0 and metrics(merged)["videos"] == 0
    full = rows(("a", "g", 1, 0, [0.0, 1.0]))
    pq.write_table(pa.Table.from_pandas(full, schema=SCHEMA, preserve_index=False), path)
    assert metrics(merge_views(read_predictions(path)))["top1"] == 100
