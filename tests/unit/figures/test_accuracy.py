import math
import time
from itertools import pairwise

import pytest
from PIL import Image

from ssp.config.rows import TITLES
from ssp.errors import RecordError
from ssp.figures.accuracy import accuracy_against_parameters, write_figures
from ssp.figures.style import look
from ssp.paths import Paths
from ssp.tables import write_tables
from ssp.tables.long import read_tables
from tests.unit.made_records import hits_of, make_config, write_all, write_cell


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def points(axis):
    """(x, y) of every marker of a panel."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks(axis)]


def marks(axis):
    """The lines that are a marker; the front is a line that is drawn."""
    return [line for line in axis.lines if line.get_linestyle() == "None"]


def bars(axis):
    """(x, low, high) of every error bar of a panel."""
    return [(*segment[0], segment[1][1]) for lines in axis.collections for segment in lines.get_segments()]


def test_points_and_bars_are_the_tables_numbers():
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "full"))
    write_all(config)
    write_tables(config)
    tables = read_tables(config)
    panels = accuracy_against_parameters(config, tables).axes
    assert [axis.get_title(loc="left") for axis in panels] == ["HMDB51-like", "SSv2-like"]
    # Trained without head: ssp 30,064 - 650, full 181,000 - 650.
    assert points(panels[0]) == [(29_414, 63), (180_350, 72)]
    assert points(panels[1]) == [(29_414, 67), (180_350, 76)]
    row = tables.uncertainty.set_index(["dataset", "method"]).loc[("ssv2", "full")]
    expected = {(180_350, row["low"], row["high"]), (180_350, 76 - row["sd"], 76 + row["sd"])}
    assert set(bars(panels[1])[2:]) == expected


def test_failed_cells_are_named_and_survivors_hollow():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt", "full"))
    write_all(config)
    write_cell(config, "hmdb51", "vpt", 0, reason="out of memory")
    for seed in config.seeds:
        write_cell(config, "hmdb51", "full", seed, reason="out of memory")
    write_tables(config)
    (panel,) = accuracy_against_parameters(config, read_tables(config)).axes
    assert [text.get_text() for text in panel.texts] == ["failed: full"]
    assert len(points(panel)) == 2
    assert [line.get_markerfacecolor() == "white" for line in marks(panel)] == [False, True]
    assert not any(math.isnan(value) for bar in bars(panel) for value in bar)


def test_the_front_goes_through_rows_that_no_other_beats_and_no_survivors():
    config = make_config(datasets=("hmdb51",), methods=("linear", "ssp", "vpt", "full"))
    write_all(config)
    write_cell(config, "hmdb51", "vpt", 1, hits_of(0.9))
    write_cell(config, "hmdb51", "vpt", 0, reason="out of memory")  # would be the best of the small ones
    write_tables(config)
    (panel,) = accuracy_against_parameters(config, read_tables(config)).axes
    (line,) = [line for line in panel.lines if line not in marks(panel)]
    assert [*zip(line.get_xdata(), line.get_ydata(), strict=True)] == [(64, 43), (29_414, 63), (180_350, 72)]


def test_one_row_has_an_axis_with_numbers_that_do_not_collide(recwarn):
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp",))
    write_all(config)
    write_tables(config)
    figure = accuracy_against_parameters(config, read_tables(config))
    figure.draw_without_rendering()
    assert [str(warning.message) for warning in recwarn] == []
    low, high = figure.axes[0].get_xlim()
    assert low * 1.5 < 29_414 < high / 1.5  # in the middle of some room
    shown = [label for label in figure.axes[0].get_xticklabels(which="both") if label.get_text()]
    spans = sorted((box.x0, box.x1) for box in (label.get_window_extent() for label in shown))
    assert spans and all(left[1] < right[0] for left, right in pairwise(spans))


def test_a_row_has_one_look_whatever_stands_beside_it():
    looks = []
    for methods in (("ssp", "vpt"), ("full", "vpt", "linear", "ssp")):
        config = make_config(datasets=("hmdb51",), methods=methods, name=f"of{len(methods)}")
        write_all(config)
        write_tables(config)
        (panel,) = accuracy_against_parameters(config, read_tables(config)).axes
        found = dict(zip(methods, marks(panel), strict=True))
        looks.append([(found[row].get_color(), found[row].get_marker()) for row in ("ssp", "vpt")])
    assert looks[0] == looks[1]
    assert len({look(row) for row in TITLES}) == len(TITLES)


@pytest.mark.slow
def test_files_are_pictures_and_the_same_bytes_each_time():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"), title="50% of $5: a & b")
    write_all(config)
    write_tables(config)
    paths = write_figures(config)
    assert [path.suffix for path in paths] == [".pdf", ".png"]
    before = [path.read_bytes() for path in paths]
    assert before[0].startswith(b"%PDF") and b"CreationDate" not in before[0]
    with Image.open(paths[1]) as picture:
        assert picture.width == 700 and len(picture.convert("L").getcolors()) > 50
    time.sleep(1.1)  # a date in seconds would differ
    assert [path.read_bytes() for path in write_figures(config)] == before


def test_figures_need_tables():
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.5))
    with pytest.raises(RecordError, match="python -m ssp tables"):
        write_figures(config)
    assert not Paths.of(config).figures.exists()
