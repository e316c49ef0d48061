"""The job that measures costs: counts are the model's, all rows take part in each round, what does not fit is said."""

import os
import signal

import pytest
import torch

from ssp.backbone.checkpoint import save_tuned
from ssp.backbone.flops import forward_flops
from ssp.config import slice_hash
from ssp.jobs import costs
from ssp.jobs.cell import new_model
from ssp.jobs.costs import measure_costs
from ssp.methods.parameters import parameter_counts
from ssp.records.costs import load_costs
from tests.unit.tiny_benchmark import PLAIN, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")
LORA = {"method": "lora", "options": {"rank": 2, "targets": ["in_proj"]}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Costs of four rows, two of them of one method, and their config; no data is there."""
    folder = tmp_path_factory.mktemp("costs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(costs, "ENOUGH_S", 0.0)
        methods = {"linear": {}, "full": {}, "low-rank": LORA, "probe-again": {"method": "linear"}}
        none = {"reference": None, "explained": None}
        config = tiny_config(folder, methods=methods, compute={"cost_rounds": 3}, **none)
        found = measure_costs(config)
        assert load_costs(config) == found
    return config, found


@pytest.mark.slow
def test_counts_are_those_of_the_models(measured, tmp_path):
    config, found = measured
    assert list(found.rows) == [*config.methods]
    for name, row in found.rows.items():
        setting = config.rows[name]
        model = new_model(config, "ucf101", setting.method, setting.options)
        assert row.parameters.model_dump() == parameter_counts(model)
        assert (row.method, row.options) == (setting.method, setting.options)
        save_tuned(model, tmp_path / "weights", {})
        assert row.saved_bytes == (tmp_path / "weights").stat().st_size
        with torch.device("meta"):
            assert row.flops == forward_flops(new_model(config, "ucf101", setting.method, setting.options))
    assert found.rows["low-rank"].merged_flops == found.rows["linear"].flops < found.rows["low-rank"].flops
    assert {name for name, row in found.rows.items() if row.merged_flops} == {"low-rank"}


@pytest.mark.slow
def test_all_rows_take_part_in_all_rounds(measured):
    _, found = measured
    assert {len(row.step_seconds) for row in found.rows.values()} == {3}
    assert {len(row.inference_seconds) for row in found.rows.values()} == {3}
    assert {row.reason for row in found.rows.values()} == {None}
    assert found.probe is None and found.linear is found.rows["linear"]


@pytest.mark.slow
def test_full_fine_tuning_takes_more_than_a_linear_probe(measured):
    _, found = measured
    full, linear = found.rows["full"], found.rows["linear"]
    assert min(full.step_seconds) > min(linear.step_seconds)
    assert full.memory_bytes > linear.memory_bytes > 0


@pytest.mark.slow
def test_the_record_says_what_the_numbers_depend_on(measured):
    config, found = measured
    assert found.config_hash == slice_hash(config.costs_slice()) and found.config == config.costs_slice()
    assert (found.device, found.threads, found.precision) == ("cpu", 1, "float32")
    assert found.clips.model_dump() == {
        **{"frames": 4, "image_size": 32, "classes": 10},
        **{"videos": 8, "at_once": 8, "repeats": 1, "inference": 16},
    }
    assert found.scan.backend and found.versions["torch"] and found.git.commit


def test_a_step_is_of_the_whole_batch_in_its_micro_batches(tmp_path):
    config = tiny_config(tmp_path, datasets__ucf101__recipe__micro_batch=3)
    trainee = costs.Trainee(costs.Setting(config), costs.Setting(config).execution, 8)
    assert [len(part.labels) for part in trainee.parts()] == [3, 3, 2]
    before = {name: p.detach().clone() for name, p in trainee.model.named_parameters()}
    trainee.step()
    moved = {name for name, p in trainee.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"head.weight", "head.bias", "norm_f.weight"}


def test_drop_path_is_that_of_the_first_trial(tmp_path):
    own = {"ssp": PLAIN["methods"]["ssp"] | {"starts": {"ucf101": {"drop_path": 0.3}}}}
    settings = costs.settings_of(tiny_config(tmp_path, methods=PLAIN["methods"] | own))
    assert {name: setting.drop_path for name, setting in settings.items()} == {
        **{"linear": 0.1, "full": 0.1, "vpt": 0.1},
        "ssp": 0.3,
    }
    assert settings["ssp"].build().drop_path.rate == 0.3


@pytest.mark.slow
def test_what_does_not_fit_into_memory_has_a_reason_and_a_probe_is_measured_besides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path, methods={"ssp": PLAIN["methods"]["ssp"]}, datasets__ucf101__recipe__batch_size=10**9)
    found = measure_costs(config)
    assert found.rows["ssp"].reason.startswith("out of memory") and found.linear.reason.startswith("out of memory")
    assert found.probe.method == "linear" and found.rows["ssp"].flops > found.probe.flops


class Killed(costs.Setting):
    """A row that the kernel kills for its memory."""

    def build(self):
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_was_killed_is_out_of_memory(tmp_path):
    failure = costs.peak_memory(Killed(tiny_config(tmp_path)), 8)
    assert str(failure) == "out of memory: the process was killed"
