"""benchmarks/gpu.py where there is no GPU: its stages run apart, its published arrangement, its report, a dry run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import apart, report
from benchmarks.gpu.device import Device, Sizes
from benchmarks.gpu.scans import poisoned
from benchmarks.gpu.training import published_mixer
from ssp.backbone.mixer import Mixer, MixerTuning

ROOT = Path(__file__).parents[2]


def rows(then):
    yield {"one": 1}
    then()
    yield {"two": 2}


def fail():
    raise ValueError("broken\nfor good")


def lack():
    import no_such_package.inside  # noqa: F401


@pytest.mark.parametrize(
    ("then", "problem", "count"),
    [
        (lambda: None, None, 2),
        (fail, "failed: ValueError: broken", 1),
        (lack, "left out: the package no_such_package is not installed", 1),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "failed: its process ended with exit code -9", 1),
        (lambda: time.sleep(60), "stopped after 1 s", 1),
    ],
)
def test_a_stage_leaves_what_it_has_found_and_says_what_was_wrong(then, problem, count):
    got, begun = [], time.monotonic()
    assert apart.run(lambda: rows(then), 1, got.append) == problem
    assert got == [{"one": 1}, {"two": 2}][:count]
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_a_stage_takes_its_children_with_it(tmp_path):
    def start():
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid").write_text(str(child.pid))
        time.sleep(60)

    apart.run(lambda: rows(start), 2, lambda row: None)
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(50):
        if not status.exists() or status.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it goes on")


class Changed(MixerTuning):
    def weights(self, weights):
        return weights._replace(out_proj=2 * weights.out_proj)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("tuning", [None, Changed()])
def test_the_published_arrangement_has_the_same_numbers(tuning):
    torch.manual_seed(0)
    mixer, hidden = Mixer(8, d_state=4).double(), torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 7, 8, dtype=torch.float64)
    leaves = [hidden, *mixer.parameters()]
    out, expected = published_mixer(mixer, hidden, tuning), mixer(hidden, tuning)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    grads, grads0 = torch.autograd.grad(out, leaves, grad), torch.autograd.grad(expected, leaves, grad)
    torch.testing.assert_close(grads, grads0, atol=1e-12, rtol=0)


def test_poison():
    x = torch.zeros(2)
    with poisoned():
        made = (x.new_empty(3), torch.empty_like(x), torch.empty(2), torch.empty(2, dtype=torch.int64))
    assert all(tensor.isnan().all() for tensor in made[:3])
    assert not torch.empty_like(x, dtype=torch.int64).is_floating_point() and torch.zeros(2).sum() == 0


def test_report_of_whatever_there_is():
    found = {"dry": False, "tables": {}, "stages": {"loss": {"problem": "failed: no"}}, "seconds": 1.0}
    assert "not measured" in report.text(found) and "- loss: failed: no" in report.text(found)
    assert report.wrong(found)
    found["stages"]["loss"]["problem"] = "left out: no time was left"
    assert not report.wrong(found)
    times = [
        {"batch": 16, "tokens": 1593, "part": part, "milliseconds": ms, "bytes": 1, "exponentials": 1}
        for part, ms in (
            ("forward", {"triton": 0.8, "mamba_ssm": 2.0}),
            ("backward", {"triton": 3.0, "mamba_ssm": 4.0}),
        )
    ]
    steps = [
        {"method": "ssp", "clips": 16, "scan": scan, "milliseconds": ms, "clips_per_second": 1.0, "peak_gb": gb}
        for scan, ms, gb in (("triton", 100.0, 5.0), ("published, scans of mamba-ssm", 300.0, 9.0))
    ]
    found["tables"] = {"times": times, "steps": steps}
    assert [target.met for target in report.targets(found)] == [True, False, False, True, False, None, None, None]
    text = report.text(found)
    assert "| scan forward, ms, at most 0.9 | 0.80 | met |" in text and text.count("NOT MET") == 3
    row = {"worst_y": 1e-6, "worst_gradient": float("inf"), "bound": 1e-4, "deterministic": True}
    assert report.wrong({"tables": {"parity": [row]}, "stages": {}})


def test_real_sizes_are_those_of_the_targets():
    device = Device(dry=False)
    assert device.torch.type == "cuda" and device.sizes == Sizes()
    assert device.sizes.scans[0] == (16, 1593) and device.sizes.clips == 16


def test_stages_fit_into_a_session():
    spec = importlib.util.spec_from_file_location("gpu_command", ROOT / "benchmarks" / "gpu.py")
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    names = [stage.name for stage in command.stages(16, dry=False)]
    assert len(set(names)) == len(names) and {name.split()[0] for name in names} == {"machine", "times", *report.TABLES}
    for stage in command.stages(16, dry=False):
        module, _, function = stage.function.partition(":")
        assert callable(getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")
def test_a_dry_run(tmp_path):
    """Of the stages that take seconds; `make bench-gpu ARGS=--dry` has all of them."""
    chosen = ["machine", "parity", "conv", "steps linear 2 triton", "loss"]
    command = [sys.executable, "benchmarks/gpu.py", "--dry", "--out", tmp_path, "--only", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "figures mean nothing" in done.stdout.splitlines()[0]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["stages"]) == set(chosen) and not any(stage["problem"] for stage in found["stages"].values())
    assert "mean nothing" in (tmp_path / "gpu.md").read_text()
