"""The picture of a long video: bars at their times, few classes coloured, the others grey."""

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from ssp.figures.style import COLOURS
from ssp.figures.timeline import COLOURED, GREY, timeline, write_timeline


def windows(classes, window=2.0, step=2.0, probability=0.5):
    starts = [step * number for number in range(len(classes))]
    return pd.DataFrame(
        {"start": starts, "end": [s + window for s in starts], "class": classes, "probability": probability}
    )


def bars(figure):
    return [
        (bar.get_x(), bar.get_width(), bar.get_height(), to_hex(bar.get_facecolor())) for bar in figure.axes[0].patches
    ]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_bar_a_window_and_the_longest_class_first():
    figure = timeline(windows(["run", "jump", "jump"]), "clip.mp4")
    blue, orange = (colour.lower() for colour in COLOURS[:2])
    assert bars(figure) == [(0.0, 2.0, 50.0, orange), (2.0, 2.0, 50.0, blue), (4.0, 2.0, 50.0, blue)]
    assert legend(figure) == ["jump", "run"]
    axis = figure.axes[0]
    assert (axis.get_xlim(), axis.get_ylim()) == ((0.0, 6.0), (0.0, 100.0))
    assert axis.get_title(loc="left").startswith("clip.mp4: ") and axis.get_xlabel() and axis.get_ylabel()


def test_where_windows_overlap_a_bar_ends_with_the_next():
    assert [bar[:2] for bar in bars(timeline(windows(["a", "b"], 3.0, 1.0), "x"))] == [(0.0, 1.0), (1.0, 3.0)]
    assert [bar[:2] for bar in bars(timeline(windows(["a", "b"], 1.0, 3.0), "x"))] == [(0.0, 1.0), (3.0, 1.0)]


def test_more_classes_than_colours_are_grey():
    names = [f"class {number}" for number in range(COLOURED + 3)]
    figure = timeline(windows([name for name in names for _ in range(2)] + ["rare"]), "x")
    assert legend(figure) == [*names[:COLOURED], "4 other classes"]
    colours = [colour for *_, colour in bars(figure)]
    assert colours.count(GREY) == 7 and len(set(colours)) == COLOURED + 1


@pytest.mark.parametrize(
    ("seconds", "last"), [(1.2, "0:01.2"), (10, "0:10"), (95, "1:30"), (3600, "1:00:00"), (80000, "21:00:00")]
)
def test_ticks_are_ten_at_most_and_count_as_people_do(seconds, last):
    figure = timeline(windows(["a"], window=seconds), "x")
    figure.canvas.draw()
    axis = figure.axes[0]
    low, high = axis.get_xlim()
    ticks = [
        label.get_text()
        for place, label in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
        if low <= place <= high + 1e-9
    ]
    assert 3 <= len(ticks) <= 13 and ticks[0] == "0:00" and ticks[-1] == last
    assert len(set(ticks)) == len(ticks)


def test_any_name_can_be_drawn_and_none_is_cut_off(tmp_path):
    names = ["_under $score", "a very long name of a class that would never fit into one line", *"bcdef"]
    path = tmp_path / "new" / "out.png"
    write_timeline(windows(names), "half a $ formula.mp4", path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
    first = path.read_bytes()
    write_timeline(windows(names), "half a $ formula.mp4", path)
    assert path.read_bytes() == first
    figure = timeline(windows([f"Moving something from right to left {n}" for n in range(6)]), "x")
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
