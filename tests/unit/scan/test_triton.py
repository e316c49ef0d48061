"""The Triton backend where there is no GPU: its parity under the interpreter, and what the compiler makes of it."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from ssp.scan import triton as backend
from ssp.scan.interface import Grads, ScanArgs
from ssp.scan.triton import convolution

ROOT = Path(__file__).parents[3]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")


@needs_triton
@pytest.mark.slow
def test_parity_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/scan/interpreted.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


ASK = "import sys, ssp.scan as s; print(s.available_backends(), s.choose_backend().name, 'triton' in sys.modules)"


@pytest.mark.slow
def test_triton_is_not_imported_where_there_is_no_use_for_it():
    environment = os.environ | {"TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "'triton'" not in done.stdout and done.stdout.split()[-1] == "False", done.stdout + done.stderr


def test_a_machine_without_triton_gets_one_clear_line(monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    said = backend.unavailable.__wrapped__()
    assert said == "the package triton is not installed (PyTorch's CUDA wheels bring it)"


# ---- compiled, though not run ---------------------------------------------------------------------------------------


class Target:
    """In place of Triton's driver, which wants a GPU: says what to compile for."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_device(self):
        return self.capability  # one target a device: Triton asks once for each

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


@pytest.fixture
def tools(request):
    """Folder of ptxas and its like, which come with Triton."""
    triton = pytest.importorskip("triton")
    folder = Path(triton.__file__).parent / "backends/nvidia/bin"
    if triton.knobs.runtime.interpret:
        pytest.skip("Triton interprets in this process")
    if not all((folder / tool).exists() for tool in ("ptxas", "cuobjdump")):
        pytest.skip("this Triton brings no ptxas or cuobjdump")
    return folder


@pytest.fixture
def compiled(tools, tmp_path):
    """A function that compiles a launch, as it ships, for a GPU: its PTX, registers, stack bytes, and instructions."""
    from triton.runtime import driver

    def compile_for(capability, launch):
        driver.set_active(Target(capability))
        made = launch.kernel.warmup(grid=launch.grid, **launch.args, **launch.options)
        binary = tmp_path / "kernel.cubin"
        binary.write_bytes(made.asm["cubin"])
        usage, code = (
            subprocess.run([tools / "cuobjdump", option, binary], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "-sass")
        )
        registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
        return made.asm["ptx"], registers, stack, longest_loop(code)

    yield compile_for
    if torch.cuda.is_available():
        driver.reset_active()


def longest_loop(code):
    """Instructions between the farthest jump backwards and where it goes."""
    places = [int(place, 16) for place in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/ ", code, re.MULTILINE)]
    jumps = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/.* BRA (?:[^;]*, )?0x([0-9a-f]+)", code, re.MULTILINE)
    spans = [(int(start, 16), int(end, 16)) for end, start in jumps]
    return max((sum(start <= place <= end for place in places) for start, end in spans), default=0)


def mixer_scans(states, channels=1152, tokens=64):
    """What a mixer of VideoMamba-Middle hands over: z is half of (x, z), B and C are parts of x_proj's rows."""

    def rows(count):
        return torch.empty(1, tokens, count, dtype=torch.bfloat16).transpose(1, 2)

    xz, vector = rows(2 * channels), torch.empty(channels)
    scans = []
    for reverse in (False, True):
        projected = rows(72 + 2 * states)
        B, C = projected[:, 72 : 72 + states], projected[:, 72 + states :]
        A = torch.empty(channels, states)
        u, delta = rows(channels), rows(channels)
        scans.append(ScanArgs(u, delta, A, B, C, vector, xz[:, channels:], vector, True, reverse))
    return [backend.prepare(scan) for scan in scans]


FROZEN = Grads(u=True, delta=True, B=True, C=True, z=True)
EVERY_GRADIENT = Grads(*[True] * 8)
GPUS = (80, 90, 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("states", "padded", "registers", "instructions", "capability"),
    [*((16, 16, 136, 165, gpu) for gpu in GPUS), (22, 24, 144, 215, 90)],
)
def test_compiled_forward(states, padded, registers, instructions, capability, compiled):
    launches, _, _ = backend.forward_launches(mixer_scans(states), keep=True)
    ptx, used, stack, loop = compiled(capability, launches[-1])
    tokens = launches[-1].options["TOKENS"]
    assert stack == 0, "spills"
    assert used <= registers
    assert ptx.count("ex2.approx") == tokens * (padded + 2)  # one a state; one each in softplus and SiLU
    assert not re.search(r"\b(shfl|bar|atom|red)\.", ptx), "a thread has a channel for itself"
    assert loop <= instructions * tokens


@pytest.mark.slow
@pytest.mark.parametrize(
    ("states", "padded", "needs", "registers", "instructions", "capability"),
    [
        *((16, 16, FROZEN, 168, 620, gpu) for gpu in GPUS),
        (22, 24, EVERY_GRADIENT, 255, 860, 90),
    ],
)
def test_compiled_backward(states, padded, needs, registers, instructions, capability, compiled):
    scans = mixer_scans(states)
    _, _, kept = backend.forward_launches(scans, keep=True)
    launches, _ = backend.backward_launches([scan.u for scan in scans], scans, list(kept), needs)
    ptx, used, stack, loop = compiled(capability, launches[-1])
    tokens = launches[-1].options["TOKENS"]
    assert stack == 0, "spills"
    assert used <= registers
    again = padded + 1  # forward once more through the chunk: states and softplus
    assert ptx.count("ex2.approx") == tokens * (again + padded + 2)
    assert not re.search(r"\b(shfl|atom|red)\.", ptx), "sums over channels go through shared memory, without atomics"
    assert loop <= instructions * tokens


@pytest.mark.slow
@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("of_weights", [False, True])
def test_compiled_convolution(capability, of_weights, compiled):
    x = torch.empty(1, 64, 2304, dtype=torch.bfloat16).transpose(1, 2)[:, :1152]
    weight, bias = torch.empty(1152, 1, 4), torch.empty(1152)
    launch, y = convolution.forward_launch(x, weight, bias, reverse=True)
    ptx, used, stack, _ = compiled(capability, launch)
    assert stack == 0 and used <= 128  # four blocks of four warps fit on a multiprocessor
    assert not re.search(r"\b(atom|red)\.", ptx)
    grad_x = torch.empty_like(x)
    launch, _ = convolution.backward_launch(y, x, weight, bias, True, grad_x, True, of_weights)
    ptx, used, stack, _ = compiled(capability, launch)
    assert stack == 0 and used <= 168
    assert not re.search(r"\b(atom|red)\.", ptx)
