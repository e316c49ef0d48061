"""What the sections of the report compute and draw, against small cases worked out by hand."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssp.figures.style import MARKERS
from ssp.report import dag, mistakes, number, svg
from ssp.report.classes import confusion, picture
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


RIGHT = pd.DataFrame(  # share of the seeds that are right
    {"ssp": [0, 1, 2 / 3, 1 / 3, 1, 0, 1], "vpt": [0, 0, 1 / 3, 1, 1, 1, 2 / 3], "full": [0, 0, 0, 1, 0, 1, 0]},
    index=list("abcdefg"),
)


def test_mistakes_are_told_by_how_many_seeds_of_which_row_are_right():
    made = [cell([("b", 0, 0), ("a", 0, 1)], [("b", 0, 1), ("a", 0, 1)])]
    assert mistakes.shares(made)["ssp"].to_dict() == {"a": 0, "b": 0.5}
    assert mistakes.missed_by_all(RIGHT) == ["a"]
    assert mistakes.only(RIGHT, "ssp") == ["b", "c"]  # by how many of its seeds get it
    assert mistakes.only(RIGHT, "full") == []
    assert mistakes.alone(RIGHT, "ssp") == {"gets": 2, "misses": 2}
    assert mistakes.only(RIGHT[["ssp"]], "ssp") == []  # alone among none


def test_lines_share_an_axis_and_leave_out_what_is_not_finite():
    x, y, box = svg.whole(3, "epoch"), svg.linear([0, 100], "percent"), svg.PANEL
    made = svg.Line([(1, 0.0), (2, float("nan")), (3, 100.0)], "c1", "told <&>", dashed=True)
    drawn = str(svg.lines([made], x, y))
    assert f'points="{box.left:.1f},{box.bottom:.1f} {box.right:.1f},{box.top:.1f}"' in drawn
    assert "<title>told &lt;&amp;&gt;</title>" in drawn and "stroke-dasharray" in drawn
    assert "<polyline" not in str(svg.lines([svg.Line([(1, float("nan"))], "c1", "")], x, y))


def names(axis):
    return [name for _, name in axis.ticks]


def test_axes_name_round_numbers_around_what_they_hold():
    assert names(svg.linear([0, 100], "")) == ["0", "20", "40", "60", "80", "100"]
    assert names(svg.linear([61.2, 68.9], "")) == ["60", "62", "64", "66", "68", "70"]
    assert names(svg.linear([10, 19.9], "")) == ["10", "12", "14", "16", "18", "20"]
    assert names(svg.linear([99.5, 99.6], "", least=5, ends=(0, 100)))[-1] == "100"  # there is nothing above
    flat = svg.linear([50, 50, float("nan")], "", least=5)
    assert flat.low < 50 < flat.high
    assert names(svg.whole(1, ""))[0] == "1" and names(svg.whole(30, "")) == ["1", "10", "20", "30"]
    assert names(svg.linear([0, 12.5], "")) == ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]
    assert names(svg.at([8, 1, 2, 2], "")) == ["1", "2", "8"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((20, 2e6), ["100", "1k", "10k", "100k", "1M"]),
        ((9_000, 30_000), ["10k", "15k", "20k", "30k"]),  # less than a decade
        ((0.003, 0.03), ["0.003", "0.01", "0.03"]),
        ((500,), ["500", "700"]),
    ],
)
def test_a_log_axis_has_numbers_over_any_range(values, named):
    assert names(svg.logarithmic(values, "")) == named


def test_dots_stand_on_a_log_axis():
    made, y = [svg.Dot(x, 50, "complete", "") for x in (0.001, 0.01, 0.1)], svg.linear([0, 100], "")
    drawn = str(svg.dots(made, svg.logarithmic([0.001, 0.1], ""), y))
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawn)]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2)
    assert "nan" not in str(svg.dots(made[:1], svg.logarithmic([0.001], ""), y))


def test_rows_are_drawn_with_names_that_do_not_cover_each_other():
    spots = [
        svg.Spot(f"row{i}", f"Name {i}", x, y, y - 3, y + 3, f"row {i}")
        for i, (x, y) in enumerate([(100, 50), (105, 50.5), (110, 51), (10_000, 60)])
    ]
    x, y = svg.logarithmic([100, 10_000], "parameters", 2), svg.linear([40, 70], "top-1")
    drawn = ET.fromstring(str(svg.rows(spots, x, y, ["row0", "row3"], "told")))
    assert drawn.get("aria-label") == "told"
    assert [mark.get("data-row") for mark in drawn.iter("g") if mark.get("data-row")] == [s.row for s in spots]
    spans = []
    for text in drawn.iter("text"):
        if text.get("class") == "name":
            width, size, a = svg.LETTER * 12 * len(text.text), 12, float(text.get("x"))
            left = a - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
            spans.append((left, left + width, float(text.get("y")) - 0.8 * size, float(text.get("y"))))
    assert len(spans) >= 3
    for i, one in enumerate(spans):
        assert not any(one[0] < b[1] and b[0] < one[1] and one[2] < b[3] and b[2] < one[3] for b in spans[:i])
    (line,) = [path.get("d") for path in drawn.iter("path") if path.get("class") == "front"]
    assert len(line.split("L")) == 3  # right, then up


def test_every_marker_of_the_figures_has_an_outline():
    outlines = [svg.marker(i, 0, 0, 5) for i in range(len(MARKERS))]
    assert len(set(outlines)) == len(MARKERS)


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


@pytest.mark.parametrize("lacks", ["fetch_weights", "generate"])  # no config has both
def test_drawing_has_every_rule_and_arrow_apart(lacks):
    labels = {rule: "1 job <1 s" for rule in dag.NEEDS if rule != lacks}
    drawn = ET.fromstring(str(dag.drawing(labels)))
    assert [text.text for text in drawn.iter("text") if text.get("class") == "rule"] == list(labels)
    assert len([path for path in drawn.iter("path") if path.get("class") == "arrow"]) == len(dag.edges(labels))
    corners = [(float(box.get("x")), float(box.get("y"))) for box in drawn.iter("rect")]
    assert len(set(corners)) == len(labels)
    width, height = dag.BOX
    across, down = map(float, drawn.get("viewBox").split()[2:])
    assert all(x >= 0 and x + width <= across and y >= 0 and y + height <= down for x, y in corners)
    for i, (x, y) in enumerate(corners):
        assert all(abs(x - u) >= width or abs(y - v) >= height for u, v in corners[:i])


def test_every_rule_is_said_in_words():
    assert list(DOES) == list(dag.NEEDS)
