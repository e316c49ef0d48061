import re
import shutil
import subprocess

import pandas as pd
import pytest

from ssp.tables import dataframe_to_latex, dataframe_to_markdown, write_tables
from ssp.tables.markup import Measured, Noted, latex_text
from tests.unit.made_records import make_config, write_all, write_cell

NASTY = 'a_b & 50% of $x$ #1 {y} ~z^2 \\w <1> |q| "r" [s] *t* ± – − × é 你\nnew line'


def test_markdown():
    table = pd.DataFrame(
        {
            "method": ["ssp", "a|b*"],
            "count": [2418274, 0],
            "share": [2.4183, float("nan")],
            "top-1": [Measured(61.04, 1.26, best=True), Noted("failed", "1")],
        }
    )
    assert dataframe_to_markdown(table, ["out of\nmemory"]) == (
        "| method |     count | share |          top-1 |\n"
        "| ------ | --------: | ----: | -------------: |\n"
        "| ssp    | 2,418,274 |  2.42 | **61.0 ± 1.3** |\n"
        "| a\\|b\\* |         0 |     – |     failed [1] |\n"
        "\n"
        "- [1] out of memory\n"
    )


def test_markdown_joins_column_groups():
    table = pd.DataFrame([["ssp", 1, 2]], columns=pd.MultiIndex.from_tuples([("", "m"), ("d", "x"), ("d", "y")]))
    assert dataframe_to_markdown(table).splitlines()[0] == "| m   | d x | d y |"


def test_latex():
    columns = pd.MultiIndex.from_tuples([("", "method"), ("hmdb_51", "top-1"), ("hmdb_51", "paper"), ("", "n")])
    table = pd.DataFrame([["ssp", Measured(61.04, 1.26, best=True), 76.66, 3]], columns=columns).astype(object)
    text = dataframe_to_latex(table, "5% or 50 % more", "tab:a_b", ["why & how"])
    assert r"\caption{5\% or 50~\% more}" in text and r"\label{tab:a-b}" in text
    assert r"\multicolumn{1}{c}{} & \multicolumn{2}{c}{hmdb\_51} & \multicolumn{1}{c}{} \\" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"ssp & \textbf{61.0}$_{\pm 1.3}$ & 76.66 & 3 \\" in text
    assert r"$^{1}$~why \& how" in text


def test_single_seed_has_no_spread():
    table = pd.DataFrame({"x": [Measured(61.04, float("nan"))]})
    assert "| 61.0 |" in dataframe_to_markdown(table) and "pm" not in dataframe_to_latex(table, "c", "l")


def test_latex_text_leaves_no_special():
    escaped = latex_text(NASTY)
    assert "\n" not in escaped and "?" in escaped  # a sign that the standard fonts lack
    commands = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots)\{\}"
    rest = re.sub(commands + r"|\\[&%$#_{}]|\$\\(pm|times|cdot)\$|\$-\$|\{[\[*]\}", "", escaped)
    assert not re.search(r"[\\&%$#_{}^]", rest), rest
    assert latex_text("[1] *") == "{[}1] {*}"  # after a line's end both would be read as its argument


def structure(text):
    """Every row has as many cells as there are columns; environments are closed."""
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    for line in body:
        assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


@pytest.fixture(scope="module")
def latex_tables(tmp_path_factory):
    """All LaTeX tables of a config with four data sets, a failure and a nasty title."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("latex")
        patch.chdir(folder)
        config = make_config(title=NASTY)
        write_all(config)
        write_cell(config, "ssv2", "vpt", 1, reason=NASTY)
        return [folder / path for path in write_tables(config) if path.suffix == ".tex"]


def test_latex_structure(latex_tables):
    assert len(latex_tables) == 6
    for path in latex_tables:
        structure(path.read_text())


def test_latex_compiles(latex_tables, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    inputs = "".join(rf"\input{{{path.as_posix()}}}" for path in latex_tables)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout  # every table fits the text width
