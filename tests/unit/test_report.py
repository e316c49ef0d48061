import html.parser
import re
import shutil
import subprocess

import pytest
from made_records import hits_of, make_config, write_all, write_cell

from ssp.choice import Budget, Choice, SweepRun, Trial, save_choice
from ssp.config import slice_hash
from ssp.errors import RecordError
from ssp.figures import write_figures
from ssp.paths import Paths
from ssp.record import Chosen, Epoch
from ssp.report import sparkline, write_report
from ssp.tables import write_tables


def epochs(*accuracies):
    return [
        Epoch(epoch=i, lr=0.01, train_loss=1.0, val_loss=1.0, val_top1=top1) for i, top1 in enumerate(accuracies, 1)
    ]


def write_choices(config, failed=()):
    for dataset in config.datasets:
        for method in config.methods:
            good = (dataset, method) not in failed
            chosen = Chosen(lr=0.0123, weight_decay=0.05, drop_path=0.1, options={"num_prompts": 3})
            trials = [
                Trial(number=0, state="complete", params={}, hyperparameters=chosen, value=55.5, epochs=epochs(55.5)),
                Trial(number=1, state="complete", params={}, hyperparameters=chosen, value=61.25, epochs=epochs(61.25)),
                Trial(number=2, state="pruned", params={}, hyperparameters=chosen, value=None, epochs=epochs(10.0)),
            ]
            plain = config.sweep_slice(dataset, method)
            choice = Choice(
                status="ok" if good else "failed",
                reason=None if good else "every trial failed <b>",
                dataset=dataset,
                method=method,
                config=plain,
                config_hash=slice_hash(plain),
                manifest_hash=f"manifest of {dataset}",
                budget=Budget(trials=3, epochs=1),
                space={},
                hyperparameters=chosen if good else None,
                trial=1 if good else None,
                value=61.25 if good else None,
                trials=trials if good else [],
                run=SweepRun(
                    started="2000-01-01T00:00:00Z",
                    seconds=90.0,
                    trial_seconds=[30.0, 30.0, 30.0],
                    interrupted=0,
                    host="here",
                    sweep_run_id="a1b2c3",
                ),
            )
            save_choice(choice, Paths.of(config).choice(dataset, method))


