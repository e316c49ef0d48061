import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import ssp
from ssp.config import parse_config
from ssp.errors import RecordError
from ssp.paths import Paths
from ssp.records.record import Chosen, EarlierChoice, Metrics
from ssp.tables import print_tables, write_tables
from ssp.tables.stats import holm
from tests.unit.made_records import PARAMETERS, hits_of, make_config, write_all, write_cell


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(config, file):
    path = Paths.of(config).tables / file
    return pd.read_csv(path) if file.endswith(".csv") else path.read_text()


def printed(config, width):
    file = io.StringIO()
    print_tables(config, Console(width=width, file=file))
    return file.getvalue()


def test_main_table_by_hand():
    config = make_config(datasets=("hmdb51", "breakfast"), methods=("ssp", "linear"))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.60))
    write_cell(config, "hmdb51", "ssp", 1, hits_of(0.64))
    write_cell(config, "hmdb51", "linear", 0, hits_of(0.40))
    write_cell(config, "hmdb51", "linear", 1, hits_of(0.40))
    write_cell(config, "breakfast", "ssp", 0, hits_of(0.70))
    write_cell(config, "breakfast", "ssp", 1, hits_of(0.72))
    write_cell(config, "breakfast", "linear", 0, hits_of(0.50))
    write_cell(config, "breakfast", "linear", 1, hits_of(0.60))
    paths = write_tables(config)
    assert {path.name for path in paths} == {
        "config.json",
        *(
            f"{n}.{x}"
            for n in ("main", "parameters", "costs", "uncertainty", "differences", "verdict")
            for x in ("csv", "md", "tex")
        ),
        *(f"{name}.csv" for name in ("pairs", "ranks", "seeds")),
    }
    text = read(config, "main.csv")
    assert text.columns.tolist() == ["dataset", "method", "mean", "sd", "n_seeds", "published", "status"]
    assert text.drop(columns="sd").astype(object).where(text.drop(columns="sd").notna(), None).values.tolist() == [
        ["hmdb51", "ssp", 62.0, 2, 76.66, "ok"],
        ["hmdb51", "linear", 40.0, 2, None, "ok"],  # the paper has no linear probe
        ["breakfast", "ssp", 71.0, 2, 93.23, "ok"],
        ["breakfast", "linear", 55.0, 2, None, "ok"],
    ]
    assert text["sd"].tolist() == [2.82842712, 0, 1.41421356, 7.07106781]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in read(config, "main.md").splitlines()[2:]]
    heads = [f"{d} {n}" for d in ("HMDB51-like", "Breakfast-like", "average") for n in ("top-1", "paper")]
    assert lines[0] == ["method", *heads, "average rank"]
    # Averages within seeds: ssp (60 + 70) / 2 and (64 + 72) / 2, so 66.5 ± 2.1; published (76.66 + 93.23) / 2 = 84.945.
    # Two seeds tell nothing apart on one data set, but they do in the average.
    assert lines[2] == ["ssp", "62.0 ± 2.8", "76.66", "71.0 ± 1.4", "93.23", "**66.5 ± 2.1**", "84.94", "1"]
    assert lines[3] == ["linear", "40.0 ± 0.0", "–", "55.0 ± 7.1", "–", "47.5 ± 3.5", "–", "2"]


def test_parameters_are_the_records():
    config = make_config(datasets=("ssv2", "breakfast"), methods=("vpt", "full"), seeds=(3,))
    write_all(config)
    write_tables(config)
    table = read(config, "parameters.csv")
    assert table.columns.tolist() == ["method", "dataset", "total", "trainable", "extra", "head", "published_m"]
    expected = [
        [method, dataset, *PARAMETERS[method].model_dump(exclude={"tuned"}).values(), figure]
        for method, figure in (("vpt", 1.5), ("full", 74.0))
        for dataset in ("ssv2", "breakfast")
    ]
    assert table.values.tolist() == expected
    assert "181,000" in read(config, "parameters.md")


