"""The page as a whole: its numbers, the way back from them, and that it needs nothing else. In a browser too."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssp.config import Config, slice_hash
from ssp.data.manifest import manifest_hash
from ssp.errors import RecordError
from ssp.figures.accuracy import write_figures
from ssp.paths import Paths
from ssp.report import SECTIONS, write_report
from ssp.tables import write_tables
from tests.unit.made_data import write_data
from tests.unit.made_records import hits_of, make_config, write_all, write_cell, write_costs
from tests.unit.made_report import Page, epochs, make_report, write_choices, write_explained


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a config with a failed seed and a failed sweep, and its path."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = folder / Paths.of(make_report()).report
    return Page(path.read_text()), path


def test_accuracy_and_differences(page):
    accuracy, differences = page[0].tables["accuracy"]
    assert accuracy[0] == ["method", "HMDB51-like", "SSv2-like", "average", "rank"]
    written = pd.read_csv(page[1].parent / "tables" / "uncertainty.csv").set_index(["dataset", "method"])
    ends = [
        f"{row['low']:.1f}–{row['high']:.1f}" for row in (written.loc[d, "ssp"] for d in ("hmdb51", "ssv2", "average"))
    ]
    means = [f"{mean} ± 1.4{interval}" for mean, interval in zip(("63.0", "67.0", "65.0"), ends, strict=True)]
    assert accuracy[1] == ["ssp", *means, "1"]
    assert accuracy[2][2].startswith("50.01") and accuracy[2][3] == "–"  # note 1, and no average
    assert differences[1][:4] == ["HMDB51-like", "ssp", "vpt", "+12.0"]
    assert [(row[0], row[6]) for row in differences[1:3]] == [("HMDB51-like", "not enough seeds")] * 2
    assert differences[-1][0] == "average" and differences[-1][6] == "<0.0001"


def test_what_was_found_stands_first_in_words_that_the_tables_bear_out(page):
    text = page[1].read_text()
    said = text[text.index('class="findings"') : text.index("</ul>")]
    said = [re.sub(r"<.*?>", "", line).strip().replace("\u00a0", " ") for line in said.split("<li")[1:]]
    said = [line.partition(">")[2] for line in said]
    written = pd.read_csv(page[1].parent / "tables" / "differences.csv").set_index(["dataset", "method"])
    row = written.loc["average", "linear"]
    assert "On average over 2 generated data sets ssp has the highest top-1 accuracy, 65.0 %" in said[0]
    assert "above every other row" in said[0]  # of those that have all runs
    assert said[1].startswith(f"ssp is above linear (+20.0 points; +{row['low']:.1f} to +{row['high']:.1f}; adjusted p")
    assert "ssp trains 29,350 parameters" in said[2] and "2.0 times that of a linear probe" in said[2]
    assert said[-2] == "All videos are generated: nothing here is a result on published data."
    assert said[-1] == "1 of 12 runs failed; rows with failed runs have no place and no average."
    (answer,) = page[0].tables["answer"]
    assert [cells[1] for cells in answer] == ["method", "ssp", "linear", "vpt"]  # by rank; what has none last
    assert answer[2][3].startswith("−20.0") and "p " in answer[2][3]


def test_published_numbers_stand_nowhere_on_a_page_of_other_data(page):
    for section, tables in page[0].tables.items():
        assert not [cell for table in tables for row in table for cell in row if "paper" in cell], section
    text = page[1].read_text()
    assert "76.66" not in text and "2.41" not in text and "published by" not in text


@pytest.mark.slow
def test_published_numbers_stand_beside_what_they_are_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make_config(datasets=("hmdb51",), methods=("ssp", "linear")).model_dump(mode="json")
    plain["backbone"] |= {"architecture": "videomamba_middle", "image_size": 224}
    plain["datasets"]["hmdb51"] |= {"generate": None, "archives": [{"file": "videos.zip", "urls": ["http://a/b.zip"]}]}
    config = Config.model_validate(plain)
    text = _made(config).read_text()
    accuracy, _, verdicts = Page(text).tables["accuracy"]
    assert accuracy[0] == ["method", "HMDB51", "paper", "rank"]
    assert accuracy[1][2].startswith("76.66")
    assert verdicts[1][:3] == ["HMDB51", "ssp", "76.66"]
    assert Page(text).tables["costs"][1][1][-1] == "2.41"


def test_one_seed_has_no_spread_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = _made(make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))).read_text()
    assert "±" not in text.partition("<main>")[2]
    assert "One seed: there is no spread, no interval and no p-value." in text
    assert "On HMDB51-like ssp reaches 62.0\u00a0% top-1; there is no other row to compare it with." in text


@pytest.mark.slow
def test_what_cannot_be_told_apart_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt", "linear"), seeds=(0, 1, 2))
    made = {"manifest_hash": write_data(config, "hmdb51")}
    for i, (method, share) in enumerate((("ssp", 0.6), ("vpt", 0.61), ("linear", 0.2))):
        for seed in config.seeds:
            write_cell(config, "hmdb51", method, seed, hits_of(share + 0.02 * seed, seed=seed + 10 * i), **made)
    write_choices(config)
    write_tables(config)
    write_explained(config, "hmdb51")
    text = write_report(config).read_text()
    assert "vpt has the highest top-1 accuracy, 63.0" in text
    assert "ssp cannot be told apart from it; linear is below it." in text
    assert "ssp is above linear (+40.0 points" in text and "cannot be told apart.</li>" in text


def test_parameters_are_a_line_for_each_method(page):
    parameters = page[0].tables["costs"][1]
    assert parameters[0] == ["method", "total", "trained", "added"]
    assert parameters[1:] == [
        ["ssp", "209,350", "29,414", "29,350"],
        ["vpt", "189,350", "8,414", "8,350"],
        ["linear", "180,350", "64", "0"],
    ]
    assert "(HMDB51-like 650, SSv2-like 650)" in page[1].read_text()


def test_costs(page):
    costs = page[0].tables["costs"][0]
    assert costs[0] == [
        *("method", "parameters", "GFLOPs", "× linear's step", "× linear's memory", "× linear's inference", "saved MB")
    ]
    assert costs[1] == ["ssp", "29,350 [1]", "20.0", "2.00", "2.00", "1.00", "2.00"]
    assert "costs.json" in page[0].links


def test_sweeps(page):
    studies, trials = page[0].tables["sweeps"]
    back = page[0].tables["runs"][2]
    chosen = ("1.23e-02", "0.05", "0.1", "num_prompts 3")
    assert studies[1] == ["HMDB51-like", "ssp", "1", "61.2", "55.5–61.2", "2", "1", "0", "3", "1:30 min", *chosen]
    assert studies[2][2] == "every trial failed <b>"
    assert "Too few trials to say" in page[1].read_text()
    assert len(trials) == 1 + 5 * 3
    assert [row[3:5] for row in trials[1:4]] == [["complete", "55.5"], ["chosen", "61.2"], ["pruned", "–"]]
    assert back[1][2:] == ["sweeps/hmdb51/ssp.json", back[1][3], "manifest of hmdb51", "a1b2c3"]
    config = make_config(datasets=("hmdb51",), methods=("ssp",))
    assert back[1][3] == slice_hash(config.sweep_slice("hmdb51", "ssp"))


def test_classes(page):
    hmdb51, _ = page[0].tables["classes"]
    assert hmdb51[0] == ["no.", "class", "videos", "ssp", "vpt", "linear"]
    assert [row[1] for row in hmdb51[1:]] == [f"kind <{i}> of hmdb51" for i in range(6)]
    videos = [int(row[2]) for row in hmdb51[1:]]
    assert sum(videos) == 200
    # Weighted by their videos, classes average to the accuracy of the cell.
    assert sum(n * float(row[3]) for n, row in zip(videos, hmdb51[1:], strict=True)) / 200 == pytest.approx(63, abs=0.1)


def test_stages(page):
    (stages,) = page[0].tables["stages"]
    before = ["generate", "fetch", "unpack", "manifest", "frames", "build_scan", "init_tracking"]
    rules = [*before, "sweep", "train", "costs", "tables", "explain", "keep_manifest", "report"]
    assert [row[0].startswith(rule) for row, rule in zip(stages[1:], rules, strict=True)] == [True] * len(rules)
    rows = dict(zip(rules, stages[1:], strict=True))
    assert rows["train"][1:] == ["122 measured", "1:32 min", "1:02 min", "2,000", "1:02 minssv2 ssp seed0"]
    assert rows["init_tracking"][1:3] == ["1", "4.0 s"]


def test_runs_and_the_way_back(page):
    runs, back, _ = page[0].tables["runs"]
    assert [runs[1][0], runs[1][1], runs[1][3]] == ["HMDB51-like", "ssp", "62.00"]
    text = page[1].read_text()
    assert text.count('title="ssp trace results/tried --dataset hmdb51 --row ssp"') == 1
    assert '<code class="command">ssp trace results/tried --dataset hmdb51 --row ssp</code>' in text
    assert runs[10][3] == "loss is not <finite>"
    assert (runs[0][8], runs[1][8], runs[9][8]) == ("test read", "1", "1 + 3 before")
    config_hash = slice_hash(make_config(datasets=("hmdb51",), methods=("ssp",)).cell_slice("hmdb51", "ssp"))
    assert back[1][4] == config_hash
    assert back[1][6] == "0" * 12


@pytest.mark.slow
def test_what_was_measured_on_test_is_not_called_validation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_report(quirks={"best_epoch": "published"})
    place = (config, "ssv2", "vpt", 0)
    taken = {"epochs": 2, "best_epoch": {"epoch": 1, "measured_on": "test"}}
    write_cell(
        *place,
        hits_of(0.5),
        curves=epochs(40.0, 20.0),
        manifest_hash=manifest_hash(Paths.of(config).manifest("ssv2")),
        **taken,
    )
    write_tables(config)
    write_report(config)
    text = Paths.of(config).report.read_text()
    page = Page(text)
    assert "for each data set and method; the epoch of each final model chosen on test, as published." in text
    runs = page.tables["runs"][0]
    assert runs[0][7] == "epoch, test"
    assert [row[9] for row in runs if row[:3] == ["SSv2-like", "vpt", "0"]] == ["1 of 2"]
    curves = text[text.index('id="curves"') :]
    assert "seed 0, test top-1 in percent: 40.0, 20.0" in curves and "seed 0, test loss" in curves
    assert "test has\nchosen them" in curves and "validation loss" not in curves


def test_explained(page):
    parsed, path = page
    shown = [picture for picture in parsed.pictures if picture["section"] == "explained"]
    assert len(shown) == 2
    told = "kind <1>: prompts 0.12 to 0.5 times as large as what they are added to, the gate gives most, 20 % above an"
    assert all(told in picture["alt"] and "to frame 2 of 4" in picture["alt"] for picture in shown)
    text = path.read_text()
    assert '<span class="right">kind &lt;1&gt;</span> <span class="soft">88 %' in text
    assert '<b>kind &lt;2&gt;</b> <span class="soft">v0002.avi</span> <span class="wrong">kind &lt;1&gt;</span>' in text
    (command,) = re.findall(r'<code class="command">(.*?)</code>', text.partition('id="explained"')[2])[:1]
    assert re.sub(r"<.*?>", "", command) == (
        "python -m ssp predict VIDEO --config results/tried/config.yaml --dataset hmdb51 --method ssp --seed 0 "
        "--explain OUT.png"
    )


def _made(config):
    """The page of a config over one data set whose runs all went well."""
    write_all(config, {"hmdb51": write_data(config, "hmdb51")})
    write_choices(config)
    write_tables(config)
    write_explained(config, "hmdb51")
    return write_report(config)


def _report(tmp_path, monkeypatch, methods, **changes):
    """The text of a page over one data set; `changes` are those of the run of SSP that is explained."""
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=methods)
    made = {"manifest_hash": write_data(config, "hmdb51", videos=40)}
    for method in methods:
        for seed in config.seeds:
            failed = changes if (method, seed) == ("ssp", 0) else {}
            write_cell(config, "hmdb51", method, seed, hits_of(0.5, 40), **made, **failed)
    write_choices(config)
    write_tables(config)
    if "ssp" in methods:
        write_explained(config, "hmdb51")
    return write_report(config).read_text()


@pytest.mark.slow
def test_without_ssp_nothing_is_explained(tmp_path, monkeypatch):
    text = _report(tmp_path, monkeypatch, ("vpt", "linear"))
    assert 'id="classes"' in text and 'href="#classes"' in text
    assert 'id="explained"' not in text and 'href="#explained"' not in text and "What SSP attends to" not in text


def test_a_failed_run_of_ssp_is_told(tmp_path, monkeypatch):
    lost = {"reason": "loss is not <finite>", "parameters": None, "hyperparameters": None}
    text = _report(tmp_path, monkeypatch, ("ssp", "linear"), **lost)
    page = Page(text)
    assert 'No picture: <a href="#run-hmdb51-ssp">ssp</a> with seed 0 failed, loss is not &lt;finite&gt;' in text
    assert not [picture for picture in page.pictures if picture["section"] == "explained"]
    assert "#explained" in page.links


def test_page_needs_nothing_else(page):
    parsed, path = page
    assert all(address.startswith(("#", "data:")) for address in parsed.fetched), parsed.fetched
    text = path.read_text()
    assert "@import" not in text and "url(http" not in text and "fetch(" not in text
    assert "&lt;tested&gt;" in text and "<tested>" not in text
    assert len(text) < 1.5e6


def test_every_link_leads_somewhere(page):
    parsed, path = page
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = {link for link in parsed.links if link.startswith("#")}
    assert {f"#{section.anchor}" for section in SECTIONS if section.anchor != "ablations"} <= inside
    assert {f"#run-{d}-{m}" for d in ("hmdb51", "ssv2") for m in ("ssp", "vpt", "linear")} <= inside
    assert {link[1:] for link in inside} <= set(parsed.ids)
    files = set(parsed.links) - inside
    figures = {link for link in files if link.startswith("figures/")}  # the workflow draws them beside the page
    assert figures == {f"figures/accuracy_against_parameters.{kind}" for kind in ("pdf", "png")}
    assert [link for link in files - figures if not (path.parent / link).exists()] == []
    for folder in ("records", "predictions"):
        assert sum(link.startswith(folder) for link in files) == 12


def test_report_needs_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=("ssp",))
    write_all(config)
    write_tables(config)
    with pytest.raises(RecordError, match=r"sweeps/hmdb51/ssp.json"):
        write_report(config)
    assert not Paths.of(config).report.exists()


def test_runs_that_ablations_alone_have_are_under_their_seals_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = make_config(datasets=("hmdb51",), methods=("ssp",)).model_dump(mode="json")
    plain["ablations"] = {"prompts": {"title": "Prompts", "of": "ssp", "vary": {"num_prompts": [1]}, "seeds": [0]}}
    config = Config.model_validate(plain)
    hashes = {"hmdb51": write_data(config, "hmdb51")}
    write_all(config, hashes)
    write_choices(config)
    write_tables(config)
    write_cell(config, "hmdb51", "ssp+num_prompts=1", 0, hits_of(0.5), manifest_hash=hashes["hmdb51"])
    paths = Paths.of(config)
    file = paths.predictions("hmdb51", "ssp+num_prompts=1", 0)
    file.write_bytes(paths.predictions("hmdb51", "ssp", 0).read_bytes())
    with pytest.raises(RecordError, match=rf"{re.escape(str(file))}: not the file that its record was made from"):
        write_report(config)


def test_report_needs_the_manifest_of_the_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=("ssp",))
    write_all(config)
    write_choices(config)
    write_tables(config)
    write_data(config, "hmdb51", videos=8)
    with pytest.raises(RecordError, match=r"manifests/hmdb51.parquet: not the manifest .*snakemake --cores 1 --force"):
        write_report(config)
    Paths.of(config).kept_manifest("hmdb51").unlink()
    with pytest.raises(RecordError, match=r"manifests/hmdb51.parquet: missing; keep it: snakemake .*tried/config.yaml"):
        write_report(config)


@pytest.mark.slow
def test_report_without_data_says_what_it_leaves_out(tmp_path, monkeypatch):
    with_data = Page(_report(tmp_path, monkeypatch, ("linear",)))
    config, folder = make_config(datasets=("hmdb51",), methods=("linear",)), Path("data/hmdb51")
    for name in ("manifest.parquet", "frames/shard-0.lmdb", "."):
        part = (folder / name).resolve()
        part.rename(tmp_path / "away")
        text = write_report(config).read_text()
        assert text.count("Left out: this page was made where the frames of HMDB51-like are not.") == 1, name
        without = Page(text)
        assert any("image/webp" in address for address in with_data.fetched)
        assert not any("image/webp" in address for address in without.fetched), name
        assert without.tables == with_data.tables and without.ids == with_data.ids, name
        (tmp_path / "away").rename(part)


# In a browser.

FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync
--disable-component-update --hide-scrollbars --virtual-time-budget=5000 --dump-dom --enable-logging=stderr --v=0
"""

