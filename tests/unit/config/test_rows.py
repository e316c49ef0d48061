"""Rows of the tables and points of ablations: what is the same training, what it is called, and what it starts from."""

from copy import deepcopy

import pytest

from ssp.config import Config, data_title, parse_config
from ssp.config.rows import TITLES
from ssp.errors import ConfigError
from ssp.methods.registry import load_method
from ssp.methods.space import search_space
from tests.unit.made_records import make_config
from tests.unit.tiny_benchmark import PLAIN as TINY

PLAIN = deepcopy(TINY)
PLAIN["backbone"]["checkpoints"]["f4"]["local"] = "backbone.safetensors"
PLAIN["datasets"]["ucf101"]["local"] = "generated"

ROWS = {
    "linear": {},
    "vpt": {"options": {"num_prompts": 2}, "space": {"lr": {"low": 0.01, "high": 0.1}}},
    "vpt_before_cls": {
        "method": "vpt",
        "title": "VPT, before",
        "options": {"num_prompts": 2, "position": "before_cls"},
    },
    "ssp": {"options": {"num_prompts": 3}},
}


def config(**changes) -> Config:
    return Config.model_validate(PLAIN | {"methods": ROWS, "data_root": "data"} | changes)


def ablated(*ablations, **changes) -> Config:
    named = {f"a{i}": {"title": "A", "of": "ssp"} | ablation for i, ablation in enumerate(ablations)}
    return config(ablations=named, **changes)


def test_two_rows_share_a_method():
    rows = config().rows
    assert list(rows) == list(ROWS)
    assert (rows["vpt"].method, rows["vpt_before_cls"].method) == ("vpt", "vpt")
    assert (rows["vpt"].title, rows["vpt_before_cls"].title) == ("VPT", "VPT, before")
    one, other = (config().cell_slice("ucf101", name)["method"] for name in ("vpt", "vpt_before_cls"))
    assert one["name"] == other["name"] == "vpt" and one != other


def test_a_known_method_is_called_as_its_class_is():
    """A row of another name is called by that."""
    assert {name: load_method(name).title for name in TITLES} == TITLES
    assert config(methods={"mine": {"method": "ssp"}, "ssp": {}}, ablations={}).rows["mine"].title == "mine"


def test_data_sets_are_called_as_people_write_them():
    plain = make_config(datasets=("hmdb51", "ssv2")).model_dump(mode="json")
    plain["datasets"]["small"] = plain["datasets"]["ssv2"]
    plain["datasets"]["hmdb51"] |= {"generate": None, "archives": [{"file": "a.zip", "urls": ["http://a/b.zip"]}]}
    made = Config.model_validate(plain)
    titles = [data_title(made, name) for name in (*made.columns, "average")]
    assert titles == ["HMDB51", "SSv2-like", "small", "average"]  # generated ones are no more than like them


def test_published_goes_by_the_rows_name_unless_it_says_otherwise():
    rows = config(methods=ROWS | {"mine": {"method": "ssp", "published": "ssp"}, "full": {"published": False}}).rows
    assert [rows[name].published for name in ("ssp", "mine", "full")] == ["ssp", "ssp", None]


def test_start_goes_from_the_data_set_over_the_row_to_the_rows_data_set():
    row = {"method": "vpt", "start": {"lr": 0.5, "weight_decay": 0.1}, "starts": {"ucf101": {"lr": 0.7}}}
    rows = config(methods=ROWS | {"vpt": row}).rows
    assert rows["vpt"].start_on("ucf101") == {"lr": 0.7, "weight_decay": 0.1}
    assert rows["vpt"].start_on("other") == {"lr": 0.5, "weight_decay": 0.1}
    assert rows["ssp"].start_on("ucf101") == {}


