"""The report's section of sweeps, where there are rungs and several studies."""

from types import SimpleNamespace

from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from ssp.report import page_environment, sweeps
from tests.unit.jobs.test_sweep import scripted
from tests.unit.made_report import Page

SWEEP = {"fidelity": [{"trials": 3, "epochs": 0.3}, {"trials": 2}], "repeats": 2}


def test_rungs_and_studies_are_told_apart(tiny, monkeypatch):
    config = tiny(sweep=SWEEP)
    scripted(monkeypatch, [[60], [90], [50], [1, 1, 45], [1, 1, 40]] * 2)
    choices = {("ucf101", "linear", number): run_sweep(config, "ucf101", "linear", number) for number in (0, 1)}
    results = SimpleNamespace(config=config, choices=choices, paths=Paths.of(config), link=str)
    html = page_environment(config).get_template("sweeps.html.j2").render(sweeps.content(results))
    assert "2 independent studies for each data set and method" in html
    assert "3 trials for 1 of 3 epochs, the best 2 for all." in html
    page = Page(f'<section id="sweeps">{html}</section>')
    studies, trials, back = page.tables["sweeps"]
    assert [row[:5] for row in studies[1:]] == [
        ["ucf101", f"linear (study {number})", "3", "45.0", "40.0–45.0"] for number in (0, 1)
    ]
    assert trials[0][2:5] == ["trial", "rung", "of trial"]
    assert [row[2:6] for row in trials[1:6]] == [
        ["0", "0", "–", "complete"],
        ["1", "0", "–", "complete"],
        ["2", "0", "–", "complete"],
        ["3", "1", "1", "chosen"],
        ["4", "1", "0", "complete"],
    ]
    assert [row[2] for row in back[1:]] == [
        f"results/tiny/sweeps/ucf101/linear/study{number}.json" for number in (0, 1)
    ]