def test_uncertainty_and_differences_say_what_stats_says():
    from ssp.records.predictions import merge_views, read_predictions
    from tests.unit.tables.single import accuracy_interval, paired_difference

    config = make_config(datasets=("ucf101",), methods=("linear", "ssp", "vpt"), seeds=(0, 1, 2))
    write_all(config)
    write_tables(config)

    def videos(method):
        paths = (Paths.of(config).predictions("ucf101", method, seed) for seed in config.seeds)
        return [merge_views(read_predictions(path)) for path in paths]

    row = read(config, "uncertainty.csv").set_index("method").loc["vpt"]
    interval = accuracy_interval(videos("vpt"))
    assert [row["mean"], row["low"], row["high"]] == pytest.approx([interval.estimate, interval.low, interval.high])
    assert (row["groups"], row["videos"], row["interval"]) == (40, 200, "seeds and groups")
    assert row["half_width"] == pytest.approx((row["high"] - row["low"]) / 2)
    differences = read(config, "differences.csv").set_index("method")
    assert set(differences.index) == {"linear", "vpt"} and set(differences["reference"]) == {"ssp"}
    found = paired_difference(dict(enumerate(videos("ssp"))), dict(enumerate(videos("vpt"))))
    row = differences.loc["vpt"]
    assert [row["difference"], row["low"], row["high"], row["p"]] == pytest.approx(
        [found.estimate, found.low, found.high, found.p], abs=1e-7
    )
    assert (differences["p_holm"] >= differences["p"]).all()


def test_first_method_is_the_reference_without_ssp():
    config = make_config(datasets=("ucf101",), methods=("vpt", "full"))
    write_all(config)
    write_tables(config)
    differences = read(config, "differences.csv")
    assert differences[["reference", "method", "difference"]].values.tolist() == [["vpt", "full", -21.0]]


@pytest.mark.slow
def test_same_records_same_bytes_whatever_time_and_host_say():
    config = make_config(datasets=("hmdb51", "ssv2"))
    write_all(config)
    before = {path: path.read_bytes() for path in write_tables(config)}
    for path in Paths.of(config).results.glob("records/*/*/*.json"):
        record = json.loads(path.read_text())
        record["run"] |= {"started": "2031-05-05T05:05:05Z", "seconds": 9e9, "host": "elsewhere", "peak_memory_mb": 7.0}
        path.write_text(json.dumps(record))
    assert {path: path.read_bytes() for path in write_tables(config)} == before
    assert not list(Paths.of(config).tables.glob(".*"))  # no temporary file is left


def test_failed_cells_stay_with_their_reason():
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "full", "vpt"), seeds=(0, 1, 2))
    write_all(config)
    reason = "loss is not finite in epoch 3 (50% | lr_x)"
    for seed in config.seeds:
        write_cell(config, "ssv2", "full", seed, reason=reason, parameters=None)
    write_cell(config, "hmdb51", "vpt", 1, reason="out of memory")
    write_tables(config)
    main = read(config, "main.csv").set_index(["dataset", "method"])
    assert main.loc[("ssv2", "full"), "status"] == "failed"
    assert np.isnan(main.loc[("ssv2", "full"), "mean"]) and main.loc[("ssv2", "full"), "n_seeds"] == 0
    assert main.loc[("hmdb51", "vpt"), ["mean", "n_seeds", "status"]].tolist() == [52.0, 2, "partial"]
    assert (main.drop([("ssv2", "full"), ("hmdb51", "vpt")])["status"] == "ok").all()
    markdown = read(config, "main.md")
    assert "failed [2]" in markdown and "52.0 ± 2.8 [1]" in markdown
    assert r"- [2] full on SSv2-like failed with seed 0, 1, 2: loss is not finite in epoch 3 (50% \| lr_x)" in markdown
    assert "- [1] vpt on HMDB51-like failed with seed 1: out of memory (the mean is over the other seeds)" in markdown
    rows = {line.split("|")[1].strip(): line for line in markdown.splitlines() if line.startswith("|")}
    # No average over a part of the data sets; the published one stands.
    assert [cell.strip() for cell in rows["full"].split("|")[-4:-1]] == ["–", "71.80", "–"]
    seeds = read(config, "seeds.csv").set_index(["dataset", "method", "seed"])
    assert seeds.loc[("ssv2", "full", 0), "reason"] == reason
    assert read(config, "parameters.csv").set_index(["dataset", "method"]).loc[("ssv2", "full")].isna()["total"]
    differences = read(config, "differences.csv").set_index(["dataset", "method"])
    assert np.isnan(differences.loc[("ssv2", "full"), "p"]) and differences.loc[("ssv2", "full"), "n_seeds"] == 0
    assert differences.loc[("hmdb51", "vpt"), "n_seeds"] == 2 and np.isnan(differences.loc[("hmdb51", "vpt"), "p"])
    assert differences["p"].notna().sum() == 2  # comparisons that are left: full on hmdb51, vpt on ssv2
    assert differences["p_holm"].min() == pytest.approx(2 * differences["p"].min(), abs=1e-7)