def test_what_a_row_is_called_decides_no_result():
    renamed = config(
        methods={"my_ssp": {"method": "ssp", "title": "Mine", "options": {"num_prompts": 3}}},
        reference=None,
        explained=None,
    )
    assert renamed.cell_slice("ucf101", "my_ssp") == config().cell_slice("ucf101", "ssp")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": {"vtp": {}}}, "methods.vtp: unknown method; did you mean 'vpt'"),
        ({"methods": {"a": {"method": "vtp"}}}, "methods.a.method: unknown method 'vtp'; did you mean 'vpt'"),
        ({"reference": "sps"}, "reference: 'sps' is none of methods; did you mean 'ssp'"),
        ({"datasets": {"average": PLAIN["datasets"]["ucf101"]}}, "datasets.average: tables call the average"),
        ({"explained": "x"}, "explained: 'x' is none of methods"),
        ({"methods": {"ssp": {"starts": {"ucf": {"lr": 1}}}}}, "methods.ssp.starts.ucf: no such data set"),
        ({"ablations": {"a": {"title": "A", "of": "x", "vary": {"n": [1]}}}}, "ablations.a.of: 'x' is none of methods"),
        (
            {"ablations": {"a": {"title": "A", "of": "ssp", "vary": {"n": [1]}, "seeds": [7]}}},
            "7 is none of seeds (0, 1)",
        ),
        ({"ablations": {"a": {"title": "A", "of": "ssp", "vary": {"n": 1}}}}, "'n' needs a list of values"),
        (
            {"ablations": {"a": {"title": "A", "of": "ssp", "vary": {"n": [1], "m": [1], "o": [1]}}}},
            "one or two options",
        ),
    ],
)
def test_wrong_names_are_said(changes, said):
    with pytest.raises(ConfigError, match="here") as error:
        parse_config(PLAIN | {"methods": ROWS, "data_root": "data"} | changes, "here")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_point_that_is_the_base_row_is_the_base_row():
    found = ablated({"vary": {"num_prompts": [1, 3]}})
    assert [point.row for point in found.points["a0"]] == ["ssp+num_prompts=1", "ssp"]
    assert found.runs().count(("ucf101", "ssp", 0)) == 1


def test_a_point_that_is_another_row_is_that_row():
    found = ablated({"of": "vpt", "vary": {"position": ["before_cls"]}, "hyperparameters": "search"})
    assert found.points["a0"][0].row == "vpt+position=before_cls+searched"  # another space: not the same study
    plain = ROWS | {"vpt": {"options": {"num_prompts": 2}}, "vpt_before_cls": ROWS["vpt_before_cls"]}
    found = ablated({"of": "ssp", "vary": {"entropy_norm": ["fixed"]}}, methods=plain)
    assert found.points["a0"][0].row == "ssp"  # the protocol says so already


def test_ablations_that_share_a_point_share_its_run():
    found = ablated({"vary": {"num_prompts": [1, 2]}}, {"vary": [{"title": "One", "options": {"num_prompts": 1}}]})
    assert found.points["a1"][0].row == found.points["a0"][0].row
    assert len(found.runs()) == (4 + 2) * 2
    searched = ablated({"vary": {"num_prompts": [1]}}, {"vary": {"num_prompts": [1]}, "hyperparameters": "search"})
    assert searched.points["a0"][0].row != searched.points["a1"][0].row


def test_a_grid_is_every_pair():
    found = ablated({"vary": {"num_prompts": [1, 3], "inner_dim": [8, 16]}})
    assert [point.values for point in found.points["a0"]] == [
        {"num_prompts": n, "inner_dim": d} for n in (1, 3) for d in (8, 16)
    ]
    assert found.points["a0"][0].row == "ssp+inner_dim=8+num_prompts=1"
    assert found.curve_axis("a0") == "num_prompts"


def test_values_that_read_alike_are_not_the_same_row():
    rows = [point.row for point in ablated({"vary": {"x": ["1", 1, True, "a/b"]}}).points["a0"]]
    assert len(set(rows)) == 4 and not any("/" in row for row in rows)


def test_inheriting_points_have_no_study_and_depend_on_the_bases():
    found = ablated({"vary": {"num_prompts": [1]}, "datasets": ["ucf101"], "seeds": [1]})
    point = "ssp+num_prompts=1"
    assert found.rows[point].tuned_as == "ssp" and ("ucf101", point, None) not in found.studies()
    assert ("ucf101", point, 1) in found.runs() and ("ucf101", point, 0) not in found.runs()
    wider = {"ssp": ROWS["ssp"] | {"space": {"lr": {"low": 0.1, "high": 0.2}}}}
    other = ablated({"vary": {"num_prompts": [1]}}, methods=ROWS | wider)
    assert other.cell_slice("ucf101", point) != found.cell_slice("ucf101", point)


