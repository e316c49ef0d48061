"""What sweeps ask for where the config says little about them."""

import pytest
from pydantic import ValidationError

from ssp.config import Config
from ssp.config.sections.compute import ComputePlan
from tests.unit.made_records import make_config


def one_node(compute):
    return compute.model_dump(exclude={"nodes"})


def test_sweeps_ask_for_what_trainings_do_but_for_what_is_said():
    plan = ComputePlan.model_validate({"train": {"gpus": 1, "mem_mb": 9000}, "sweep": {"mem_mb": 7000, "threads": 2}})
    assert plan.sweep.model_dump() == one_node(plan.train) | {"mem_mb": 7000, "threads": 2}
    assert plan.sweep.gpus == 1
    for nothing in ({}, {"sweep": None}, {"sweep": {}}):
        plan = ComputePlan.model_validate({"train": {"gpus": 1}} | nothing)
        assert plan.sweep.model_dump() == one_node(plan.train)
    assert ComputePlan().sweep.model_dump() == one_node(ComputePlan().train)


def test_a_copy_of_the_config_asks_for_the_same():
    """Jobs read a copy, in which everything is said."""
    config = make_config(compute={"train": {"gpus": 1, "loader_workers": 3}, "sweep": {"runtime": 7}})
    assert Config.model_validate(config.model_dump(mode="json")).compute == config.compute
    assert config.compute.sweep.loader_workers == 3


def test_a_sweep_gets_as_many_tries_as_its_time_takes():
    for runtime, tries in ((100, 3), (300, 1), (1000, 1), (99, 4)):
        config = make_config(sweep={"trials": 3}, compute={"train": {"runtime": 100}, "sweep": {"runtime": runtime}})
        assert config.trainings_of_a_study("ssv2") == 3
        assert config.tries_of_a_sweep() == tries
    # A training of two nodes takes one node twice as long.
    config = make_config(
        sweep={"trials": 3}, compute={"train": {"runtime": 100, "nodes": 2}, "sweep": {"runtime": 300}}
    )
    assert config.tries_of_a_sweep() == 2
    assert make_config(sweep={"trials": 0}).tries_of_a_sweep() == 1


def test_trainings_alone_have_more_nodes_than_one():
    """Nodes decide no result, and whoever leaves them out has one."""
    config, several = make_config(), make_config(compute={"train": {"gpus": 4, "nodes": 2}})
    assert config.compute.train.nodes == 1 and several.compute.train.nodes == 2
    assert several.compute.sweep.gpus == 4 and not hasattr(several.compute.sweep, "nodes")
    assert config.cell_slice("ssv2", "ssp") == several.cell_slice("ssv2", "ssp")
    assert Config.model_validate(several.model_dump(mode="json")).compute == several.compute
    for kind in ("data", "pretrain", "sweep"):
        with pytest.raises(ValidationError, match=f"{kind}.nodes"):
            ComputePlan.model_validate({kind: {"nodes": 2}})
    with pytest.raises(ValidationError, match=r"train\.nodes"):
        ComputePlan.model_validate({"train": {"nodes": 0}})


def test_processes_of_a_training():
    """With GPUs there is one a GPU; each process needs a thread."""
    for compute, train, sweep in (
        ({}, 1, 1),
        ({"train": {"gpus": 4}}, 4, 4),
        ({"train": {"gpus": 4}, "sweep": {"gpus": 2}}, 4, 2),
        ({"train": {"threads": 4, "processes": 3}}, 3, 3),
        ({"train": {"threads": 4, "processes": 3}, "sweep": {"processes": 1}}, 3, 1),
        ({"train": {"threads": 4, "processes": 3}, "sweep": {"gpus": 1}}, 3, 1),  # it has nobody's `processes`
        ({"train": {"threads": 4, "processes": 3}, "sweep": {"threads": 2}}, 3, 2),
    ):
        config = make_config(compute=compute, sweep={"trials": 1, "workers": 2})
        assert (config.processes("train"), config.processes("sweep"), config.processes("pretrain")) == (train, sweep, 1)
    for compute, said in (
        ({"train": {"processes": 2}}, "train.processes: 2 share 1 threads; give each at least one"),
        (
            {"train": {"processes": 2, "threads": 2}, "sweep": {"processes": 2, "threads": 1}},
            "sweep.processes: 2 share 1",
        ),
        ({"train": {"processes": 2, "threads": 2, "gpus": 1}}, "train.processes: with gpus there is one a GPU"),
        (
            {"train": {"gpus": 1}, "sweep": {"processes": 2, "threads": 2}},
            "sweep.processes: with gpus there is one a GPU",
        ),
        ({"pretrain": {"processes": 2, "gpus": 2, "threads": 2}}, "pretrain.processes: with gpus there is one a GPU"),
    ):
        with pytest.raises(ValidationError, match=said):
            ComputePlan.model_validate(compute)