PROBE = """
<script>
window.addEventListener("load", () => {
  const told = [], tables = (section) => document.querySelectorAll(`#${section} table`);
  const column = (table, name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  const press = (table, name) => table.tHead.rows[0].cells[column(table, name)].firstChild.click();
  const text = (row, i) => row.cells[i].textContent.trim();
  const texts = (table, name) => [...table.tBodies[0].rows].map((row) => text(row, column(table, name)));
  const runs = tables("runs")[0];
  press(runs, "top-1"); told.push(texts(runs, "top-1").join(" "));
  press(runs, "top-1"); told.push(texts(runs, "top-1").join(" "));
  press(runs, "data set"); press(runs, "data set"); told.push(texts(runs, "data set")[0]);
  const sizes = tables("costs")[1];
  press(sizes, "trained"); told.push(texts(sizes, "method").join(" ")); // thousands have commas: 29,414, 8,414, 64
  const stages = tables("stages")[0];
  press(stages, "time"); told.push(texts(stages, "time").slice(0, 3).join(" ")); // 1:32 min is more than 4.0 s
  const drawn = [...document.querySelectorAll("img, svg:not(.key)")];
  const pictures = drawn.filter((one) => !one.closest("details:not([open])"));
  const empty = pictures.filter((one) => one.getBoundingClientRect().width < 20 || one.naturalWidth === 0);
  told.push(`${document.querySelectorAll("img").length} pictures, ${empty.length} empty`);
  const explained = [...document.querySelectorAll("#explained img")];
  told.push(explained.map((one) => `${one.naturalWidth} px`).join(" ")); // the picture's own width: it was decoded
  const parts = [...document.querySelectorAll('main [data-row="vpt"]')];
  const box = document.querySelector('input[value="vpt"]');
  const seen = () => parts.filter((part) => getComputedStyle(part).display !== "none").length;
  box.click(); told.push(`${seen()} of ${parts.length > 20} parts of vpt`);
  box.click(); told.push(`${seen() === parts.length} again`);
  document.querySelector('input[value="ssv2"]').click();
  const heads = [...tables("accuracy")[0].tHead.rows[0].cells].filter((cell) => cell.offsetWidth);
  told.push(heads.map((cell) => cell.textContent.trim()).join(" "));
  document.querySelector('input[value="ssv2"]').click();
  location.hash = "#run-ssv2-ssp";
  setTimeout(() => {
    told.push(document.querySelectorAll("tr.asked").length + " rows asked");
    document.title = "PROBE " + told.join(" / ");
  }, 200);
});
window.addEventListener("error", (event) => { document.title = "ERROR " + event.message; });
</script>
"""


