"""The report's section of sweeps, where there are rungs and several studies."""

from ssp.jobs.sweep import run_sweep
from ssp.paths import Paths
from ssp.report import page_environment, sweeps
from ssp.report.results import Results
from tests.unit.jobs.test_sweep import scripted
from tests.unit.made_report import Page

SWEEP = {"fidelity": [{"trials": 3, "epochs": 0.3}, {"trials": 2}], "repeats": 2}


def test_rungs_and_studies_are_told_apart(tiny, monkeypatch):
    config = tiny(sweep=SWEEP)
    scripted(monkeypatch, [[60], [90], [50], [1, 1, 45], [1, 1, 40]] * 2)
    choices = {("ucf101", "linear", number): run_sweep(config, "ucf101", "linear", number) for number in (0, 1)}
    results = Results(
        **dict.fromkeys(("tables", "layouts", "cells", "points", "names")),
        config=config,
        choices=choices,
        paths=Paths.of(config),
    )
    html = page_environment(config).get_template("sweeps.html.j2").render(sweeps.content(results))
    assert "2 independent studies for each data set and method" in html
    assert "3 trials for 1 of 3 epochs, the best 2 for all." in html
    page = Page(f'<section id="sweeps">{html}</section>')
    studies, trials = page.tables["sweeps"]
    assert [row[:5] for row in studies[1:]] == [
        ["UCF101-like", f"Linear (study {number})", "3", "45.0", "40.0–45.0"] for number in (0, 1)
    ]
    assert trials[0][2:5] == ["trial", "rung", "of trial"]
    assert [row[2:6] for row in trials[1:6]] == [
        ["0", "0", "–", "complete"],
        ["1", "0", "–", "complete"],
        ["2", "0", "–", "complete"],
        ["3", "1", "1", "chosen"],
        ["4", "1", "0", "complete"],
    ]
    links = {f"sweeps/ucf101/linear/study{number}.json" for number in (0, 1)}
    assert set(page.links) == links


def test_epochs_of_all_folds_are_counted(tiny, monkeypatch):
    """Three folds of a trial train three times its epochs; the panel tells what each fold said."""
    config = tiny(sweep__trials=1)
    scripted(monkeypatch, [[60, 70]])
    choice = run_sweep(config, "ucf101", "linear", None)
    (trial,) = choice.trials
    folded = choice.model_copy(update={"trials": [trial.model_copy(update={"folds": [50.0, 60.0, 70.0]})]})
    found = []
    for one in (choice, folded):
        results = Results(
            **dict.fromkeys(("tables", "layouts", "cells", "points", "names")),
            config=config,
            choices={("ucf101", "linear", None): one},
            paths=Paths.of(config),
        )
        made = sweeps.content(results)
        assert made["trials"][0]["epochs"] == made["studies"][0]["epochs"]
        found.append((made["trials"][0]["epochs"], str(made["datasets"][0]["panels"][0]["chart"])))
    assert found[1][0] == 3 * found[0][0]
    assert "(folds: 50.0, 60.0, 70.0)" in found[1][1] and "folds" not in found[0][1]