def test_everything_failed():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"), seeds=(0,))
    for method in config.methods:
        write_cell(config, "hmdb51", method, 0, reason="out of memory", parameters=None)
    write_tables(config)
    assert read(config, "main.csv")["status"].tolist() == ["failed", "failed"]
    assert printed(config, 80).count("failed") == 4  # the cells and their notes


def earlier(*counts):
    """Other choices from which test had been read."""
    chosen = Chosen(lr=0.1, weight_decay=0.05, drop_path=0.0)
    return [
        EarlierChoice(config_hash=f"{i}" * 16, hyperparameters=chosen, test_readings=n) for i, n in enumerate(counts)
    ]


def test_a_choice_after_a_look_at_test_is_marked():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt", "full"), seeds=(0, 1))
    write_all(config)
    write_cell(config, "hmdb51", "vpt", 0, hits_of(0.5), earlier_test_readings=earlier(1, 3))
    write_cell(config, "hmdb51", "vpt", 1, hits_of(0.5), earlier_test_readings=earlier(1))
    write_cell(config, "hmdb51", "full", 0, reason="out of memory", earlier_test_readings=earlier(1))
    write_tables(config)
    main = read(config, "main.md")
    assert "50.0 ± 0.0 [1]" in main and "- [1] test had been read 5 times before this choice" in main
    assert (
        "- [2] full on HMDB51-like failed with seed 0: out of memory (the mean is over the other seeds); "
        "test had been read 1 time before this choice\n"
    ) in main
    assert "[3]" not in main
    assert read(config, "seeds.csv")["read_before"].tolist() == [0, 0, 4, 1, 1, 0]


def test_only_cells_of_the_config_count():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"))
    write_all(config)
    write_all(make_config(datasets=("hmdb51", "ssv2"), methods=("full",), seeds=(0, 1, 2)))
    write_tables(config)
    assert read(config, "main.csv")[["dataset", "method"]].values.tolist() == [["hmdb51", "ssp"], ["hmdb51", "vpt"]]


def test_missing_record_is_named_with_the_command_that_makes_it():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"))
    write_all(config)
    Paths.of(config).record("hmdb51", "vpt", 1).unlink()
    with pytest.raises(RecordError) as caught:
        write_tables(config)
    assert str(caught.value) == (
        "results/tried/records/hmdb51/vpt/seed1.json: missing; make it with: python -m ssp train "
        "--config results/tried/config.yaml --dataset hmdb51 --method vpt --seed 1"
    )
    assert not Paths.of(config).tables.exists()  # nothing half-written


def test_record_of_another_config_is_stale_and_the_key_is_named():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"))
    write_all(config)
    changed = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"), sweep={"trials": 9})
    with pytest.raises(RecordError, match=r"stale.*was sweep.trials = 6; now sweep.trials = 9.*--method ssp --seed 0"):
        write_tables(changed)


def test_predictions_must_be_those_of_the_record():
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.5))
    record = Paths.of(config).record("hmdb51", "ssp", 0)
    kept = record.read_text()
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.6))
    record.write_text(kept)
    with pytest.raises(RecordError, match=r"seed0.parquet: not the file that its record was made from"):
        write_tables(config)
    sealed = Paths.of(config).predictions("hmdb51", "ssp", 0).read_bytes()
    write_cell(config, "hmdb51", "ssp", 0, reason="out of memory")  # a failed one has none to put in
    Paths.of(config).predictions("hmdb51", "ssp", 0).write_bytes(sealed)
    with pytest.raises(RecordError, match=r"seed0.parquet: not the file that its record was made from"):
        write_tables(config)


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"correct": 160, "top1": 80.0}, "top1 is 50, but the record says 80"),
        ({"top1": 99.0}, "top1 is 50, but the record says 99"),
        ({"correct": 160}, "correct is 100, but the record says 160"),
    ],
)
def test_accuracy_must_follow_from_the_predictions(forged, message):
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.5))
    path = Paths.of(config).record("hmdb51", "ssp", 0)
    record = json.loads(path.read_text())
    record["metrics"] |= forged
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match=message):
        write_tables(config)


