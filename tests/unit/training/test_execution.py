"""How a job computes: `ssp.training.execution`."""

import resource
import shutil
import subprocess
import sys

import pytest
import torch

from ssp.config import ComputePlan
from ssp.errors import ConfigError
from ssp.training.execution import Execution, derive_seed

STEPS = """
import resource, sys
import torch
from ssp.config import ComputePlan
from ssp.training.execution import Execution

def step():  # tensors of a small model, freed all at once
    tensors = [torch.ones(2**20) for _ in range(32)]

if "job" in sys.argv:
    Execution.of(ComputePlan(), "train", "float32")
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc hands freed memory back; others were not tried")
def test_memory_is_kept_from_step_to_step():
    """128 MB are touched in each of ten steps; a job has the system clear their pages once, not ten times."""
    pages = 2**27 / resource.getpagesize()
    faults = {
        how: int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, check=True).stdout)
        for how in ("job", "plain")
    }
    if faults["plain"] < 5 * pages:
        pytest.skip("the system clears pages by the megabyte here")
    assert faults["job"] < pages / 10


def test_seeds_are_distinct_and_the_same_everywhere():
    assert derive_seed(0, "order", 1) == 452969769437431254
    assert len({derive_seed(seed, name, i) for seed in range(10) for name in "ab" for i in range(10)}) == 200
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_execution_keeps_to_what_the_job_declared():
    plan = ComputePlan.model_validate({"train": {"threads": 1}})
    execution = Execution.of(plan, "train", "auto")
    assert torch.get_num_threads() == 1
    assert (execution.device.type, execution.bfloat16, execution.name) == ("cpu", False, "cpu")
    layer, x = torch.nn.Linear(2, 2), torch.zeros(1, 2)
    with execution.autocast():
        assert layer(x).dtype == torch.float32
    with Execution.of(plan, "train", "bfloat16").autocast():
        assert layer(x).dtype == torch.bfloat16


def test_without_a_gpu_the_key_that_asks_for_one_is_named(monkeypatch):
    """That of the job's own kind; a sweep has it from trainings, unless told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asking, kind, key in (
        ({"pretrain": 1}, "pretrain", "pretrain"),
        ({"pretrain": 1, "train": 1}, "pretrain", "pretrain"),
        ({"train": 1}, "train", "train"),
        ({"train": 1}, "sweep", "train"),
        ({"sweep": 1}, "sweep", "sweep"),
    ):
        plan = ComputePlan.model_validate({name: {"gpus": gpus} for name, gpus in asking.items()})
        with pytest.raises(ConfigError, match=rf"compute\.{key}\.gpus: 1 asked for, but torch sees no GPU"):
            Execution.of(plan, kind, "auto")


@pytest.mark.parametrize(("megabytes", "processes"), [(1000, 3), (28, 3), (27, 2), (12, 1), (11, 0), (0, 0)])
def test_loader_processes_fit_into_shared_memory(megabytes, processes, monkeypatch, caplog):
    """A batch has 4 MB here: two for each process and one for the training, or fewer processes and a word about it."""
    clips = torch.utils.data.TensorDataset(torch.zeros(8, 1, dtype=torch.uint8))
    clips.clip_bytes = 2**20
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=megabytes * 2**20))
    loader = Execution(torch.device("cpu"), loader_workers=3).loader(clips, [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1]])
    assert loader.num_workers == processes
    told = [record.message for record in caplog.records if "docker run --shm-size" in record.message]
    assert len(told) == (processes < 3)