def _browse(path: Path, profile: Path) -> subprocess.CompletedProcess:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium (Debian: chromium)")
    command = [browser, *FLAGS.split(), f"--user-data-dir={profile}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


@pytest.mark.slow
def test_in_a_browser(page, tmp_path):
    """Tables sort, pictures are there, a followed number marks its runs, and the console stays empty."""
    probe = tmp_path / "probe.html"
    probe.write_text(page[1].read_text().replace("</body>", PROBE + "</body>"))
    done = _browse(probe, tmp_path / "profile")
    title = re.search(r"<title>(PROBE|ERROR) (.*?)</title>", done.stdout)
    assert title, done.stderr[-1000:]
    failed = "loss is not &lt;finite&gt;"
    assert title[0] == (
        f"<title>PROBE 68.00 66.00 64.00 62.00 52.00 50.00 50.00 48.00 46.00 44.00 42.00 {failed} / "
        f"42.00 44.00 46.00 48.00 50.00 50.00 52.00 62.00 64.00 66.00 68.00 {failed} / SSv2-like / "
        f"ssp vpt linear / 1:32 min 4.0 s – / 98 pictures, 0 empty / 300 px 300 px / "
        "0 of true parts of vpt / true again / method HMDB51-like average rank / 4 rows asked</title>"
    )
    assert _complaints(done.stderr) == []


@pytest.mark.slow
def test_the_console_of_the_browser_is_heard(page, tmp_path):
    """What the test above relies on: errors are heard, and so is any request, as the page's own policy forbids them."""
    broken = '<script>console.error("mended?")</script><img src="http://127.0.0.1:9/none.png"></body>'
    probe = tmp_path / "broken.html"
    probe.write_text(page[1].read_text().replace("</body>", broken))
    told = " ".join(_complaints(_browse(probe, tmp_path / "profile").stderr))
    assert "mended?" in told
    assert "none.png" in told


def _complaints(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
def test_report_of_real_runs(tiny):
    """Tables, figure and page from records, a sweep and videos that the real jobs wrote."""
    from ssp.jobs.explain import explain_dataset
    from ssp.jobs.seed import train_cell
    from ssp.jobs.sweep import run_sweep

    method = {"ssp": {"options": {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}}}
    config = tiny(sweep__trials=1, sweep__epochs=1, methods=method)
    run_sweep(config, "ucf101", "ssp")
    records = [train_cell(config, "ucf101", "ssp", seed) for seed in config.seeds]
    explain_dataset(config, "ucf101")
    kept = Paths.of(config).kept_manifest("ucf101")
    kept.parent.mkdir()
    shutil.copy(Paths.of(config).manifest("ucf101"), kept)
    write_costs(config)
    write_tables(config)
    write_figures(config)
    parsed = Page(write_report(config).read_text())
    runs, back, _ = parsed.tables["runs"]
    assert [row[3] for row in runs[1:]] == [f"{record.metrics.top1:.2f}" for record in records]
    assert [row[-1] for row in back[1:]] == [record.run.mlflow_run_id for record in records]
    assert (
        sum(address.startswith("data:image/webp") for address in parsed.fetched)
        >= config.datasets["ucf101"].clips.num_frames
    )
    (picture,) = [picture for picture in parsed.pictures if picture["section"] == "explained"]
    kind, _, content = picture["src"].partition(",")
    assert kind == "data:image/webp;base64"
    with (
        Image.open(io.BytesIO(base64.b64decode(content))) as embedded,
        Image.open(Paths.of(config).explained_picture("ucf101")) as drawn,
    ):
        assert np.array_equal(np.asarray(embedded), np.asarray(drawn.convert("RGB")))  # few pixels: all are kept