def test_records_of_one_data_set_must_share_a_manifest():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt"), seeds=(0,))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.5))
    write_cell(config, "hmdb51", "vpt", 0, hits_of(0.5), manifest_hash="another")
    with pytest.raises(RecordError, match=r"vpt/seed0.json: made from another manifest than .*ssp/seed0.json"):
        write_tables(config)


def test_records_of_one_checkpoint_must_share_its_file():
    config = make_config(datasets=("hmdb51", "ucf101"), methods=("ssp",), seeds=(0,))
    write_cell(config, "hmdb51", "ssp", 0, hits_of(0.5), backbone_hash="one")
    write_cell(config, "ucf101", "ssp", 0, hits_of(0.5), backbone_hash="other")
    with pytest.raises(RecordError, match=r"made from another file of the backbone than .*hmdb51/ssp/seed0.json"):
        write_tables(config)


def write_apart(config, shares):
    """Records of one data set, rows so many percent right with a little noise of seeds and videos."""
    for m, (method, share) in enumerate(shares.items()):
        for seed in config.seeds:
            rng = np.random.default_rng([m, seed])
            write_cell(config, "hmdb51", method, seed, rng.permutation(2000) < round(20 * (share + rng.normal(0, 0.3))))


def test_bold_is_all_that_may_be_the_best_and_only_complete_cells_compete():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt", "full", "linear"), seeds=range(5))
    write_apart(config, {"ssp": 61.7, "vpt": 61.0, "full": 95.0, "linear": 50.0})
    write_cell(config, "hmdb51", "full", 1, reason="out of memory")
    write_tables(config)
    ranks = read(config, "ranks.csv").set_index("method")
    assert ranks.loc[["ssp", "vpt", "linear"]].drop(columns="dataset").values.tolist() == [
        [1, 1, 2],
        [2, 1, 2],
        [3, 3, 3],
    ]
    assert "full" not in ranks.index
    rows = {line.split("|")[1].strip(): line for line in read(config, "main.md").splitlines() if line.startswith("|")}
    assert [row for row, line in rows.items() if "**" in line] == ["ssp", "vpt"]
    assert [line.split("|")[-2].strip() for line in list(rows.values())[2:]] == ["1 (1–2)", "2 (1–2)", "–", "3"]
    assert "no other row is better (p < 0.05, adjusted after Holm over all 3 pairs of rows" in read(config, "main.md")


def test_two_seeds_make_nothing_bold_on_a_data_set():
    config = make_config(datasets=("hmdb51",), methods=("ssp", "linear"), seeds=(0, 1))
    write_apart(config, {"ssp": 90.0, "linear": 30.0})
    write_tables(config)
    markdown = read(config, "main.md")
    assert (
        "**" not in markdown
        and "Not enough seeds to tell rows apart on HMDB51-like: nothing is bold there." in markdown
    )
    assert read(config, "ranks.csv")["rank"].tolist() == [1, 2] and read(config, "ranks.csv")["rank_low"].isna().all()
    line = read(config, "differences.md").splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")[5:7]] == ["not enough seeds", "–"]
    assert "Not enough seeds for a p-value on HMDB51-like: one data set needs 3" in read(config, "differences.md")


def test_pairs_are_one_family_and_comparisons_with_the_reference_another():
    config = make_config(datasets=("hmdb51", "ssv2"), methods=("ssp", "vpt", "linear"), seeds=(0, 1, 2))
    write_all(config)
    write_tables(config)
    pairs, differences = read(config, "pairs.csv"), read(config, "differences.csv")
    assert len(pairs) == 3 * 3 and len(differences) == 3 * 2
    assert differences["dataset"].unique().tolist() == ["hmdb51", "ssv2", "average"]
    for table in (pairs, differences):
        assert 0 < table["p"].min() < 1e-8  # made of seeds that agree: tiny, and not rounded to nothing
        assert table["p_holm"].tolist() == pytest.approx(holm(table["p"]).tolist(), abs=1e-7)
    both = differences.merge(pairs, left_on=["dataset", "reference", "method"], right_on=["dataset", "first", "second"])
    assert len(both) == 6
    assert both["p_x"].tolist() == both["p_y"].tolist() and both["low_x"].tolist() == both["low_y"].tolist()
    assert "over all 6 p-values of this table" in read(config, "differences.md")
    average = differences.set_index(["dataset", "method"])["difference"].unstack()
    assert average.loc["average"].tolist() == pytest.approx(average.loc[["hmdb51", "ssv2"]].mean().tolist())