class Page(html.parser.HTMLParser):
    """Tables as lists of rows of texts, and everything that would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.fetched, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in {"meta", "link", "path", "use", "circle", "polyline", "line", "rect", "br"}:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.fetched += [attributes[a] for a in ("src", "xlink:href", "data") if a in attributes]
        if tag == "link":
            self.fetched.append(attributes["href"])

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if self.open and any(tag in ("td", "th") for tag in self.open) and "title" not in self.open:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a config with a failed seed and a failed sweep, and its path."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        path = folder / _write_page()
    return Page(path.read_text()), path


def _write_page():
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "vpt", "linear"), title="Tried & <tested>")
    write_all(config)
    write_cell(config, "ssv2", "vpt", 0, hits_of(0.5), curves=epochs(20.0, 40.0))
    write_cell(config, "ssv2", "vpt", 1, reason="loss is not <finite>", parameters=None, hyperparameters=None)
    write_choices(config, failed=[("hmdb51", "vpt")])
    write_tables(config)
    return write_report(config)


def test_numbers_and_the_way_back(page):
    accuracy, differences, parameters, sweeps, runs = page[0].tables
    assert accuracy[0] == ["method", "hmdb51", "paper", "ssv2", "paper", "average", "paper"]
    assert accuracy[1] == ["ssp", "63.0 ± 1.456.5–69.2", "76.66", "67.0 ± 1.459.8–74.2", "53.72", "65.0 ± 1.4", "65.19"]
    assert accuracy[2][3].startswith("50.01") and accuracy[2][5] == "–"  # note 1, and no average
    assert differences[1][:4] == ["hmdb51", "ssp", "vpt", "+12.0"]
    assert parameters[1] == ["ssp", "hmdb51", "210,000", "30,064", "29,350", "650", "2.41"]
    assert sweeps[1] == [
        *("hmdb51", "ssp", "1", "61.2", "55.5–61.2", "2", "1", "0", "1.23e-02", "0.05", "0.1", "num_prompts 3", "1.5"),
        "a1b2c3",
    ]
    assert sweeps[2][2] == "every trial failed <b>"
    config_hash = slice_hash(make_config(datasets=("hmdb51",), methods=("ssp",)).cell_slice("hmdb51", "ssp"))
    assert [runs[1][0], runs[1][1], runs[1][3], runs[1][13]] == ["hmdb51", "ssp", "62.00", config_hash]
    assert runs[10][3] == "loss is not <finite>"


def test_page_needs_nothing_else(page):
    parsed, path = page
    assert all(address.startswith(("#", "data:")) for address in parsed.fetched), parsed.fetched
    text = path.read_text()
    assert "@import" not in text and "url(http" not in text
    links = re.findall(r'href="((?:records|sweeps|tables)/[^"]*)"', text)
    assert len(links) == 6 + 12 + 1 and all((path.parent / link).exists() for link in links)
    assert "&lt;tested&gt;" in text and "<tested>" not in text


def test_report_needs_records_and_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(datasets=("hmdb51",), methods=("ssp",))
    write_all(config)
    write_tables(config)
    with pytest.raises(RecordError, match=r"sweeps/hmdb51/ssp.json"):
        write_report(config)
    assert not Paths.of(config).report.exists()


def test_sparkline_spans_0_to_100():
    assert 'points="3.0,19.0 87.0,3.0"' in sparkline([0.0, 100.0])
    assert sparkline([]) == "–"


PROBE = """
<script>
window.addEventListener("load", () => {
  const table = document.querySelector("#runs ~ .scroll table"), told = [];
  const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  const tops = () => [...table.tBodies[0].rows].map((row) => row.cells[column("top-1")].textContent.trim());
  const press = (name) => table.tHead.rows[0].cells[column(name)].firstChild.click();
  press("top-1"); told.push(tops().join(" "));
  press("top-1"); told.push(tops().join(" "));
  press("data set"); press("data set"); told.push(table.tBodies[0].rows[0].cells[0].textContent);
  const sizes = document.querySelector("#parameters ~ .scroll table");
  sizes.tHead.rows[0].cells[3].firstChild.click(); // thousands have commas: 30,064, 9,064, 714
  told.push([...sizes.tBodies[0].rows].map((row) => row.cells[0].textContent).join(" "));
  told.push(document.querySelector("figure svg").getBoundingClientRect().width > 100);
  document.title = "PROBE " + told.join(" / ");
});
window.addEventListener("error", (event) => { document.title = "ERROR " + event.message; });
</script>
"""


@pytest.mark.slow
def test_tables_sort_in_a_browser(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium (Debian: chromium)")
    probe = tmp_path / "probe.html"
    probe.write_text(page[1].read_text().replace("</body>", PROBE + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser, *options, "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(PROBE|ERROR) (.*?)</title>", done.stdout)
    assert title, done.stderr[-1000:]
    failed = "loss is not &lt;finite&gt;"
    assert title[0] == (
        f"<title>PROBE 68.00 66.00 64.00 62.00 52.00 50.00 50.00 48.00 46.00 44.00 42.00 {failed} / "
        f"42.00 44.00 46.00 48.00 50.00 50.00 52.00 62.00 64.00 66.00 68.00 {failed} / ssv2 / "
        f"ssp ssp vpt vpt linear linear / true</title>"
    )


@pytest.mark.slow
def test_report_of_real_runs(tiny):
    """Tables, figure and page from records and a sweep that the real jobs wrote."""
    from ssp.run import train_cell
    from ssp.sweep import run_sweep

    config = tiny(sweep__trials=1, sweep__epochs=1, methods={"linear": {}})
    run_sweep(config, "ucf101", "linear")
    records = [train_cell(config, "ucf101", "linear", seed) for seed in config.seeds]
    write_tables(config)
    write_figures(config)
    runs = Page(write_report(config).read_text()).tables[-1][1:]
    assert [row[3] for row in runs] == [f"{record.metrics.top1:.2f}" for record in records]
    assert [row[-1] for row in runs] == [record.run.mlflow_run_id for record in records]
