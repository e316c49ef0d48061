"""What the sections of the report compute and draw, against small cases worked out by hand."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssp.report import dag, number, svg
from ssp.report.classes import confusion, picture
from ssp.report.clips import chosen
from ssp.report.images import data_uri
from ssp.report.stages import DOES, duration
from ssp.tables.cells import CellResult, collect_cells
from tests.unit.made_records import make_config, write_cell


def cell(*seeds):
    """A cell whose seeds have these (id, label, predicted)."""
    frames = [pd.DataFrame(rows, columns=["id", "label", "predicted"]) for rows in seeds]
    frames = [frame.assign(rank=(frame["label"] != frame["predicted"]).astype(int)) for frame in frames]
    return CellResult("ssv2", "ssp", {}, dict(enumerate(frames)))


def test_confusion_pools_seeds():
    made = cell([("a", 0, 0), ("b", 0, 2), ("c", 2, 1)], [("a", 0, 2), ("b", 0, 2), ("c", 2, 2)])
    assert confusion(made, 3).tolist() == [[1, 0, 3], [0, 0, 0], [0, 1, 1]]


def test_confusion_of_records_follows_their_hits(tmp_path, monkeypatch):
    """A miss is one class further on, as the made predictions are."""
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("ssv2",), methods=("ssp",), seeds=(0,))
    write_cell(config, "ssv2", "ssp", 0, [True] * 6 + [False] * 6)
    (made,) = collect_cells(config)
    assert (confusion(made, 6) == np.eye(6) + np.roll(np.eye(6), 1, axis=1)).all()


def test_picture_of_a_matrix():
    drawn = ET.fromstring(str(picture(np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]]), {0: "a<", 1: "b", 2: "c"})))
    address = drawn.find("image").attrib["href"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
    assert pixels.shape == (3, 3, 4)
    assert (pixels[..., 3] > 0).tolist() == [[True, True, False], [False, False, False], [False, True, True]]
    assert pixels[0, 0, 2] > pixels[0, 0, 0] and pixels[0, 1, 0] > pixels[0, 1, 2]  # blue is right, orange is wrong
    shares = {text.find("title").text: text.text for text in drawn.iter("text") if text.get("class") == "share"}
    assert shares == {"a< named a<: 75.0 %": "75", "a< named b: 25.0 %": "25"} | {
        f"c named {name}: 50.0 %": "50" for name in "bc"
    }


def test_many_classes_are_a_small_picture_without_text():
    text = str(picture(np.diag(np.arange(1, 175)), {i: f"class {i}" for i in range(174)}))
    assert "<text" not in text
    assert len(text) < 20_000


def test_clips_are_those_that_most_half_and_fewest_runs_name_right():
    """Of six runs all name d and e right, three a and b, none c; of equals the first by id."""
    right, wrong = [("e", 0, 0), ("d", 1, 1), ("c", 0, 1)], [("e", 0, 0), ("d", 1, 1), ("c", 0, 1)]
    right += [("b", 0, 0), ("a", 1, 1)]
    wrong += [("b", 0, 1), ("a", 1, 0)]
    assert chosen([cell(right, wrong, right), cell(wrong, right, wrong)]) == [
        ("6 of 6 runs right", "d"),
        ("3 of 6 runs right", "a"),
        ("0 of 6 runs right", "c"),
    ]
    assert chosen([cell([("b", 0, 0), ("a", 0, 0)])]) == [("1 of 1 runs right", "a")]
    assert chosen([cell()]) == []


def test_lines_share_an_axis_and_leave_out_what_is_not_finite():
    drawn = str(svg.lines([svg.Line([0.0, float("nan"), 100.0], "#123456", "told <&>", dashed=True)], 3, 0, 100))
    left, right, top, bottom = svg.LEFT, svg.WIDTH - svg.RIGHT, svg.TOP, 90 - svg.BOTTOM
    assert f'points="{left:.1f},{bottom:.1f} {right:.1f},{top:.1f}"' in drawn
    assert "<title>told &lt;&amp;&gt;</title>" in drawn and "stroke-dasharray" in drawn
    assert "<polyline" not in str(svg.lines([svg.Line([float("nan")], "red", "")], 1, 0, 1))


def test_dots_stand_on_a_log_axis():
    made = [svg.Dot(x, 50, "complete", "") for x in (0.001, 0.01, 0.1)]
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', str(svg.dots(made, 0.001, 0.1, 0, 100)))]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2)
    assert "nan" not in str(svg.dots(made[:1], 0.001, 0.001, 0, 100))  # one trial: an axis of no length


def test_data_uri_is_the_picture():
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    kind, _, content = data_uri(image, "PNG").partition(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), np.asarray(image))


def test_numbers_for_readers():
    assert [number(v, "+.1f") for v in (-1.25, 0.04, -0.04, 2.0, None, float("nan"))] == [
        *("−1.2", "0.0", "0.0", "+2.0", "–", "–"),
    ]
    assert [number(v, "d") for v in (0, 10)] == ["0", "10"]
    assert [duration(s) for s in (None, 0.04, 59.94, 59.96, 3599, 3600, 7322)] == [
        *("–", "0.0 s", "59.9 s", "1:00 min", "59:59 min", "1:00 h", "2:02 h"),
    ]


def test_drawing_has_every_rule_and_arrow_apart():
    labels = {rule: "1 job <1 s" for rule in dag.NEEDS}
    drawn = ET.fromstring(str(dag.drawing(labels)))
    assert [text.text for text in drawn.iter("text") if text.get("class") == "rule"] == list(dag.NEEDS)
    assert len([path for path in drawn.iter("path") if path.get("class") == "arrow"]) == len(dag.edges(dag.NEEDS))
    corners = [(float(box.get("x")), float(box.get("y"))) for box in drawn.iter("rect")]
    assert len(set(corners)) == len(dag.NEEDS)
    width, height = dag.BOX
    for i, (x, y) in enumerate(corners):
        assert all(abs(x - u) >= width or abs(y - v) >= height for u, v in corners[:i])


def test_every_rule_is_said_in_words():
    assert list(DOES) == list(dag.NEEDS)