def test_what_cannot_be_significant_is_said():
    """Five groups: no p below 2 / 2^5, and after Holm over two comparisons none below 4 / 2^5."""
    config = make_config(datasets=("hmdb51",), methods=("ssp", "vpt", "linear"), seeds=(0, 1, 2))
    for m, method in enumerate(config.methods):
        for seed in config.seeds:
            write_cell(config, "hmdb51", method, seed, np.random.default_rng([m, seed]).random(25) < 0.9 - 0.3 * m)
    write_tables(config)
    differences = read(config, "differences.csv")
    assert (differences["p"] >= 2 / 32).all() and differences["p_holm_smallest"].tolist() == [4 / 32, 4 / 32]
    said = "HMDB51-like: with 5 test groups p cannot be below 0.062, nor p (Holm) below 0.12; nothing there can be"
    assert said in read(config, "differences.md")


def test_caption_tells_what_the_numbers_are():
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))
    write_all(config)
    write_tables(config)
    for file in ("main.md", "parameters.md"):
        text = read(config, file)
        assert text.startswith("Tried & tested: generated videos, small backbone. ")
        assert "generated videos and another backbone: the published numbers are context, not a comparison" in text
    assert "1 seed; hyper-parameters chosen on validation with 6 trials" in read(config, "main.md")
    assert r"Tried \& tested" in read(config, "main.tex")


def test_own_videos_stand_beside_no_published_number():
    plain = make_config(datasets=("hmdb51",)).model_dump(mode="json")
    own = {
        key: plain["datasets"]["hmdb51"][key]
        for key in ("expected", "frames", "clips", "checkpoint", "recipe", "start")
    }
    config = parse_config(plain | {"datasets": {"mine": own | {"source": "folder", "videos": "mine"}}}, "made.yaml")
    write_all(config)
    write_tables(config)
    for text in (read(config, "main.md"), read(config, "parameters.tex"), printed(config, 80), printed(config, 160)):
        assert "ssp" in text and "paper" not in text and "published" not in text and "2.41" not in text


def test_caption_tells_that_test_chose_the_epoch():
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,), quirks={"best_epoch": "published"})
    write_all(config)
    write_tables(config)
    assert "validation videos; the epoch of each final model chosen on test, as published." in read(config, "main.md")


def test_published_merge_of_ids_is_followed():
    """Tables must merge as the record did: with `merge_ids: published` the cameras of a recording are one video."""
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,), quirks={"merge_ids": "published"})
    one = Metrics(top1=100.0, top5=100.0, correct=1, videos=1, views=2, val_top1=50.0, val_loss=1.0)
    write_cell(config, "hmdb51", "ssp", 0, [1] * 8, name="cam{}/P03_milk.avi", metrics=one)
    write_tables(config)
    assert read(config, "uncertainty.csv")["videos"].tolist() == [1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A config whose tables are written, and the folder where."""
    config, folder = make_config(datasets=("hmdb51", "ssv2")), tmp_path_factory.mktemp("written")
    with contextlib.chdir(folder):
        write_all(config)
        write_cell(config, "ssv2", "vpt", 1, reason="out of memory")
        write_tables(config)
    return config, folder


@pytest.mark.parametrize("width", [40, 66, 80, 160])
def test_terminal_shows_all_numbers_at_any_width(written, monkeypatch, width):
    config, folder = written
    monkeypatch.chdir(folder)
    text = printed(config, width)
    if width >= 66:
        assert max(map(len, text.splitlines())) <= width
    row = read(config, "uncertainty.csv").set_index(["dataset", "method"]).loc[("hmdb51", "ssp")]
    interval = f"{row['low']:.1f}–{row['high']:.1f}"
    for number in ("63.0 ± 1.4", "76.66", "40.58", "210,000", "74.00", "54.0 [1]", interval):
        assert number in text, number


def test_terminal_needs_written_tables():
    config = make_config(datasets=("hmdb51",), methods=("ssp",), seeds=(0,))
    with pytest.raises(RecordError, match=r"main.csv: cannot be read .*python -m ssp tables --config"):
        print_tables(config)
    write_all(config)
    write_tables(config)
    (Paths.of(config).tables / "main.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecordError, match=r"main.csv: columns are not dataset, method"):
        print_tables(config)


@pytest.mark.slow
def test_tables_need_no_torch():
    code = (
        "import sys, ssp.tables, ssp.figures.accuracy, ssp.report; "
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ssp.__file__).parent.parent)
