"""A whole folder of results, as a finished workflow leaves it: small, made up, and in order."""

import hashlib
from pathlib import Path

from ssp.config import slice_hash
from ssp.data.manifest import manifest_hash
from ssp.figures.ablation import write_curve
from ssp.figures.accuracy import write_figures
from ssp.files import write_text
from ssp.paths import Paths
from ssp.records.choice import Choice, SweepRun, Trial, save_choice
from ssp.records.readings import Reading, note_reading
from ssp.records.record import Chosen, Git, Moment, load_record, package_versions
from ssp.records.sums import write_sums
from ssp.tables import write_tables
from ssp.tables.ablations import write_ablation
from tests.unit.made_data import manifest_rows, write_manifest
from tests.unit.made_records import SHARES, hits_of, make_config, write_cell
from tests.unit.made_report import epochs, write_explained

ABLATIONS = {
    "prompts": {"title": "Prompts", "of": "ssp", "vary": {"num_prompts": [1, 2]}, "datasets": ["hmdb51"], "seeds": [0]}
}
COMMIT = Git(commit="0" * 40, dirty=False)


def write_choice(config, dataset, method, study, manifest):
    """Two complete trials, the second one better, and a pruned one."""
    chosen = [Chosen(lr=lr, weight_decay=0.05, drop_path=0.0) for lr in (0.1, 0.01, 0.001)]
    found = [("complete", 55.5), ("complete", 61.2), ("pruned", None)]
    trials = [
        Trial(
            number=i,
            state=state,
            params={"lr": chosen[i].lr},
            hyperparameters=chosen[i],
            value=value,
            epochs=epochs(value or 10.0),
        )
        for i, (state, value) in enumerate(found)
    ]
    plain = config.sweep_slice(dataset, method)
    run = SweepRun(started="2000-01-01T00:00:00Z", seconds=9.0, trial_seconds=[3.0] * 3, interrupted=0, host="here")
    choice = Choice(
        status="ok",
        dataset=dataset,
        method=method,
        study=study,
        config=plain,
        config_hash=slice_hash(plain),
        manifest_hash=manifest,
        budget=config.rungs(dataset),
        space={},
        hyperparameters=chosen[1],
        trial=1,
        value=61.2,
        trials=trials,
        run=run,
    )
    save_choice(choice, Paths.of(config).choice(dataset, method, study))
    return choice


def write_run(config, dataset, method, seed, choice, reason=None, **changes):
    """A record with predictions, weights and readings, trained from a choice."""
    paths, row = Paths.of(config), config.rows[method]
    chosen = choice.hyperparameters.model_copy(update={"options": row.varied})
    weights = f"weights of {dataset}/{method}/seed{seed}"
    write_text(paths.weights(dataset, method, seed), weights)
    made = {
        "hyperparameters": chosen,
        "sweep": choice.summary(),
        "weights_sha256": hashlib.sha256(weights.encode()).hexdigest(),
        "versions": package_versions(),
        "git": COMMIT,
        "manifest_hash": choice.manifest_hash,
    }
    hits = None if reason else hits_of(SHARES[row.method] + 0.02 * seed, videos=40, seed=seed)
    write_cell(config, dataset, method, seed, hits, reason, **(made | changes))
    if not reason:
        moment = Moment(at="2000-01-01T00:00:00Z", commit=COMMIT.commit)
        record = load_record(paths.record(dataset, method, seed))
        reading = Reading(by="train", config_hash=record.config_hash, hyperparameters=chosen, run=moment)
        note_reading(paths.readings(dataset, method, seed), reading)


def make_results(**changes) -> Path:
    """Write everything under the current folder; returns the folder of the results. One seed has failed."""
    plain = {
        "methods": {"ssp": {"title": "ssp", "options": {"num_prompts": 2}}, "linear": {"title": "linear"}},
        "sweep": {"trials": 3},
    }
    config = make_config(datasets=("hmdb51", "ssv2"), **(plain | {"ablations": ABLATIONS} | changes))
    paths = Paths.of(config)
    manifests = {}
    for dataset in config.datasets:
        write_manifest(config, dataset, manifest_rows(dataset, ["0.avi"], videos=40))
        manifests[dataset] = manifest_hash(paths.kept_manifest(dataset))
    choices = {study: write_choice(config, *study, manifests[study[0]]) for study in config.studies()}
    for dataset, method, seed in config.runs():
        failed = (dataset, method, seed) == ("ssv2", "linear", 1)
        choice = choices[dataset, config.rows[method].tuned_as, config.study_of(seed)]
        write_run(config, dataset, method, seed, choice, "out of memory" if failed else None)
    for dataset in config.datasets:
        weights = load_record(paths.record(dataset, "ssp", config.seeds[0])).weights_sha256
        write_explained(config, dataset, weights=weights)
    make_tables(config)
    write_text(paths.report, "<h1>Report</h1>\n")
    for name in ("logs/train.log", "logs/train.tsv", "mlflow/mlflow.db", "state/x.journal", "scan.done"):
        write_text(paths.results / name, "nothing rests on this\n")
    write_text(paths.config, dump(config))
    write_sums(config)
    return paths.results


def make_tables(config):
    """Tables and figures from the records that there are."""
    write_tables(config)
    write_figures(config)
    for name in config.ablations:
        write_ablation(config, name)
        write_curve(config, name)


def dump(config) -> str:
    """The checked copy of a config, as the workflow writes it."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
