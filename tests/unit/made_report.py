"""A whole report over made records and choices, and a reader of its page."""

import hashlib
import html.parser

from PIL import Image

from ssp.config import slice_hash
from ssp.files import atomic_path, write_json, write_text
from ssp.paths import Paths
from ssp.records.choice import Budget, Choice, SweepRun, Trial, save_choice
from ssp.records.explained import Explained, ExplainedClip, Origin
from ssp.records.record import Chosen, EarlierChoice, Epoch, load_record
from ssp.report import write_report
from ssp.tables import write_tables
from tests.unit.made_data import write_data
from tests.unit.made_records import hits_of, make_config, write_all, write_cell

VOID = {"meta", "link", "path", "use", "circle", "polyline", "line", "rect", "image", "img", "br", "input"}


def epochs(*accuracies):
    return [
        Epoch(epoch=i, lr=0.01, train_loss=2.0 / i, val_loss=2.5 / i, val_top1=top1)
        for i, top1 in enumerate(accuracies, 1)
    ]


def write_choices(config, failed=()):
    """Sweeps of three trials: complete, chosen, pruned; or none that finished."""
    for dataset in config.datasets:
        for method in config.methods:
            good = (dataset, method) not in failed
            rates = [
                Chosen(lr=lr, weight_decay=0.05, drop_path=0.1, options={"num_prompts": 3}) for lr in (0.1, 0.0123)
            ]
            trials = [
                Trial(number=0, state="complete", params={}, hyperparameters=rates[0], value=55.5, epochs=epochs(55.5)),
                Trial(number=1, state="complete", params={}, hyperparameters=rates[1], value=61.2, epochs=epochs(61.2)),
                Trial(number=2, state="pruned", params={}, hyperparameters=rates[0], value=None, epochs=epochs(10.0)),
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
                budget=[Budget(trials=3, epochs=1)],
                space={},
                hyperparameters=rates[1] if good else None,
                trial=1 if good else None,
                value=61.2 if good else None,
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


def write_explained(config, dataset, weights="1" * 64):
    """What SSP attended to, by a picture of one grey; a failed run has none."""
    paths = Paths.of(config)
    record = load_record(paths.record(dataset, "ssp", config.seeds[0]))
    if record.status == "failed":
        write_json(paths.explained(dataset), Explained(made_from=Origin.of(record)).model_dump(mode="json"))
        return
    with atomic_path(paths.explained_picture(dataset)) as temporary:
        Image.new("RGB", (300, 200), (119, 119, 119)).save(temporary, "PNG")
    clips = [
        ExplainedClip(
            id=video,
            label=label,
            name=f"kind <{label}>",
            predicted=1,
            predicted_name="kind <1>",
            probability=0.876,
            view=0,
            gate=[0.2, 0.3, 0.25, 0.25],
            strength=(0.125, 0.5),
        )
        for label, video in ((1, "v0001.avi"), (2, "v0002.avi"))
    ]
    picture = hashlib.sha256(paths.explained_picture(dataset).read_bytes()).hexdigest()
    explained = Explained(made_from=Origin.of(record), weights=weights, picture=picture, clips=clips)
    write_json(paths.explained(dataset), explained.model_dump(mode="json"))


def write_usage_file(path, seconds, memory=100.5, cpu=1.5):
    """What a job has written down at its end."""
    write_text(path, f"s\tmax_rss\tcpu_time\n{seconds:.2f}\t{memory:.2f}\t{cpu:.2f}\n")


def make_report(**changes):
    """Write everything in the current folder: one failed seed, one failed sweep; returns the config."""
    title = "Tried & <tested>"
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "vpt", "linear"), title=title, **changes)
    hashes = {dataset: write_data(config, dataset) for dataset in config.datasets}
    write_all(config, hashes)
    ssv2 = {"manifest_hash": hashes["ssv2"]}
    earlier = EarlierChoice(
        config_hash="0" * 16, hyperparameters=Chosen(lr=0.1, weight_decay=0.05, drop_path=0.1), test_readings=3
    )
    write_cell(
        config, "ssv2", "vpt", 0, hits_of(0.5), curves=epochs(20.0, 40.0), earlier_test_readings=[earlier], **ssv2
    )
    lost = {"reason": "loss is not <finite>", "parameters": None, "hyperparameters": None}
    write_cell(config, "ssv2", "vpt", 1, **lost, **ssv2)
    write_choices(config, failed=[("hmdb51", "vpt")])
    for dataset in config.datasets:
        write_explained(config, dataset)
    paths = Paths.of(config)
    write_usage_file(paths.usage("train", "ssv2", "vpt", "seed0"), 30)
    write_usage_file(paths.usage("train", "ssv2", "ssp", "seed0"), 61.5, memory=2000.2, cpu=60.25)
    write_usage_file(paths.usage("train", "ssv2", "gone", "seed0"), 1000)
    write_usage_file(paths.usage("init_tracking"), 4)
    write_tables(config)
    write_report(config)
    return config


class Page(html.parser.HTMLParser):
    """Tables by section as lists of rows of texts, ids, links, pictures, and everything that would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.fetched, self.links, self.ids, self.open = {}, [], [], [], []
        self.pictures = []
        self.section = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        tables = self.tables.setdefault(self.section, [])
        if tag == "table":
            tables.append([])
        elif tag == "tr":
            tables[-1].append([])
        elif tag in ("td", "th"):
            tables[-1][-1].append("")
        self.pictures += [attributes | {"section": self.section}] if tag == "img" else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        # A link of SVG is href too: <image href>, <use href>.
        self.fetched += [attributes[a] for a in ("src", "srcset", "xlink:href", "data") if a in attributes]
        self.fetched += [attributes["href"]] if "href" in attributes and tag != "a" else []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            row = self.tables[self.section][-1][-1]
            row[-1] = row[-1].strip()
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if self.open and any(tag in ("td", "th") for tag in self.open) and "title" not in self.open:
            self.tables[self.section][-1][-1][-1] += data