def test_a_searched_point_fixes_what_is_varied():
    space = {"num_prompts": {"low": 1, "high": 5}, "lr": {"low": 0.1, "high": 0.2}}
    rows = ROWS | {"ssp": ROWS["ssp"] | {"space": space, "start": {"lr": 0.1}}}
    found = ablated({"vary": {"num_prompts": [1]}, "hyperparameters": "search"}, methods=rows)
    row = found.rows[found.points["a0"][0].row]
    assert set(row.space) == {"lr"} and row.start_on("ucf101") == {"lr": 0.1}
    assert set(search_space(found, row.name)) == {"lr"}


def test_editing_one_ablation_moves_no_other():
    one, other = {"vary": {"num_prompts": [1]}}, {"vary": {"inner_dim": [8]}}
    before, after = ablated(one, other), ablated(one, {"vary": {"inner_dim": [16]}})
    assert before.ablation_slice("a0") == after.ablation_slice("a0")
    assert before.ablation_slice("a1") != after.ablation_slice("a1")
    for name in (*ROWS, "ssp+num_prompts=1"):
        assert before.cell_slice("ucf101", name) == after.cell_slice("ucf101", name)


def test_without_validation_nothing_can_be_searched():
    plain = deepcopy(PLAIN) | {"data_root": "data"}
    plain["datasets"]["ucf101"]["validation"] = {"fraction": 0}
    with pytest.raises(ConfigError, match=r"validation\.fraction: 0 leaves no video.*or sweep\.trials: 0"):
        parse_config(plain, "here")
    plain["sweep"]["trials"] = 0
    assert parse_config(plain, "here").sweep.trials == 0


HALVING = [{"trials": 8, "epochs": 0.4, "videos": 0.1}, {"trials": 3}]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"fidelity": HALVING, "trials": 3, "epochs": 1}, "sweep: fidelity says what trials and epochs would; remove"),
        (
            {"fidelity": HALVING[::-1]},
            "sweep.fidelity: rung 2 trains the best 8 of the 3 trials before it; give it fewer",
        ),
        ({"fidelity": []}, "sweep.fidelity: give at least one rung, or leave it out"),
        ({}, "sweep.trials: missing; say how many, or give sweep.fidelity"),
        ({"trials": 1, "repeats": 3}, "sweep.repeats: 3 studies, and no seed for number 2 (seed i trains from study i"),
    ],
)
def test_budgets_that_contradict_themselves_are_one_line(sweep, said):
    with pytest.raises(ConfigError) as error:
        parse_config(PLAIN | {"methods": ROWS, "data_root": "data", "sweep": sweep}, "here")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_study_needs_a_seed_whatever_seeds_are_called():
    with pytest.raises(ConfigError, match=r"no seed for number 1 \(seed i trains from study i modulo 2\)"):
        parse_config(
            PLAIN | {"methods": ROWS, "data_root": "data", "seeds": [0, 2], "sweep": {"trials": 1, "repeats": 2}}, "x"
        )


def test_rungs_of_a_data_set_go_before_the_sweeps():
    """Which then decides nothing there but its space and seed; elsewhere it does."""
    data = PLAIN["datasets"]["ucf101"]
    both = {"ucf101": data | {"fidelity": HALVING}, "other": data}
    found = config(datasets=both, sweep={"trials": 5, "seed": 1})
    budgets = [[(b.trials, b.epochs, b.videos) for b in found.rungs(name)] for name in both]
    assert budgets == [[(8, 2, 0.1), (3, 3, 1.0)], [(5, 3, 1.0)]]
    more = config(datasets=both, sweep={"trials": 6, "seed": 1})
    assert found.sweep_slice("ucf101", "ssp") == more.sweep_slice("ucf101", "ssp")
    assert found.sweep_slice("other", "ssp") != more.sweep_slice("other", "ssp")
    assert config(datasets={"ucf101": both["ucf101"]}, sweep={}).rungs("ucf101") == found.rungs("ucf101")
    assert found.trainings_of_a_study("ucf101") == pytest.approx(8 * 2 / 3 * 0.1 + 3)


def test_a_config_without_rungs_folds_and_repeats_says_nothing_of_them():
    """So results of before there were any stay what they are."""
    found = config().cell_slice("ucf101", "ssp")
    assert found["sweep"] == PLAIN["sweep"]
    assert found["dataset"]["validation"] == {"fraction": 0.3} and "fidelity" not in found["dataset"]
    assert config().rungs("ucf101")[0].model_dump() == {"trials": 3, "epochs": 2, "videos": 1.0}
